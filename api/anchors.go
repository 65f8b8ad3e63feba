package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// anchorsPrefix is what the keys begin with under which devices are given trust anchors.
const anchorsPrefix = "anchors/"

// maxAnchorsKey bounds such a key, in bytes: it is one of the device's database.
const maxAnchorsKey = 4 << 10

// anchors is what of a projection says which trust bundles are meant.
type anchors struct {
	Name       *string               `json:"name,omitempty"`
	SignerName *string               `json:"signerName,omitempty"`
	Selector   *metav1.LabelSelector `json:"selector,omitempty"`
}

// AnchorsKey is what a control plane and a device call the trust anchors that a projection asks for. It is empty for a selector that is
// too long to be a key.
func AnchorsKey(p *corev1.ClusterTrustBundleProjection) string {
	data, err := json.Marshal(anchors{p.Name, p.SignerName, p.LabelSelector})
	if err != nil {
		return "" // it was read from JSON or Protobuf, so it can be written
	}
	if key := anchorsPrefix + url.PathEscape(string(data)); len(key) <= maxAnchorsKey {
		return key
	}
	return ""
}

// ParseAnchorsKey is the inverse of AnchorsKey. ok is false for other keys.
func ParseAnchorsKey(key string) (p *corev1.ClusterTrustBundleProjection, ok bool, err error) {
	text, ok := strings.CutPrefix(key, anchorsPrefix)
	if !ok {
		return nil, false, nil
	}
	data, err := url.PathUnescape(text)
	var a anchors
	if err == nil {
		err = json.Unmarshal([]byte(data), &a)
	}
	if err != nil {
		return nil, true, fmt.Errorf("key %q: %w", key, err)
	}
	return &corev1.ClusterTrustBundleProjection{Name: a.Name, SignerName: a.SignerName, LabelSelector: a.Selector}, true, nil
}
