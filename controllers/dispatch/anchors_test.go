package dispatch_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

func authority(t *testing.T, name string) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestAnchors gives a device the certificates of the trust bundles that its pods' volumes mean, and no others.
func TestAnchors(t *testing.T) {
	c := newCluster(t)
	c.node("a", "10.42.0.0/24")
	first, second, third := authority(t, "first"), authority(t, "second"), authority(t, "third")
	bundle := func(name, signer, live, certificates string) {
		b := &certificatesv1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"live": live}},
			Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: certificates},
		}
		c.create(b)
	}
	bundle("plain", "", "yes", first)
	bundle("factory.example:ca:one", "factory.example/ca", "yes", first+second)
	bundle("factory.example:ca:two", "factory.example/ca", "yes", second+first)
	bundle("factory.example:ca:old", "factory.example/ca", "no", third)

	byName := &corev1.ClusterTrustBundleProjection{Name: ptr.To("plain"), Path: "ca.pem"}
	signer := &corev1.ClusterTrustBundleProjection{
		SignerName: ptr.To("factory.example/ca"), LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"live": "yes"}}, Path: "signer.pem",
	}
	none := &corev1.ClusterTrustBundleProjection{SignerName: ptr.To("factory.example/ca"), Path: "none.pem", Optional: ptr.To(true)}
	later := &corev1.ClusterTrustBundleProjection{Name: ptr.To("later"), Path: "later.pem", Optional: ptr.To(true)}
	var sources []corev1.VolumeProjection
	for _, p := range []*corev1.ClusterTrustBundleProjection{byName, signer, none, later} {
		sources = append(sources, corev1.VolumeProjection{ClusterTrustBundle: p})
	}
	c.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{
		NodeName: "a", Containers: []corev1.Container{{Name: "c", Image: "i"}},
		Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources}}}},
	}})
	device, _ := c.device("a")
	c.eventually("the pod", has(device, "pods/default/p"))
	desired := device.Desired()
	if got := desired[api.AnchorsKey(byName)]; got != first {
		t.Errorf("by name: %q", got)
	}
	if got := desired[api.AnchorsKey(signer)]; len(got) != len(first)+len(second) || !strings.Contains(got, first) || !strings.Contains(got, second) {
		t.Errorf("by signer and labels: %q", got)
	}
	for key := range desired {
		if strings.HasPrefix(key, "anchors/") && key != api.AnchorsKey(byName) && key != api.AnchorsKey(signer) {
			t.Errorf("the device got %s", key)
		}
	}

	bundle("later", "", "no", third)
	c.eventually("a bundle that came later", func() bool { return device.Desired()[api.AnchorsKey(later)] == third })
	before := device.Desired()[api.AnchorsKey(signer)]
	c.modify(store.Key{Resource: "clustertrustbundles.certificates.k8s.io", Name: "factory.example:ca:old"}, "", func(o api.Object) {
		o.SetLabels(map[string]string{"live": "yes"})
	})
	c.eventually("a bundle with another label", func() bool {
		got := device.Desired()[api.AnchorsKey(signer)]
		return got != before && strings.Contains(got, third)
	})
	if _, err := c.client.Delete(t.Context(), store.Key{Resource: "clustertrustbundles.certificates.k8s.io", Name: "later"}, nil); err != nil {
		t.Fatal(err)
	}
	c.eventually("a bundle that went", hasNot(device, api.AnchorsKey(later)))
	if _, err := c.client.Delete(t.Context(), store.Key{Resource: "pods", Namespace: "default", Name: "p"}, &metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Fatal(err)
	}
	c.eventually("the pod has gone, and what it used", hasNot(device, api.AnchorsKey(byName)))
}
