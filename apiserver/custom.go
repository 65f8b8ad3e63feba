package apiserver

import (
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
	"github.com/shoal-edge/shoal/store"
)

// findCustom looks for the kind of a request among those that this server's definitions make. A kind that is not there is looked for
// once more when this server knows all that was acknowledged: its definition may have been established at another server.
func (s *Server) findCustom(req *request) error {
	if req.kind != nil || req.review != nil || req.gv.Group == "" {
		return nil
	}
	if req.kind = s.customKind(req); req.kind != nil {
		return nil
	}
	if err := s.catchUp(req.Context()); err != nil {
		return err
	}
	req.kind = s.customKind(req)
	return nil
}

func (s *Server) customKind(req *request) *api.Kind {
	d := s.cfg.Durable.Definition(req.groupResource().String())
	if d == nil || d.Group != req.gv.Group {
		return nil
	}
	for _, v := range d.Served {
		if v.Kind.GVK.Version == req.gv.Version && req.scoped(v.Kind) {
			return v.Kind
		}
	}
	return nil
}

// KindOf finds a kind that is served, of this server's own or of a definition; nil if there is none.
func KindOf(durable *store.Store, gvk schema.GroupVersionKind) *api.Kind {
	if kind := api.ByGVK(gvk); kind != nil {
		return kind
	}
	for _, d := range durable.Definitions() {
		for _, v := range d.Served {
			if v.Kind.GVK == gvk {
				return v.Kind
			}
		}
	}
	return nil
}

// customVersions are the served versions of all defined kinds.
func (s *Server) customVersions() []*custom.Version {
	var all []*custom.Version
	for _, d := range s.cfg.Durable.Definitions() {
		all = append(all, d.Served...)
	}
	return all
}

// mayCreate refuses new objects of a kind whose definition is being deleted: its objects are, too.
func mayCreate(req *request) error {
	v := custom.Of(req.kind)
	if v == nil || !v.Definition.Terminating {
		return nil
	}
	err := apierrors.NewMethodNotSupported(req.groupResource(), req.verb)
	err.ErrStatus.Message = fmt.Sprintf("%v not allowed while custom resource definition is terminating", req.verb)
	return err
}

// customDecoder reads objects of defined kinds. Such have no Protobuf form.
func customDecoder(contentType string, strict bool) (runtime.Decoder, error) {
	accepted := []string{mediaJSON, mediaYAML}
	switch media, err := mediaOfBody(contentType); {
	case err != nil:
		return nil, errUnsupported(accepted...)
	case slices.Contains([]string{mediaJSON, "text/json"}, media):
		return custom.Decoder{Strict: strict}, nil
	case slices.Contains([]string{mediaYAML, "application/x-yaml", "text/yaml"}, media):
		return custom.Decoder{YAML: true, Strict: strict}, nil
	}
	return nil, errUnsupported(accepted...)
}

// customDeleteOptions reads options for objects of a defined kind. They may call themselves of its group, which the scheme does not know.
func customDeleteOptions(req *request, opts *metav1.DeleteOptions) error {
	if _, err := customDecoder(req.Header.Get("Content-Type"), false); err != nil {
		return err
	}
	if err := yaml.Unmarshal(req.body, opts); err != nil { // JSON is YAML
		return errBadRequest("%v", err)
	}
	if opts.Kind != "" && opts.Kind != "DeleteOptions" {
		return errBadRequest("decoded object cannot be converted to DeleteOptions")
	}
	return nil
}

// negotiate finds the form of an answer with objects. Those of defined kinds have no binary form of their own.
func (req *request) negotiate() (output, error) {
	if custom.Of(req.kind) == nil {
		return negotiate(req.Request)
	}
	return negotiateAny(req.Request, func(o output) bool {
		return o.as == asPartial || o.as == asPartialList || o.media == mediaJSON || o.media == mediaYAML
	})
}

// listKind is what a list of a kind is called.
func listKind(kind *api.Kind) string {
	if v := custom.Of(kind); v != nil {
		return v.Definition.ListKind
	}
	return kind.GVK.Kind + "List"
}
