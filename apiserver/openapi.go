package apiserver

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// documents are the OpenAPI v3 documents, compressed: they cost no memory until somebody asks for one.
//
//go:embed openapi/*.json.gz
var documents embed.FS

// document is one embedded document.
type document struct {
	file string
	hash string
}

// openAPI finds the documents by the path of their group and version, such as "apis/apps/v1".
var openAPI = sync.OnceValue(func() map[string]document {
	all := map[string]document{}
	entries, err := documents.ReadDir("openapi")
	if err != nil {
		panic(err) // the folder is part of the binary
	}
	for _, e := range entries {
		file := "openapi/" + e.Name()
		data, err := documents.ReadFile(file)
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(data)
		path := strings.ReplaceAll(strings.TrimSuffix(e.Name(), ".json.gz"), "__", "/")
		all[path] = document{file: file, hash: strings.ToUpper(hex.EncodeToString(sum[:]))}
	}
	return all
})

// openAPIDocument tells which document a path asks for.
func openAPIDocument(path string) (string, bool) {
	name, ok := strings.CutPrefix(path, "/openapi/v3/")
	_, exists := openAPI()[name]
	return name, ok && exists
}

func (s *Server) serveOpenAPIIndex(w http.ResponseWriter, req *request) error {
	type entry struct {
		URL string `json:"serverRelativeURL"`
	}
	index := struct {
		Paths map[string]entry `json:"paths"`
	}{Paths: map[string]entry{}}
	for path, d := range openAPI() {
		index.Paths[path] = entry{URL: "/openapi/v3/" + path + "?hash=" + d.hash}
	}
	return s.writePlain(w, req, index)
}

// serveOpenAPI answers with a document as it is stored, compressed, and unpacks it only for a client that cannot.
func (s *Server) serveOpenAPI(w http.ResponseWriter, req *request, name string) error {
	doc := openAPI()[name]
	if want := req.query.Get("hash"); want != "" && want != doc.hash {
		w.Header().Set("Location", "/openapi/v3/"+name+"?hash="+doc.hash)
		w.WriteHeader(http.StatusMovedPermanently)
		return nil
	} else if want != "" {
		w.Header().Set("Cache-Control", "public, immutable")
	}
	if _, err := negotiate(req.Request); err != nil {
		return err
	}
	etag := `"` + doc.hash + `"`
	w.Header().Set("Etag", etag)
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	w.Header().Set("Content-Type", mediaJSON)
	if req.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	data, err := documents.ReadFile(doc.file)
	if err != nil {
		return fmt.Errorf("apiserver: %w", err)
	}
	if strings.Contains(req.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(data) // the client has gone: there is nobody to tell
		return nil
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("apiserver: %w", err)
	}
	_, _ = io.Copy(w, unpacked) // as above
	return nil
}
