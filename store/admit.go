package store

import (
	"context"

	"github.com/shoal-edge/shoal/api"
)

// Operation is the kind of write that an Admission tells of.
type Operation string

// The operations.
const (
	OpCreate Operation = "CREATE"
	OpUpdate Operation = "UPDATE"
	OpDelete Operation = "DELETE"
)

// Admission is one write on its way into the store. An admitter may change Object; Old is for reading.
type Admission struct {
	Operation   Operation
	Kind        *api.Kind
	Subresource string
	Object      api.Object // nil for a deletion
	Old         api.Object // nil for a creation
	DryRun      bool
	Reader      Reader
}

// Admitter changes or refuses writes, after defaults and before validation. Errors should be API errors; any other error
// refuses the write as forbidden.
type Admitter interface {
	Admit(ctx context.Context, a *Admission) error
}

// AdmitFunc is a function as an Admitter.
type AdmitFunc func(ctx context.Context, a *Admission) error

// Admit calls the function.
func (f AdmitFunc) Admit(ctx context.Context, a *Admission) error { return f(ctx, a) }
