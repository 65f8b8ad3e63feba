package apiserver

import (
	"net/http"
	"slices"
	"strings"

	"github.com/munnerz/goautoneg"
)

// mediaOpenAPIv2 is the Protobuf form of the old document. Clients ask for it with an @ where servers answer with a dot.
const mediaOpenAPIv2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

// serveOpenAPIv2 answers with the old document, which describes all groups at once, in the form that the client prefers.
func (s *Server) serveOpenAPIv2(w http.ResponseWriter, req *request) error {
	forms := map[string]string{
		"com.github.proto-openapi.spec.v2@v1.0+protobuf": mediaOpenAPIv2,
		"com.github.proto-openapi.spec.v2.v1.0+protobuf": mediaOpenAPIv2,
		"json": mediaJSON, "*": mediaJSON,
	}
	header := strings.Join(req.Header.Values("Accept"), ",")
	if header == "" {
		header = mediaJSON
	}
	clauses := goautoneg.ParseAccept(header)
	i := slices.IndexFunc(clauses, func(a goautoneg.Accept) bool { return forms[a.SubType] != "" })
	if i < 0 {
		return errNotAcceptable()
	}
	doc, media := openAPI()[v2JSON], forms[clauses[i].SubType]
	if media == mediaOpenAPIv2 {
		doc = openAPI()[v2Protobuf]
	}
	return s.serveDocument(w, req, doc, media)
}
