// Package logstore compares the log of a server with github.com/hashicorp/raft-wal: what each asks of a disk, and what each makes
// of a damaged file. docs/adr/0015-a-log-of-our-own.md has the figures and what follows from them.
package logstore
