package apiserver

import (
	"encoding/json"
	"mime"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/shoal-edge/shoal/apiserver/audit"
)

// maxAudited is how large a body in the audit log may be, in bytes of JSON. A larger one is left out, and the event says so.
const maxAudited = 64 << 10

// noteTruncated is upstream's annotation of an event whose bodies were left out.
const noteTruncated = "audit.k8s.io/truncated"

// auditDecision is how much of the request is recorded. It is for after the user is known.
func (s *Server) auditDecision(req *request) audit.Decision {
	if req.audited == nil {
		who := &req.user.User
		if req.actor != nil {
			who = req.actor
		}
		q := &audit.Request{User: who.Name, Groups: who.Groups, Verb: req.verb, Path: req.URL.Path}
		if req.isResource {
			q.Object = req.auditObject()
		}
		d := s.cfg.AuditPolicy.Decide(q)
		req.audited = &d
	}
	return *req.audited
}

func (req *request) auditObject() *audit.Object {
	return &audit.Object{
		Resource: req.resource, Namespace: req.namespace, Name: req.name, APIGroup: req.gv.Group, APIVersion: req.gv.Version, Subresource: req.sub,
	}
}

// auditBodies adds what was sent and answered, as JSON.
func (s *Server) auditBodies(req *request, d audit.Decision, e *audit.Event) {
	e.Level = string(d.Level)
	if !req.isResource || d.Level != audit.LevelRequest && d.Level != audit.LevelRequestResponse {
		return
	}
	add := func(to *json.RawMessage, body []byte) {
		if d.OmitManagedFields {
			body = withoutManagedFields(body)
		}
		switch {
		case len(body) == 0:
		case len(body) > maxAudited:
			e.Annotations[noteTruncated] = "true"
		default:
			*to = body
		}
	}
	add(&e.RequestObject, s.sentJSON(req))
	if d.Level == audit.LevelRequestResponse && req.answered != nil {
		if data, err := encodeJSON(req.answered, false); err == nil {
			add(&e.ResponseObject, data)
		}
	}
}

// sentJSON is the body of a request as JSON; nil if it has none, or none that can be read.
func (s *Server) sentJSON(req *request) []byte {
	if len(req.body) == 0 {
		return nil
	}
	switch media, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type")); media {
	case mediaProtobuf:
		if req.kind == nil {
			return nil
		}
		var obj runtime.Object = req.kind.New()
		gvk := req.kind.GVK
		decoder, err := s.formats.decoder(req.Header.Get("Content-Type"), false)
		if err == nil {
			if obj, _, err = decoder.Decode(req.body, &gvk, obj); err == nil {
				data, _ := encodeJSON(obj, false) // what cannot be shown is left out
				return data
			}
		}
		return nil
	default:
		data, err := yaml.YAMLToJSON(req.body) // JSON is YAML
		if err != nil {
			return nil
		}
		return data
	}
}

func withoutManagedFields(body []byte) []byte {
	var o map[string]any
	if json.Unmarshal(body, &o) != nil {
		return body
	}
	strip := func(o any) {
		if object, ok := o.(map[string]any); ok {
			if meta, ok := object["metadata"].(map[string]any); ok {
				delete(meta, "managedFields")
			}
		}
	}
	strip(o)
	if items, ok := o["items"].([]any); ok {
		for _, item := range items {
			strip(item)
		}
	}
	stripped, err := json.Marshal(o)
	if err != nil {
		return body
	}
	return stripped
}
