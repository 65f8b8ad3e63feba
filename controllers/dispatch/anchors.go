package dispatch

import (
	"bytes"
	"encoding/pem"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

const trustBundles = "clustertrustbundles.certificates.k8s.io"

// bundlesChanged sends trust anchors anew to the devices that have some. What has not changed for a device is not sent.
func (d *Dispatcher) bundlesChanged(store.Event) {
	d.mu.Lock()
	var keys []string
	for key := range d.users {
		if _, is, _ := api.ParseAnchorsKey(key); is {
			keys = append(keys, key)
		}
	}
	d.mu.Unlock()
	for _, key := range keys {
		d.touchUsers(key)
	}
}

// anchors are the certificates of the trust bundles that a key asks for, as PEM, each once and sorted. A device is given them and not
// the bundles, so that it need not be told of all bundles of a signer. nil: no bundle is meant by it.
func (d *Dispatcher) anchors(key string) []byte {
	p, _, err := api.ParseAnchorsKey(key)
	if err != nil {
		return nil
	}
	var found []*certificatesv1.ClusterTrustBundle
	if p.Name != nil {
		if b, ok := store.Get[certificatesv1.ClusterTrustBundle](d.reader, "", *p.Name); ok {
			found = append(found, b)
		}
	} else if selector, err := metav1.LabelSelectorAsSelector(p.LabelSelector); err == nil && p.SignerName != nil {
		for _, b := range store.List[certificatesv1.ClusterTrustBundle](d.reader, "") {
			if b.Spec.SignerName == *p.SignerName && selector.Matches(labels.Set(b.Labels)) {
				found = append(found, b)
			}
		}
	}
	if len(found) == 0 {
		return nil
	}
	var all [][]byte
	for _, b := range found {
		for block, rest := pem.Decode([]byte(b.Spec.TrustBundle)); block != nil; block, rest = pem.Decode(rest) {
			all = append(all, block.Bytes)
		}
	}
	slices.SortFunc(all, bytes.Compare)
	out := []byte{}
	for _, der := range slices.CompactFunc(all, bytes.Equal) {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// projectedAnchors are the keys of the trust anchors that a volume asks for.
func projectedAnchors(v *corev1.Volume) (keys []string) {
	for _, s := range projections(v) {
		if s.ClusterTrustBundle != nil {
			if key := api.AnchorsKey(s.ClusterTrustBundle); key != "" {
				keys = append(keys, key)
			}
		}
	}
	return keys
}
