//go:build !race

package raft

import "testing"

func movesAServer(*testing.T) {}
