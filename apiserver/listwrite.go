package apiserver

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"sigs.k8s.io/yaml"

	"github.com/shoal-edge/shoal/store"
)

// writeList answers with a page. Objects are decoded and written one by one, so that a long list costs no more memory than
// its longest object.
func (s *Server) writeList(w http.ResponseWriter, req *request, out output, p *page) error {
	if err := s.prepare(req.kind, p.items); err != nil { // before the answer begins, as far as it goes
		return err
	}
	if out.media == mediaProtobuf {
		return s.writeProtobufList(w, req, out, p)
	}
	switch {
	case out.media == mediaCBOR:
		return s.writeCBORList(w, req, out, p)
	case out.media == mediaYAML, out.pretty:
		return s.writeWholeList(w, req, out, p)
	}
	s.begin(w, req, http.StatusOK, out.contentType(false))
	buffered := bufio.NewWriterSize(w, 16<<10)
	if err := s.streamList(buffered, req, out, p); err != nil {
		s.cfg.Logger.Debug("a list was cut off", "path", req.URL.Path, "error", err)
		panic(http.ErrAbortHandler) // half a list must not look like a whole one
	}
	if err := buffered.Flush(); err != nil {
		s.cfg.Logger.Debug("a list was cut off", "path", req.URL.Path, "error", err)
	}
	return nil
}

// writeWholeList is for people, who read short lists only.
func (s *Server) writeWholeList(w http.ResponseWriter, req *request, out output, p *page) error {
	var whole sliceWriter
	if err := s.streamList(&whole, req, out, p); err != nil {
		return err
	}
	var data []byte
	var err error
	if out.media == mediaYAML {
		data, err = yaml.JSONToYAML(whole)
	} else {
		data, err = encodeJSON(json.RawMessage(whole), true)
	}
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	s.begin(w, req, http.StatusOK, out.contentType(false))
	_, _ = w.Write(data) // the client has gone: there is nobody to tell
	return nil
}

type sliceWriter []byte

func (w *sliceWriter) Write(p []byte) (int, error) {
	*w = append(*w, p...)
	return len(p), nil
}

// listHead is what comes before the items of a list.
type listHead struct {
	Kind       string                         `json:"kind"`
	APIVersion string                         `json:"apiVersion"`
	Metadata   metav1.ListMeta                `json:"metadata"`
	Columns    []metav1.TableColumnDefinition `json:"columnDefinitions,omitempty"`
}

// headOf makes the head of a list, and names the member with the items.
func headOf(req *request, out output, p *page) (head listHead, member string) {
	kind, member := req.kind, "items"
	head = listHead{Kind: listKind(kind), APIVersion: kind.GVK.GroupVersion().String(), Metadata: p.listMeta()}
	switch out.as {
	case asTable:
		head.Kind, head.APIVersion, head.Columns, member = asTable, "meta.k8s.io/v1", columnsOf(kind), "rows"
	case asPartial, asPartialList:
		head.Kind, head.APIVersion = asPartialList, "meta.k8s.io/v1"
	}
	return head, member
}

func (s *Server) streamList(w io.Writer, req *request, out output, p *page) error {
	head, member := headOf(req, out, p)
	start, err := json.Marshal(head)
	if err != nil {
		return err
	}
	start = append(start[:len(start)-1], `,"`+member+`":[`...)
	if _, err := w.Write(start); err != nil {
		return err
	}
	items := newItemWriter(w)
	for i, item := range p.items {
		if i > 0 && i%preparedAtOnce == 0 {
			if err := s.prepare(req.kind, p.items[i:]); err != nil {
				return err
			}
		}
		if i > 0 {
			if _, err := io.WriteString(w, ","); err != nil {
				return err
			}
		}
		if err := s.writeItem(items, req, out, item); err != nil {
			return err
		}
	}
	_, err = io.WriteString(w, "]}\n")
	return err
}

func (s *Server) writeItem(items *itemWriter, req *request, out output, item store.Item) error {
	if out.as != asTable {
		shown, err := s.listItem(req, out, item)
		if err != nil {
			return err
		}
		return items.write(shown)
	}
	obj, err := s.cfg.Durable.Decode(item)
	if err != nil {
		return err
	}
	include, err := included(req, req.kind, obj)
	if err != nil {
		return err
	}
	return items.row(req.kind.Row(obj, s.cfg.Now()), include)
}

// listItem is one object as a member of a list: without kind and version, which the list has, or as a row of a Table.
func (s *Server) listItem(req *request, out output, item store.Item) (any, error) {
	obj, err := s.cfg.Durable.Decode(item)
	if err != nil {
		return nil, err
	}
	switch out.as {
	case asTable:
		return s.row(req, req.kind, obj)
	case asPartial, asPartialList:
		return partial(obj), nil
	}
	return asked(req.kind, obj)
}

// writeCBORList is for clients that ask for CBOR, which few do: the list is made as a whole.
func (s *Server) writeCBORList(w http.ResponseWriter, req *request, out output, p *page) error {
	head, member := headOf(req, out, p)
	list := map[string]any{"kind": head.Kind, "apiVersion": head.APIVersion, "metadata": head.Metadata}
	if head.Columns != nil {
		list["columnDefinitions"] = head.Columns
	}
	items := make([]any, len(p.items))
	for i, item := range p.items {
		var err error
		if items[i], err = s.listItem(req, out, item); err != nil {
			return apierrors.NewInternalError(err)
		}
	}
	list[member] = items
	data, err := direct.Marshal(list)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	s.begin(w, req, http.StatusOK, out.contentType(false))
	_, _ = w.Write(append([]byte(selfDescribed), data...)) // the client has gone: there is nobody to tell
	return nil
}

// selfDescribed is how the CBOR of Kubernetes begins.
const selfDescribed = "\xd9\xd9\xf7"
