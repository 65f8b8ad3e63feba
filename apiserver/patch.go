package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"reflect"
	"slices"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
)

// maxPatchOperations bounds the work that one JSON patch can ask for.
const maxPatchOperations = 10000

type conversionScope = conversion.Scope

// patch is a change that a client describes instead of the result.
type patch struct {
	kind      types.PatchType
	data      []byte
	opts      *metav1.PatchOptions
	directive string // what to do with unknown and duplicate fields
	warn      func(...string)
	decode    func(gvk schema.GroupVersionKind, data []byte, into runtime.Object) error
}

func (s *Server) servePatch(w http.ResponseWriter, req *request, sub string) error {
	p, err := s.readPatch(req)
	if err != nil {
		return err
	}
	if p.applies() {
		return s.serveApply(w, req, sub, p)
	}
	track, err := s.track(req, sub, p.opts.FieldManager)
	if err != nil {
		return err
	}
	var older api.Object
	newer, err := s.cfg.Client.Modify(req.Context(), req.key(), sub, func(obj api.Object) error {
		older = obj.DeepCopyObject().(api.Object)
		shown, err := show(req.kind, obj)
		if err != nil {
			return err
		}
		patched := req.kind.New()
		if err := p.apply(req.kind.GVK, shown, patched); err != nil {
			return err
		}
		if patched, err = toStored(req.kind, patched); err != nil {
			return err
		}
		return replace(req, obj, patched)
	}, append(req.storeOptions(p.opts.DryRun), track)...)
	if err != nil {
		return err
	}
	if sub == "" {
		s.warnAbout(req, newer, older)
	}
	return s.writeShaped(w, req, http.StatusOK, newer)
}

// applies reports whether the patch is what a manager applies.
func (p *patch) applies() bool {
	return p.kind == types.ApplyYAMLPatchType || p.kind == types.ApplyCBORPatchType
}

// replace makes obj what a patch made of it.
func replace(req *request, obj, patched api.Object) error {
	if err := samePlace(req, patched); err != nil {
		return err
	}
	singleOwners(req, patched, whenPatched)
	reflect.ValueOf(obj).Elem().Set(reflect.ValueOf(patched).Elem())
	return nil
}

// readPatch finds out what kind of patch the body is.
func (s *Server) readPatch(req *request) (*patch, error) {
	media, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type")) // an unreadable type is an unknown one
	kind := types.PatchType(media)
	accepted := []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType, types.ApplyYAMLPatchType}
	if custom.Of(req.kind) != nil && req.sub != "scale" {
		accepted = slices.DeleteFunc(accepted, func(t types.PatchType) bool { return t == types.StrategicMergePatchType })
	}
	if kind != types.ApplyCBORPatchType && !slices.Contains(accepted, kind) {
		return nil, errUnsupported(accepted...)
	}
	opts := &metav1.PatchOptions{}
	if err := convert(metav1.Convert_url_Values_To_v1_PatchOptions, req.query, opts); err != nil {
		return nil, err
	}
	if err := invalidOptions("PatchOptions", validation.ValidatePatchOptions(opts, kind)); err != nil {
		return nil, err
	}
	return &patch{
		kind: kind, data: req.body, opts: opts, directive: opts.FieldValidation, warn: req.warn,
		decode: func(gvk schema.GroupVersionKind, data []byte, into runtime.Object) error {
			var decoder runtime.Decoder = s.formats.jsonStrict
			if _, ok := into.(*custom.Object); ok {
				decoder = custom.Decoder{Strict: true}
			}
			_, _, err := decoder.Decode(data, &gvk, into)
			return err
		},
	}, nil
}

// apply makes patched of an object and the patch.
func (p *patch) apply(gvk schema.GroupVersionKind, obj, patched runtime.Object) error {
	if p.kind == types.StrategicMergePatchType {
		return p.strategic(obj, patched)
	}
	current, err := json.Marshal(obj)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	result, strict, err := p.patchJSON(current)
	if err != nil {
		return err
	}
	err = p.decode(gvk, result, patched)
	return p.judge(strict, err, string(result))
}

// patchJSON applies a JSON or merge patch to a document.
func (p *patch) patchJSON(current []byte) (result []byte, strict []error, err error) {
	var probe any = &map[string]any{}
	if p.kind == types.JSONPatchType {
		probe = &[]struct {
			Op    string `json:"op"`
			Path  string `json:"path"`
			From  string `json:"from"`
			Value any    `json:"value"`
		}{}
	}
	if strict, err = kjson.UnmarshalStrict(p.data, probe); err != nil {
		return nil, nil, errBadRequest("error decoding patch: %v", err)
	}
	if p.kind == types.MergePatchType {
		result, err = jsonpatch.MergePatch(current, p.data)
		if errors.Is(err, jsonpatch.ErrBadJSONPatch) {
			err = errBadRequest("%v", err)
		}
		return result, strict, err
	}
	for i, e := range strict {
		strict[i] = fmt.Errorf("json patch %w", e)
	}
	operations, err := jsonpatch.DecodePatch(p.data)
	if err != nil {
		return nil, nil, errBadRequest("%v", err)
	}
	if len(operations) > maxPatchOperations {
		return nil, nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf(
			"The allowed maximum operations in a JSON patch is %d, got %d", maxPatchOperations, len(operations)))
	}
	if result, err = operations.Apply(current); err != nil {
		return nil, nil, apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
	}
	return result, strict, nil
}

// strategic applies a patch whose lists merge by the keys that the type itself names.
func (p *patch) strategic(obj, patched runtime.Object) error {
	current, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	change := map[string]any{}
	var strict []error
	if p.directive == metav1.FieldValidationIgnore {
		err = utiljson.Unmarshal(p.data, &change)
	} else {
		strict, err = kjson.UnmarshalStrict(p.data, &change)
	}
	if err != nil {
		return errBadRequest("%v", err)
	}
	told := fmt.Sprintf("%+v", change)
	merged, err := strategicpatch.StrategicMergeMapPatch(current, change, patched)
	switch {
	case errors.Is(err, mergepatch.ErrBadJSONDoc), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList),
		errors.Is(err, mergepatch.ErrBadPatchFormatForRetainKeys), errors.Is(err, mergepatch.ErrBadPatchFormatForSetElementOrderList),
		errors.Is(err, mergepatch.ErrUnsupportedStrategicMergePatchFormat):
		return errBadRequest("%v", err)
	case err != nil:
		return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
	}
	err = runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(merged, patched, p.directive != metav1.FieldValidationIgnore)
	return p.judge(strict, err, told)
}

// judge decides what becomes of a patch whose result did not decode cleanly: unknown and duplicate fields are ignored,
// warned of or refused; anything else is refused.
func (p *patch) judge(strict []error, err error, told string) error {
	refuse := func(err error) error {
		return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), told, err.Error())})
	}
	decoded, isStrict := runtime.AsStrictDecodingError(err)
	switch {
	case err != nil && !isStrict:
		return refuse(err)
	case isStrict:
		strict = append(strict, decoded.Errors()...)
	}
	switch {
	case len(strict) == 0 || p.directive == metav1.FieldValidationIgnore:
		return nil
	case p.directive == metav1.FieldValidationStrict:
		return refuse(runtime.NewStrictDecodingError(strict))
	}
	p.warn(strictWarnings(strict)...)
	return nil
}
