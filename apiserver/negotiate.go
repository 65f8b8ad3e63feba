package apiserver

import (
	"net/http"
	"slices"
	"strings"

	"github.com/munnerz/goautoneg"
)

// Media types that are spoken.
const (
	mediaJSON     = "application/json"
	mediaYAML     = "application/yaml"
	mediaProtobuf = "application/vnd.kubernetes.protobuf"
	mediaCBOR     = "application/cbor"
)

// Forms that an object can be shown in instead of its own.
const (
	asTable       = "Table"
	asPartial     = "PartialObjectMetadata"
	asPartialList = "PartialObjectMetadataList"
)

// output is how an answer is written.
type output struct {
	media  string
	as     string // empty: as it is
	pretty bool
}

// contentType is the media type of an answer; a stream of a binary form says that it is one.
func (o output) contentType(stream bool) string {
	switch {
	case stream && o.media == mediaProtobuf:
		return o.media + ";stream=watch"
	case stream && o.media == mediaCBOR:
		return o.media + "-seq"
	}
	return o.media
}

// negotiate finds the first form of the Accept header that we can give.
func negotiate(r *http.Request) (output, error) {
	return negotiateAny(r, func(output) bool { return true })
}

// negotiateWhole is negotiate for what has no other form than its own: no row and no metadata.
func negotiateWhole(r *http.Request) (output, error) {
	return negotiateAny(r, func(o output) bool { return o.as == "" })
}

// negotiateAny is negotiate among the forms that there are.
func negotiateAny(r *http.Request, exists func(output) bool) (output, error) {
	header := strings.Join(r.Header.Values("Accept"), ",")
	if strings.TrimSpace(header) == "" {
		return output{media: mediaJSON, pretty: wantsPretty(r)}, nil
	}
	for _, clause := range goautoneg.ParseAccept(header) {
		media, ok := mediaOf(clause.Type + "/" + clause.SubType)
		if !ok {
			continue
		}
		as := clause.Params["as"]
		if as != "" {
			version := clause.Params["v"]
			if clause.Params["g"] != "meta.k8s.io" || version != "v1" && version != "v1beta1" {
				continue
			}
			if !slices.Contains([]string{asTable, asPartial, asPartialList}, as) || as == asTable && media == mediaProtobuf {
				continue
			}
		}
		if out := (output{media: media, as: as, pretty: wantsPretty(r)}); exists(out) {
			return out, nil
		}
	}
	return output{}, errNotAcceptable()
}

func mediaOf(accepted string) (string, bool) {
	switch accepted {
	case "*/*", "application/*", mediaJSON:
		return mediaJSON, true
	case mediaYAML, "application/x-yaml", "text/yaml":
		return mediaYAML, true
	case mediaProtobuf, mediaCBOR:
		return accepted, true
	}
	return "", false
}

// wantsPretty: people read it, either because they say so or by the look of their program.
func wantsPretty(r *http.Request) bool {
	if p := r.URL.Query().Get("pretty"); p != "" {
		return isTrue(p)
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}
