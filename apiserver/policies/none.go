//go:build !cel

package policies

import (
	"context"

	"github.com/shoal-edge/shoal/apiserver/matching"
	"github.com/shoal-edge/shoal/store"
)

// Enforcer enforces nothing.
type Enforcer struct{}

// New returns an enforcer.
func New(Config) *Enforcer { return &Enforcer{} }

// Mutate changes nothing.
func (e *Enforcer) Mutate(context.Context, *store.Admission, func() error) error { return nil }

// Validate lets everything pass.
func (e *Enforcer) Validate(context.Context, *store.Admission) error { return nil }

// Admit lets everything pass.
func (e *Enforcer) Admit(context.Context, *matching.Request) error { return nil }
