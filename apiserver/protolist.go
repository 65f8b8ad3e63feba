package apiserver

import (
	"bufio"
	"net/http"

	"google.golang.org/protobuf/encoding/protowire"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// Field numbers of the Kubernetes Protobuf schema.
const (
	fieldMetadata        = 1 // of every object and list
	fieldItems           = 2 // of every list
	fieldResourceVersion = 6 // of ObjectMeta
	unknownTypeMeta      = 1 // of runtime.Unknown
	unknownRaw           = 2
	unknownEncoding      = 3
	unknownContentType   = 4
	typeAPIVersion       = 1
	typeKind             = 2
)

// protobufMagic begins every Kubernetes Protobuf message on the wire.
const protobufMagic = "k8s\x00"

// writeProtobufList answers with stored bytes as they are, decrypted if they have to be. Only the resourceVersion is missing in them, and Protobuf merges
// messages that follow one another: a second metadata field that holds it alone adds it.
func (s *Server) writeProtobufList(w http.ResponseWriter, req *request, out output, p *page) error {
	if out.as != "" {
		return s.writePartialProtobufList(w, req, out, p)
	}
	meta := p.listMeta()
	head, err := meta.Marshal()
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	list := protowire.AppendBytes(protowire.AppendTag(nil, fieldMetadata, protowire.BytesType), head)
	values, tails := make([][]byte, len(p.items)), make([][]byte, len(p.items))
	size := len(list)
	for i, item := range p.items {
		if values[i], err = s.plain(req.kind, item); err != nil {
			return apierrors.NewInternalError(err)
		}
		tails[i] = revisionField(item.Revision)
		n := len(values[i]) + len(tails[i])
		size += protowire.SizeTag(fieldItems) + protowire.SizeBytes(n)
	}
	s.begin(w, req, http.StatusOK, out.contentType(false))
	b := bufio.NewWriterSize(w, 16<<10)
	_, _ = b.Write(envelopeHead(req.kind.GVK.GroupVersion().String(), req.kind.GVK.Kind+"List", size)) // bufio keeps the first error
	_, _ = b.Write(list)
	for i, value := range values {
		n := len(value) + len(tails[i])
		_, _ = b.Write(protowire.AppendVarint(protowire.AppendTag(nil, fieldItems, protowire.BytesType), uint64(n)))
		_, _ = b.Write(value)
		_, _ = b.Write(tails[i])
	}
	_, _ = b.Write(envelopeTail())
	if err := b.Flush(); err != nil {
		s.cfg.Logger.Debug("a list was cut off", "path", req.URL.Path, "error", err)
	}
	return nil
}

// plain are the bytes of an object in the version asked for: of most, those that are stored.
func (s *Server) plain(kind *api.Kind, item store.Item) ([]byte, error) {
	if kind.Stored == nil {
		return s.cfg.Durable.Plain(item)
	}
	obj, err := s.cfg.Durable.Decode(item)
	if err != nil {
		return nil, err
	}
	if obj, err = asked(kind, obj); err != nil {
		return nil, err
	}
	return api.Encode(obj)
}

func (s *Server) writePartialProtobufList(w http.ResponseWriter, req *request, out output, p *page) error {
	list := &metav1.PartialObjectMetadataList{
		TypeMeta: metav1.TypeMeta{Kind: asPartialList, APIVersion: "meta.k8s.io/v1"}, ListMeta: p.listMeta(),
	}
	for _, item := range p.items {
		obj, err := s.cfg.Durable.Decode(item)
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		list.Items = append(list.Items, *partial(obj))
	}
	return s.writeObject(w, req, http.StatusOK, out, list)
}

// revisionField is a metadata field that holds a resourceVersion and nothing else.
func revisionField(revision uint64) []byte {
	meta := protowire.AppendString(protowire.AppendTag(nil, fieldResourceVersion, protowire.BytesType), store.FormatRevision(revision))
	return protowire.AppendBytes(protowire.AppendTag(nil, fieldMetadata, protowire.BytesType), meta)
}

// envelopeHead and envelopeTail are what is around an object's own bytes: the message runtime.Unknown.
func envelopeHead(apiVersion, kind string, size int) []byte {
	types := protowire.AppendString(protowire.AppendTag(nil, typeAPIVersion, protowire.BytesType), apiVersion)
	types = protowire.AppendString(protowire.AppendTag(types, typeKind, protowire.BytesType), kind)
	head := append([]byte(protobufMagic), protowire.AppendTag(nil, unknownTypeMeta, protowire.BytesType)...)
	head = protowire.AppendBytes(head, types)
	return protowire.AppendVarint(protowire.AppendTag(head, unknownRaw, protowire.BytesType), uint64(size))
}

func envelopeTail() []byte {
	tail := protowire.AppendString(protowire.AppendTag(nil, unknownEncoding, protowire.BytesType), "")
	return protowire.AppendString(protowire.AppendTag(tail, unknownContentType, protowire.BytesType), "")
}
