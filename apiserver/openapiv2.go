package apiserver

import (
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// mediaOpenAPIv2 is how client-go asks for the old document; it puts an @ where servers answer with a dot.
const mediaOpenAPIv2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

// serveOpenAPIv2 answers with an OpenAPI v2 document that describes nothing. kubectl reads it before it sends what the v3
// documents do not know, such as a v1 List or an unknown kind: it finds no schema there and lets the server judge.
func (s *Server) serveOpenAPIv2(w http.ResponseWriter, req *request) error {
	accept := req.Header.Get("Accept")
	if strings.Contains(accept, "proto-openapi.spec.v2") {
		w.Header().Set("Content-Type", mediaOpenAPIv2)
		_, _ = w.Write(emptyOpenAPIv2(s.cfg.Version)) // the client has gone: there is nobody to tell
		return nil
	}
	return s.writePlain(w, req, map[string]any{
		"swagger": "2.0",
		"info":    map[string]string{"title": "Kubernetes", "version": s.cfg.Version},
		"paths":   map[string]any{},
	})
}

// emptyOpenAPIv2 is the message openapi.v2.Document with its required fields.
func emptyOpenAPIv2(version string) []byte {
	info := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "Kubernetes")
	info = protowire.AppendString(protowire.AppendTag(info, 2, protowire.BytesType), version)
	doc := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "2.0")
	doc = protowire.AppendBytes(protowire.AppendTag(doc, 2, protowire.BytesType), info)
	return protowire.AppendBytes(protowire.AppendTag(doc, 8, protowire.BytesType), nil) // no paths
}
