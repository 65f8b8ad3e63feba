package apiserver

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"weak"

	"github.com/shoal-edge/shoal/apiserver/openapipack"
)

// documents are the OpenAPI documents, compressed: they cost no memory until somebody asks for one.
//
//go:embed openapi/*.zst openapi/v2/*.zst
var documents embed.FS

// The two forms of the v2 document.
const (
	v2JSON     = "v2/swagger.json"
	v2Protobuf = "v2/swagger.pb"
)

// document is one embedded document.
type document struct {
	file string
	hash string

	mu     sync.Mutex
	zipped weak.Pointer[[]byte] // for as long as somebody is given it
}

// unpack is the document as it is.
func (d *document) unpack() ([]byte, error) {
	read := func(file string, base []byte) ([]byte, error) {
		data, err := documents.ReadFile(file)
		if err != nil {
			return nil, err
		}
		return openapipack.Unpack(data, base)
	}
	const baseFile = "openapi/" + openapipack.Base + openapipack.Suffix
	base, err := read(baseFile, nil)
	if err != nil || d.file == baseFile {
		return base, err
	}
	return read(d.file, base)
}

// gzip is the document as clients are given it. All those who are given it at the same time share one copy.
func (d *document) gzip() (*[]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if zipped := d.zipped.Value(); zipped != nil {
		return zipped, nil
	}
	data, err := d.unpack()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(data); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	zipped := bytes.Clone(out.Bytes())
	d.zipped = weak.Make(&zipped)
	return &zipped, nil
}

// openAPI finds the documents: those of v3 by the path of their group and version, such as "apis/apps/v1".
var openAPI = sync.OnceValue(func() map[string]*document {
	all := map[string]*document{}
	err := fs.WalkDir(documents, "openapi", func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := documents.ReadFile(file)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		name := strings.TrimSuffix(strings.TrimPrefix(file, "openapi/"), openapipack.Suffix)
		if !isV2(name) {
			name = strings.ReplaceAll(strings.TrimSuffix(name, ".json"), "__", "/")
		}
		all[name] = &document{file: file, hash: strings.ToUpper(hex.EncodeToString(sum[:]))}
		return nil
	})
	if err != nil {
		panic(err) // the folder is part of the binary
	}
	return all
})

func isV2(name string) bool { return name == v2JSON || name == v2Protobuf }

// openAPIDocument tells which v3 document a path asks for.
func openAPIDocument(path string) (string, bool) {
	name, ok := strings.CutPrefix(path, "/openapi/v3/")
	_, exists := openAPI()[name]
	return name, ok && exists && !isV2(name)
}

func (s *Server) serveOpenAPIIndex(w http.ResponseWriter, req *request) error {
	type entry struct {
		URL string `json:"serverRelativeURL"`
	}
	index := struct {
		Paths map[string]entry `json:"paths"`
	}{Paths: map[string]entry{}}
	for path, d := range openAPI() {
		if isV2(path) {
			continue
		}
		index.Paths[path] = entry{URL: "/openapi/v3/" + path + "?hash=" + d.hash}
	}
	for path, versions := range s.customDocuments() {
		index.Paths[path] = entry{URL: "/openapi/v3/" + path + "?hash=" + customHash(versions)}
	}
	return s.writePlain(w, req, index)
}

// openAPIHash sends a client that asks for an old document to the present one; one that asks for the present one may keep it.
func (s *Server) openAPIHash(w http.ResponseWriter, req *request, name, hash string) (moved bool) {
	want := req.query.Get("hash")
	if want != "" && want != hash {
		w.Header().Set("Location", "/openapi/v3/"+name+"?hash="+hash)
		w.WriteHeader(http.StatusMovedPermanently)
		return true
	}
	if want != "" {
		w.Header().Set("Cache-Control", "public, immutable")
	}
	return false
}

func (s *Server) serveOpenAPI(w http.ResponseWriter, req *request, name string) error {
	doc := openAPI()[name]
	if moved := s.openAPIHash(w, req, name, doc.hash); moved {
		return nil
	}
	if _, err := negotiate(req.Request); err != nil {
		return err
	}
	return s.serveDocument(w, req, doc, mediaJSON)
}

// serveDocument answers with a document, compressed unless the client cannot read that.
func (s *Server) serveDocument(w http.ResponseWriter, req *request, doc *document, media string) error {
	etag := `"` + doc.hash + `"`
	w.Header().Set("Etag", etag)
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	w.Header().Set("Content-Type", media)
	if req.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	zipped, err := doc.gzip()
	if err != nil {
		return fmt.Errorf("apiserver: %w", err)
	}
	if strings.Contains(req.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(*zipped) // the client has gone: there is nobody to tell
		return nil
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(*zipped))
	if err != nil {
		return fmt.Errorf("apiserver: %w", err)
	}
	_, _ = io.Copy(w, unpacked) // as above
	return nil
}
