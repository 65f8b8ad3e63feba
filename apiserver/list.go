package apiserver

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shoal-edge/shoal/store"
)

// page is one part of a list.
type page struct {
	items     []store.Item
	revision  uint64
	next      string
	remaining *int64
}

// continuation is where a list goes on: after an object, in the state of a revision.
type continuation struct {
	Version  string `json:"v"`
	Revision int64  `json:"rv"`
	After    string `json:"start"`
}

const (
	continuationVersion = "meta.k8s.io/v1"
	// presentState is the revision of a continuation that goes on with the present state, whatever the first pages showed.
	presentState = -1
)

func (c continuation) encode() string {
	raw, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Errorf("apiserver: numbers and strings can always be encoded: %w", err))
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

func decodeContinuation(token string) (c continuation, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || json.Unmarshal(raw, &c) != nil || c.Version != continuationVersion || c.Revision < presentState || c.Revision == 0 {
		return c, errBadRequest("continue key is not valid: %q", token)
	}
	return c, nil
}

func (s *Server) serveList(w http.ResponseWriter, req *request) error {
	out, err := req.negotiate()
	if err != nil {
		return err
	}
	sel, err := s.newSelector(req)
	if err != nil {
		return err
	}
	opts, err := listOptions(req)
	if err != nil {
		return err
	}
	p, err := s.page(req, opts, sel)
	if err != nil {
		return err
	}
	return s.writeList(w, req, out, p)
}

func listOptions(req *request) (*metav1.ListOptions, error) {
	opts := &metav1.ListOptions{}
	if err := metav1.Convert_url_Values_To_v1_ListOptions(&req.query, opts, nil); err != nil {
		return nil, errBadRequest("%v", err)
	}
	if errs := validateListOptions(opts); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs)
	}
	return opts, nil
}

func validateListOptions(o *metav1.ListOptions) field.ErrorList {
	var errs field.ErrorList
	match := field.NewPath("resourceVersionMatch")
	initial := field.NewPath("sendInitialEvents")
	switch {
	case o.SendInitialEvents != nil && !o.Watch:
		errs = append(errs, field.Forbidden(initial, "sendInitialEvents is forbidden for list"))
	case o.SendInitialEvents != nil && o.ResourceVersionMatch != metav1.ResourceVersionMatchNotOlderThan:
		errs = append(errs, field.Forbidden(match, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
	case o.SendInitialEvents != nil && *o.SendInitialEvents && !o.AllowWatchBookmarks:
		errs = append(errs, field.Forbidden(initial, "sendInitialEvents requires setting allowWatchBookmarks to true"))
	case o.Watch && o.SendInitialEvents == nil && o.ResourceVersionMatch != "":
		errs = append(errs, field.Forbidden(match, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"))
	case o.Watch || o.ResourceVersionMatch == "":
	case o.ResourceVersion == "":
		errs = append(errs, field.Forbidden(match, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
	case o.Continue != "":
		errs = append(errs, field.Forbidden(match, "resourceVersionMatch is forbidden when continue is provided"))
	case o.ResourceVersionMatch == metav1.ResourceVersionMatchExact && o.ResourceVersion == "0":
		errs = append(errs, field.Forbidden(match, `resourceVersionMatch "exact" is forbidden for resourceVersion "0"`))
	case o.ResourceVersionMatch != metav1.ResourceVersionMatchExact && o.ResourceVersionMatch != metav1.ResourceVersionMatchNotOlderThan:
		errs = append(errs, field.NotSupported(match, o.ResourceVersionMatch, []string{"Exact", "NotOlderThan", ""}))
	}
	return errs
}

// page finds the objects of a list request.
func (s *Server) page(req *request, opts *metav1.ListOptions, sel *selector) (*page, error) {
	from, err := s.cfg.Client.ReaderFor(req.kind, req.namespace)
	if err != nil {
		return nil, err
	}
	if opts.Continue != "" {
		return s.nextPage(req, opts, sel, from)
	}
	asked, err := s.atRevision(req.Context(), from, opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	if exact(opts) {
		items, err := s.cfg.Client.ListAt(req.kind.Storage(), req.namespace, asked)
		if err != nil {
			return nil, errExpired(asked, from.Revision())
		}
		p, err := s.cut(items, sel, opts, asked)
		if errors.Is(err, store.ErrSealed) {
			return nil, errExpired(asked, from.Revision()) // the key of an old value was dropped
		}
		return p, err
	}
	revision := from.Revision() // before the look-up: what is found may be newer, never older
	items, found := sel.candidates(s.cfg.Client.Reader(), req.namespace)
	if !found {
		items, revision = s.cfg.Client.Reader().List(req.stored(), req.namespace)
	}
	return s.cut(items, sel, opts, revision)
}

// exact reports whether a list must be of the very revision that it names. A limit without a word on that means so too.
func exact(opts *metav1.ListOptions) bool {
	named := opts.ResourceVersion != "" && opts.ResourceVersion != "0"
	return opts.ResourceVersionMatch == metav1.ResourceVersionMatchExact || named && opts.Limit > 0 && opts.ResourceVersionMatch == ""
}

// nextPage goes on with a list in the state of its first page. What the history has lost is gone: then the answer has a token with
// which a client that can live with that goes on in the present state.
func (s *Server) nextPage(req *request, opts *metav1.ListOptions, sel *selector, from *store.Store) (*page, error) {
	if opts.ResourceVersion != "" && opts.ResourceVersion != "0" {
		return nil, errBadRequest("specifying resource version is not allowed when using continue")
	}
	c, err := decodeContinuation(opts.Continue)
	if err != nil {
		return nil, err
	}
	var items []store.Item
	var revision uint64
	if c.Revision == presentState {
		if err := s.catchUp(req.Context()); err != nil {
			return nil, err
		}
		items, revision = s.cfg.Client.Reader().List(req.stored(), req.namespace)
	} else {
		if s.paged.over(uint64(c.Revision)) {
			return nil, errContinueExpired(c.After)
		}
		if revision, err = s.atRevision(req.Context(), from, strconv.FormatInt(c.Revision, 10)); err != nil {
			return nil, err
		}
		if items, err = s.cfg.Client.ListAt(req.kind.Storage(), req.namespace, revision); err != nil {
			return nil, errContinueExpired(c.After)
		}
	}
	first, _ := slices.BinarySearchFunc(items, c.After, func(item store.Item, after string) int {
		if order := compareKeys(item.Key, after); order != 0 {
			return order
		}
		return -1 // the object itself was on the last page
	})
	p, err := s.cut(items[first:], sel, opts, revision)
	if errors.Is(err, store.ErrSealed) && c.Revision != presentState {
		return nil, errContinueExpired(c.After) // the key of an old value was dropped
	}
	return p, err
}

func errContinueExpired(after string) error {
	err := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. " +
		"Start a new list without it, or go on with the continue token of this answer: what changed since the first page may then be " +
		"missing, or be shown twice.")
	err.ErrStatus.Continue = continuation{Version: continuationVersion, Revision: presentState, After: after}.encode()
	return err
}

// compareKeys compares as the store sorts: by namespace, then by name.
func compareKeys(k store.Key, after string) int {
	namespace, name, _ := strings.Cut(after, "/")
	if order := strings.Compare(k.Namespace, namespace); order != 0 {
		return order
	}
	return strings.Compare(k.Name, name)
}

// cut selects the objects of a page. What cannot be decrypted fails here, before the answer has begun.
func (s *Server) cut(items []store.Item, sel *selector, opts *metav1.ListOptions, revision uint64) (*page, error) {
	p := &page{revision: revision}
	limit := int(opts.Limit)
	for i, item := range items {
		if !sel.fields.Empty() && i%preparedAtOnce == 0 {
			if err := s.prepare(sel.kind, items[i:]); err != nil {
				return nil, err
			}
		}
		if !sel.everything() {
			_, ok, err := sel.matchesItem(item)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
		}
		if sel.kind.Sensitive {
			if _, err := s.cfg.Durable.CheckSeal(item); err != nil {
				return nil, err
			}
		}
		if limit > 0 && len(p.items) == limit {
			last := p.items[limit-1].Key
			if opts.Continue == "" {
				s.paged.begin(revision)
			}
			p.next = continuation{
				Version: continuationVersion, Revision: int64(revision), After: last.Namespace + "/" + last.Name,
			}.encode()
			if sel.everything() {
				left := int64(len(items) - i)
				p.remaining = &left
			}
			break
		}
		p.items = append(p.items, item)
	}
	return p, nil
}

// listMeta is the metadata of a page.
func (p *page) listMeta() metav1.ListMeta {
	return metav1.ListMeta{ResourceVersion: store.FormatRevision(p.revision), Continue: p.next, RemainingItemCount: p.remaining}
}
