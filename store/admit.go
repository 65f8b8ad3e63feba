package store

import (
	"context"
	"errors"
	"reflect"

	"github.com/shoal-edge/shoal/api"
)

// Operation is the kind of write that an Admission tells of.
type Operation string

// The operations.
const (
	OpCreate Operation = "CREATE"
	OpUpdate Operation = "UPDATE"
	OpDelete Operation = "DELETE"
	// OpConnect is no write: it opens a stream to what an object stands for. Only those who ask for it hear of it.
	OpConnect Operation = "CONNECT"
)

// Admission is one write on its way into the store. An admitter may change Object; Old is for reading.
type Admission struct {
	Operation   Operation
	Kind        *api.Kind // in the version that is stored
	As          *api.Kind // in the version that the author of the write speaks
	Subresource string
	Object      api.Object // nil for a deletion
	Old         api.Object // nil for a creation
	DryRun      bool
	Reader      Reader

	ops     []Op
	turns   *turns
	release []func()
	hear    Hearer

	unsure   bool
	replaced bool
}

// errUnconfirmed asks for the attempt to be made again with a state that is up to date.
var errUnconfirmed = errors.New("store: the state may be old")

// Sure returns an error, to be returned, while this server may not know of every write that was acknowledged. It is for admission that is too
// dear to be done twice for a write that is refused.
func (a *Admission) Sure() error {
	if a.unsure {
		return errUnconfirmed
	}
	return nil
}

// Replace makes Object, which stays the same variable, what another object is. What the server itself decides of an object is decided anew
// before it is stored.
func (a *Admission) Replace(by api.Object) {
	reflect.ValueOf(a.Object).Elem().Set(reflect.ValueOf(by).Elem())
	a.replaced = true
}

// Hearer is told what admission has to say of a write that it lets pass.
type Hearer interface {
	// Warn tells the author of the write; a text that was told before is told once.
	Warn(texts ...string)
	// Note adds to what is recorded of the request.
	Note(key, value string)
}

// Also adds an operation on an object of another resource to the transaction: both happen, or neither does. When its expectation
// fails, the write begins anew, with all that admission does. It is for writes of durable objects.
func (a *Admission) Also(op Op) { a.ops = append(a.ops, op) }

// Alone waits until every other write that asked for the same key has ended. Correctness is the business of expected revisions; this
// spares the writes that would begin anew. Whoever asks for several keys asks in one order.
func (a *Admission) Alone(ctx context.Context, key Key) error {
	if a.turns == nil || a.DryRun {
		return nil
	}
	release, err := a.turns.take(ctx, key)
	if err != nil {
		return err
	}
	a.release = append(a.release, release)
	return nil
}

// Heard reports whether anybody hears Warn and Note.
func (a *Admission) Heard() bool { return a.hear != nil }

// Warn tells the author of the write.
func (a *Admission) Warn(texts ...string) {
	if a.hear != nil {
		a.hear.Warn(texts...)
	}
}

// Note adds to what is recorded of the request.
func (a *Admission) Note(key, value string) {
	if a.hear != nil {
		a.hear.Note(key, value)
	}
}

// end lets the next ones have their turn.
func (a *Admission) end() {
	for _, release := range a.release {
		release()
	}
}

// Admitter changes or refuses writes, after defaults and before validation (ClientConfig.Admit), or refuses them after it
// (ClientConfig.Review). Errors should be API errors; any other error
// refuses the write as forbidden.
type Admitter interface {
	Admit(ctx context.Context, a *Admission) error
}

// AdmitFunc is a function as an Admitter.
type AdmitFunc func(ctx context.Context, a *Admission) error

// Admit calls the function.
func (f AdmitFunc) Admit(ctx context.Context, a *Admission) error { return f(ctx, a) }
