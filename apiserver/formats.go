package apiserver

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	kubejson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
	"github.com/shoal-edge/shoal/apiserver/audit"
)

// formats are the serializers of the media types.
type formats struct {
	json, yaml, jsonStrict, yamlStrict runtime.Serializer
	protobuf                           *protobuf.Serializer
	cbor, cborStrict                   runtime.Serializer
}

func newFormats() *formats {
	scheme := api.Scheme()
	text := func(yaml, strict bool) runtime.Serializer {
		return kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, scheme, scheme, kjson.SerializerOptions{Yaml: yaml, Strict: strict})
	}
	return &formats{
		json: text(false, false), yaml: text(true, false), jsonStrict: text(false, true), yamlStrict: text(true, true),
		protobuf: protobuf.NewSerializer(scheme, scheme),
		cbor:     cbor.NewSerializer(scheme, scheme), cborStrict: cbor.NewSerializer(scheme, scheme, cbor.Strict(true)),
	}
}

// decoder finds the serializer for a request's Content-Type.
func (f *formats) decoder(contentType string, strict bool) (runtime.Decoder, error) {
	media, err := mediaOfBody(contentType)
	if err != nil {
		return nil, errUnsupported(mediaJSON, mediaYAML, mediaProtobuf)
	}
	switch media {
	case mediaJSON, "text/json":
		if strict {
			return f.jsonStrict, nil
		}
		return f.json, nil
	case mediaYAML, "application/x-yaml", "text/yaml":
		if strict {
			return f.yamlStrict, nil
		}
		return f.yaml, nil
	case mediaProtobuf:
		return f.protobuf, nil
	case mediaCBOR:
		if strict {
			return f.cborStrict, nil
		}
		return f.cbor, nil
	}
	return nil, errUnsupported(mediaJSON, mediaYAML, mediaProtobuf)
}

// mediaOfBody is the media type of a request's body.
func mediaOfBody(contentType string) (string, error) {
	if contentType == "" {
		return mediaJSON, nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	return media, err
}

// decoderFor finds the decoder of a request's body, by what it is to become.
func (s *Server) decoderFor(req *request, into runtime.Object, strict bool) (runtime.Decoder, error) {
	contentType := req.Header.Get("Content-Type")
	if _, ok := into.(*custom.Object); ok {
		return customDecoder(contentType, strict)
	}
	return s.formats.decoder(contentType, strict)
}

// decode reads the request's body into an object of the expected kind. Fields that are unknown or given twice are ignored,
// warned of (the default) or refused, as the parameter fieldValidation says.
func (s *Server) decode(req *request, want schema.GroupVersionKind, into runtime.Object) error {
	directive := req.query.Get("fieldValidation")
	decoder, err := s.decoderFor(req, into, directive != metav1.FieldValidationIgnore)
	if err != nil {
		return err
	}
	if decoder == s.formats.jsonStrict && decodeTyped(req.body, want, into) {
		return nil
	}
	obj, got, err := decoder.Decode(req.body, &want, into)
	if err == nil && obj != into {
		err = fmt.Errorf("converting (%s.%s) to (%s.%s): unknown conversion", got.Version, got.Kind, want.Version, want.Kind)
	}
	strict, isStrict := runtime.AsStrictDecodingError(err)
	switch {
	case err == nil:
	case isStrict && obj == into && directive != metav1.FieldValidationStrict:
		req.warn(strictWarnings(strict.Errors())...)
	case got != nil && got.Kind != "":
		return errBadRequest("%s in version %q cannot be handled as a %s: %v", got.Kind, got.Version, want.Kind, err)
	default:
		return errBadRequest("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, err, summary(req.body))
	}
	if got.GroupVersion() != want.GroupVersion() {
		return errBadRequest("the API version in the data (%s) does not match the expected API version (%s)",
			got.GroupVersion(), want.GroupVersion())
	}
	return nil
}

// decodeTyped decodes JSON straight into the type that is expected. The serializer reads everything twice, the first time to see what
// it is. Whatever is not just as it should be is left to the serializer, which says what is wrong.
func decodeTyped(data []byte, want schema.GroupVersionKind, into runtime.Object) bool {
	strict, err := kubejson.UnmarshalStrict(data, into)
	if err == nil && len(strict) == 0 && into.GetObjectKind().GroupVersionKind() == want {
		return true
	}
	reflect.ValueOf(into).Elem().SetZero()
	return false
}

// summary is the beginning of a body that nobody understands.
func summary(data []byte) string {
	const longest = 30
	short, more := data, ""
	if len(data) > longest {
		short, more = data[:longest], " ..."
	}
	switch {
	case len(data) == 0:
		return "<empty>"
	case data[0] == '{':
		return string(short) + more
	default:
		return hex.EncodeToString(short) + more
	}
}

// strictWarnings are the texts of strict decoding errors, one by one: YAML's come several in one.
func strictWarnings(errs []error) []string {
	var texts []string
	for _, err := range errs {
		text := err.Error()
		for _, prefix := range []string{"yaml: unmarshal errors:\n", "error converting YAML to JSON: yaml: unmarshal errors:\n"} {
			text = strings.TrimPrefix(text, prefix)
		}
		for _, line := range strings.Split(text, "\n") {
			texts = append(texts, strings.TrimSpace(line))
		}
	}
	return texts
}

// encode makes the bytes of one object, which must know its group, version and kind.
func (s *Server) encode(out output, obj runtime.Object) ([]byte, error) {
	switch out.media {
	case mediaProtobuf, mediaCBOR:
		var encoder runtime.Encoder = s.formats.protobuf
		if out.media == mediaCBOR {
			encoder = s.formats.cbor
		}
		var buf bytes.Buffer
		if err := encoder.Encode(obj, &buf); err != nil {
			return nil, fmt.Errorf("apiserver: encode %T: %w", obj, err)
		}
		return buf.Bytes(), nil
	case mediaYAML:
		data, err := yaml.Marshal(obj)
		if err != nil {
			return nil, fmt.Errorf("apiserver: encode %T: %w", obj, err)
		}
		return data, nil
	default:
		return encodeJSON(obj, out.pretty)
	}
}

func encodeJSON(v any, pretty bool) ([]byte, error) {
	data, err := json.Marshal(v)
	if err == nil && pretty {
		data, err = json.MarshalIndent(json.RawMessage(data), "", "  ")
	}
	if err != nil {
		return nil, fmt.Errorf("apiserver: encode %T: %w", v, err)
	}
	return append(data, '\n'), nil
}

// writeObject answers with one object.
func (s *Server) writeObject(w http.ResponseWriter, req *request, code int, out output, obj runtime.Object) error {
	data, err := s.encode(out, obj)
	if err != nil {
		var no protobufError
		if errors.As(err, &no) {
			return errNotAcceptable()
		}
		return err
	}
	if s.cfg.Audit != nil && s.cfg.AuditPolicy != nil && !req.user.forwarded && s.auditDecision(req).Level == audit.LevelRequestResponse {
		req.answered = obj
	}
	s.begin(w, req, code, out.contentType(false))
	_, _ = w.Write(data) // the client has gone: there is nobody to tell
	return nil
}

// protobufError is what the Protobuf serializer returns for a type without a Protobuf form.
type protobufError interface {
	error
	Status() metav1.Status
}

// begin writes the header of an answer, with the warnings collected so far.
func (s *Server) begin(w http.ResponseWriter, req *request, code int, contentType string) {
	for _, text := range req.warnings {
		if header, err := utilnet.NewWarningHeader(http.StatusOK+99, "-", text); err == nil {
			w.Header().Add("Warning", header)
		}
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(code)
}

// writePlain answers with a Go value as indented JSON, whatever is accepted: for what is no API object.
func (s *Server) writePlain(w http.ResponseWriter, req *request, v any) error {
	data, err := encodeJSON(v, true)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	s.begin(w, req, http.StatusOK, mediaJSON)
	_, _ = w.Write(data)
	return nil
}
