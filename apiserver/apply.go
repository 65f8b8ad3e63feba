package apiserver

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/fieldmanager"
	"github.com/shoal-edge/shoal/store"
)

// maxApplyAttempts bounds how often an apply is tried again when the object appears or goes meanwhile.
const maxApplyAttempts = 5

// track notes in a written object whose fields the write changes.
func (s *Server) track(req *request, sub, manager string) (store.Option, error) {
	fields, err := s.fields.For(req.kind, sub)
	if err != nil {
		return nil, err
	}
	name := managerName(manager, req.UserAgent())
	return store.Track(func(newer, older api.Object) {
		shown, err := asked(req.kind, newer)
		if err != nil {
			return // as with all that cannot be tracked, the entries stay as they were
		}
		live, err := asked(req.kind, older)
		if err != nil {
			return
		}
		fields.Track(shown, live, name)
		newer.SetManagedFields(shown.GetManagedFields())
	}), nil
}

// managerName is who a write without a field manager is said to be of: the program, by the beginning of its User-Agent.
func managerName(asked, agent string) string {
	if asked != "" {
		return asked
	}
	program, _, _ := strings.Cut(agent, "/")
	var name strings.Builder
	for _, r := range program {
		if !unicode.IsPrint(r) {
			continue
		}
		if name.Len()+utf8.RuneLen(r) > validation.FieldManagerMaxLength {
			break
		}
		name.WriteRune(r)
	}
	return name.String()
}

// serveApply merges what a manager applies into the object, or creates it.
func (s *Server) serveApply(w http.ResponseWriter, req *request, sub string, p *patch) error {
	fields, err := s.fields.For(req.kind, sub)
	if err != nil {
		return err
	}
	var older api.Object
	opts := req.storeOptions(p.opts.DryRun)
	modify := func() (api.Object, error) {
		return s.cfg.Client.Modify(req.Context(), req.key(), sub, func(obj api.Object) error {
			older = obj.DeepCopyObject().(api.Object)
			applied, err := p.mergeStored(req.kind, fields, obj)
			if err != nil {
				return err
			}
			return replace(req, obj, applied)
		}, opts...)
	}
	create := func() (api.Object, error) {
		older = nil
		obj, err := p.mergeStored(req.kind, fields, nil)
		if err != nil {
			return nil, err
		}
		return s.createApplied(req, obj, opts)
	}
	for range maxApplyAttempts {
		code := http.StatusOK
		newer, err := modify()
		if apierrors.IsNotFound(err) && sub == "" {
			code = http.StatusCreated
			newer, err = create()
			if apierrors.IsAlreadyExists(err) {
				continue
			}
		}
		if err != nil {
			return err
		}
		if sub == "" {
			s.warnAbout(req, newer, older)
		}
		return s.writeShaped(w, req, code, newer)
	}
	return apierrors.NewConflict(req.groupResource(), req.name, errors.New("the object comes and goes, try again"))
}

// createApplied creates an object that is applied for the first time, which takes the right to create as well.
func (s *Server) createApplied(req *request, obj api.Object, opts []store.Option) (api.Object, error) {
	if uid := obj.GetUID(); uid != "" {
		return nil, apierrors.NewConflict(req.groupResource(), req.name,
			fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", uid))
	}
	if err := mayCreate(req); err != nil {
		return nil, err
	}
	if err := samePlace(req, obj); err != nil {
		return nil, err
	}
	req.identify(obj)
	creates := *req
	creates.verb = "create"
	if err := s.authorize(&creates); err != nil {
		return nil, err
	}
	return s.cfg.Client.Create(req.Context(), obj, opts...)
}

// mergeStored applies the patch, in the version asked for, to an object as it is stored, which is nil when there is none.
func (p *patch) mergeStored(kind *api.Kind, fields *fieldmanager.Manager, live api.Object) (api.Object, error) {
	shown, err := asked(kind, live)
	if err != nil {
		return nil, err
	}
	merged, err := p.merge(fields, shown)
	if err != nil {
		return nil, err
	}
	return toStored(kind, merged)
}

// merge applies the patch to an object, which is nil when there is none.
func (p *patch) merge(fields *fieldmanager.Manager, live api.Object) (api.Object, error) {
	applied := &unstructured.Unstructured{Object: map[string]any{}}
	read := func(data []byte, into any) error { return yaml.Unmarshal(data, into) }
	if p.kind == types.ApplyCBORPatchType {
		read = direct.Unmarshal
	}
	if err := read(p.data, &applied.Object); err != nil {
		return nil, errBadRequest("error decoding patch: %v", err)
	}
	merged, err := fields.Apply(live, applied, p.opts.FieldManager, ptr.Deref(p.opts.Force, false))
	if err != nil {
		return nil, applyError(err)
	}
	return merged, p.judgeYAML()
}

// judgeYAML refuses, or warns of, keys that are given twice. Unknown fields have been refused before.
func (p *patch) judgeYAML() error {
	if p.directive == metav1.FieldValidationIgnore || p.kind == types.ApplyCBORPatchType {
		return nil // in CBOR it is no map
	}
	err := yaml.UnmarshalStrict(p.data, &map[string]any{})
	switch {
	case err == nil:
		return nil
	case p.directive == metav1.FieldValidationStrict:
		return errBadRequest("error strict decoding patch: %v", err)
	}
	p.warn(strictWarnings([]error{err})...)
	return nil
}

// applyError is the answer to what could not be merged. What does not fit the schema is told as it is, as upstream does: with
// the code of an internal error.
func applyError(err error) error {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return err
	}
	refused := apierrors.NewGenericServerResponse(http.StatusInternalServerError, "", schema.GroupResource{}, "", "", 0, false)
	refused.ErrStatus.Reason, refused.ErrStatus.Message, refused.ErrStatus.Details = metav1.StatusReasonUnknown, err.Error(), nil
	return refused
}
