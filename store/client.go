package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-edge/shoal/api"
)

// maxAttempts bounds how often a write without a resourceVersion is tried again when another write came between.
const maxAttempts = 10

// MaxObjectBytes is the largest object that is stored.
const MaxObjectBytes = 1536 << 10

// ClientConfig configures a Client.
type ClientConfig struct {
	Durable *Store
	Propose Proposer
	// Volatile returns the leader's volatile store; away from the leader it returns an error.
	Volatile func() (*Store, Proposer, error)
	// Now is the clock for creation and deletion times. Nil: time.Now.
	Now func() time.Time
	// Admit is asked before each write, in order. Review is asked after validation, and changes nothing.
	Admit, Review []Admitter
	// Removed returns what is to happen, in the same transaction, to objects of other resources when an object goes for good.
	Removed func(r Reader, gone api.Object) []Op
	// Confirm brings the durable store up to date with every write that was acknowledged before the call. With it, no write of
	// a durable object is refused, or answered without a proposal, by an old state. Nil: the caller looks again anyway.
	Confirm func(ctx context.Context) error
}

// Client writes objects as the Kubernetes API does: defaults, admission, validation, optimistic concurrency, graceful
// deletion and finalizers. It sends each object to the store of its state class. Errors are API errors.
type Client struct {
	durable  *Store
	propose  Proposer
	volatile func() (*Store, Proposer, error)
	now      func() time.Time
	admit    []Admitter
	review   []Admitter
	removed  func(r Reader, gone api.Object) []Op
	confirm  func(ctx context.Context) error
}

// NewClient returns a client.
func NewClient(cfg ClientConfig) *Client {
	c := &Client{
		durable: cfg.Durable, propose: cfg.Propose, volatile: cfg.Volatile, now: cfg.Now,
		admit: cfg.Admit, review: cfg.Review, removed: cfg.Removed, confirm: cfg.Confirm,
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.volatile == nil {
		c.volatile = func() (*Store, Proposer, error) { return nil, nil, ErrNotLeader }
	}
	return c
}

// Option changes how one write is made.
type Option func(*options)

type options struct {
	dryRun bool
	track  func(newer, older api.Object)
	as     *api.Kind
	hear   Hearer
}

// DryRun does everything but the write.
func DryRun(o *options) { o.dryRun = true }

// Track lets a function note in newer's metadata whose fields the write changes. It sees what the client sent, with defaults,
// and the object before, which is nil for a creation.
func Track(note func(newer, older api.Object)) Option { return func(o *options) { o.track = note } }

// As has the write checked by the rules of the version of the kind that its author speaks. The object is in the stored version
// all the same.
func As(kind *api.Kind) Option { return func(o *options) { o.as = kind } }

// Hear has somebody told what admission has to say of the write. Nil: nobody.
func Hear(h Hearer) Option { return func(o *options) { o.hear = h } }

// rules is the kind that checks an object.
func (o options) rules(t *target) *api.Kind {
	if o.as != nil {
		return o.as
	}
	return t.kind
}

func makeOptions(opts []Option) options {
	var o options
	for _, set := range opts {
		set(&o)
	}
	return o
}

// target is where one object lives.
type target struct {
	kind     *api.Kind
	key      Key
	store    *Store
	proposer Proposer
	// proposed says that the log was asked: its answer needs no confirmation.
	proposed bool
	// unsure says that the memory may be old.
	unsure bool
	// as is the kind in the version that the author of the write speaks. Nil: the stored one.
	as *api.Kind
}

// propose seals the plain value of the operation on the target and has it ordered, together with others.
func (t *target) propose(ctx context.Context, op Op, others ...Op) (uint64, error) {
	if op.Value != nil {
		var err error
		if t.kind.Sensitive {
			defer t.store.sealing.begin()()
		}
		if op.Value, err = t.store.seal(op.Key, op.Value); err != nil {
			return 0, apierrors.NewInternalError(err)
		}
	}
	t.proposed = true
	return t.proposer.Propose(ctx, Txn{Ops: append([]Op{op}, others...)})
}

// resource is what errors call the object's resource: as the author of the write does.
func (t *target) resource() schema.GroupResource {
	if t.as != nil {
		return t.as.GVR().GroupResource()
	}
	return t.kind.GVR().GroupResource()
}

func (c *Client) target(key Key) (*target, error) {
	kind := c.durable.Kind(key.Resource)
	if kind == nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the resource %q is not served", key.Resource))
	}
	t := &target{kind: kind, key: key, store: c.durable, proposer: c.propose}
	if kind.ClassOf(key.Namespace) == api.Volatile {
		var err error
		if t.store, t.proposer, err = c.volatile(); err != nil {
			return nil, proposeError(t, "write", err)
		}
	}
	return t, nil
}

func (c *Client) targetOf(obj api.Object) (*target, error) {
	key := KeyOf(c.durable, obj)
	if key.Resource == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("objects of type %T are not served", obj))
	}
	return c.target(key)
}

// confirmed makes an attempt at a write. When it is decided without the log, by this server's memory alone, the memory is brought
// up to date and the attempt made again: a leader that is none any more, or has just become one, would refuse by an old state.
func (c *Client) confirmed(ctx context.Context, t *target, attempt func() (api.Object, error)) (api.Object, error) {
	sure := c.confirm == nil || t.store != c.durable
	t.unsure = !sure
	obj, err := attempt()
	if t.proposed || sure {
		return obj, err
	}
	if err := c.confirm(ctx); err != nil {
		return nil, proposeError(t, "write", err)
	}
	t.unsure = false
	return attempt()
}

// current reads the stored object as a copy of our own.
func (t *target) current() (Item, api.Object, error) {
	item, ok := t.store.Get(t.key)
	if !ok {
		return Item{}, nil, apierrors.NewNotFound(t.resource(), t.key.Name)
	}
	obj, err := t.store.Decode(item)
	if err != nil {
		return Item{}, nil, apierrors.NewInternalError(err)
	}
	return item, obj, nil
}

// holds reports whether an item has just these plain bytes, so that there is nothing to write. One that is to be sealed anew
// has not.
func (t *target) holds(item Item, value []byte) bool {
	if !t.kind.Sensitive {
		return bytes.Equal(item.Value, value)
	}
	plain, err := t.store.Plain(item)
	if err != nil || !bytes.Equal(plain, value) {
		return false
	}
	stale, err := t.store.CheckSeal(item)
	return err == nil && !stale
}

// encode makes the plain bytes of an object and refuses what is too large.
func (t *target) encode(obj api.Object) ([]byte, error) {
	value, err := api.Encode(obj)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if len(value) > MaxObjectBytes {
		return nil, apierrors.NewRequestEntityTooLargeError(
			fmt.Sprintf("%s is %d bytes, more than the limit of %d", t.key, len(value), MaxObjectBytes))
	}
	return value, nil
}

// encodeTracked is encode for an object whose entries somebody noted: one that only they make too large is stored without them.
func (t *target) encodeTracked(obj api.Object, o options) ([]byte, error) {
	value, err := t.encode(obj)
	if o.track == nil || !apierrors.IsRequestEntityTooLargeError(err) || len(obj.GetManagedFields()) == 0 {
		return value, err
	}
	obj.SetManagedFields(nil)
	return t.encode(obj)
}

// admission begins the admission of one attempt at a write. It is to be ended.
func (c *Client) admission(t *target, a *Admission, o options) *Admission {
	a.Kind, a.As, a.Reader, a.DryRun, a.hear, a.unsure = t.kind, o.rules(t), c.Reader(), o.dryRun, o.hear, t.unsure
	if t.store == c.durable {
		a.turns = t.store.turns
	}
	return a
}

func ask(ctx context.Context, all []Admitter, t *target, a *Admission) error {
	for _, admitter := range all {
		if err := admitter.Admit(ctx, a); err != nil {
			if status := apierrors.APIStatus(nil); errors.As(err, &status) || errors.Is(err, errUnconfirmed) {
				return err
			}
			return apierrors.NewForbidden(t.resource(), t.key.Name, err)
		}
	}
	return nil
}

// gone is what else happens in the transaction that removes an object.
func (c *Client) gone(t *target, obj api.Object) []Op {
	if c.removed == nil || t.store != c.durable {
		return nil
	}
	return c.removed(c.Reader(), obj)
}

// timestamp is the present in the precision that objects keep.
func (c *Client) timestamp() metav1.Time { return metav1.NewTime(c.now().Truncate(time.Second)) }
