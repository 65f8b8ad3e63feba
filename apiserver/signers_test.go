package apiserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests"

func clientRequest(t *testing.T, name string, subject pkix.Name) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{
		TypeMeta:   metav1.TypeMeta{APIVersion: "certificates.k8s.io/v1", Kind: "CertificateSigningRequest"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: "kubernetes.io/kube-apiserver-client",
			Usages: []certificatesv1.KeyUsage{"client auth"},
		},
	}
}

// allow gives a user rights by a role of its own.
func (b *bed) allow(user string, rules ...rbacv1.PolicyRule) {
	name := "of-" + user
	b.create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules})
	b.create(&rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: user}},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
	})
}

func TestSignersAreGuarded(t *testing.T) {
	b := newBed(t)
	all := rbacv1.PolicyRule{
		APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests", "certificatesigningrequests/approval", "certificatesigningrequests/status"},
		Verbs: []string{"*"},
	}
	signers := func(verb, name string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"signers"}, Verbs: []string{verb}, ResourceNames: []string{name}}
	}
	b.allow("ann", all)
	b.allow("bob", all, signers("approve", "kubernetes.io/kube-apiserver-client"))
	b.allow("cid", all, signers("sign", "kubernetes.io/*"))
	do := func(as, method, path string, r *certificatesv1.CertificateSigningRequest) (int, string) {
		t.Helper()
		answer, body := b.do(call{method: method, path: path, body: encode(t, r), as: as + "|dev", header: map[string]string{"Content-Type": "application/json"}})
		if answer.StatusCode < 300 {
			decode(t, body, r)
			return answer.StatusCode, ""
		}
		var status metav1.Status
		decode(t, body, &status)
		return answer.StatusCode, status.Message
	}
	for _, group := range []string{"system:masters", "system:nodes", "system:shoal:servers"} {
		r := clientRequest(t, "bad", pkix.Name{CommonName: "x", Organization: []string{group}})
		want := fmt.Sprintf("use of kubernetes.io/kube-apiserver-client signer with %s group is not allowed", group)
		if code, text := do("ann", http.MethodPost, requests, r); code != http.StatusForbidden || !strings.HasSuffix(text, want) {
			t.Errorf("%d %s", code, text)
		}
	}
	r := clientRequest(t, "r", pkix.Name{CommonName: "ann"})
	if code, text := do("ann", http.MethodPost, requests, r); code != http.StatusCreated {
		t.Fatalf("%d %s", code, text)
	}
	if r.Spec.Username != "ann" {
		t.Errorf("asked by %q", r.Spec.Username)
	}
	r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: "Approved", Status: "True", Reason: "x"}}
	want := `certificatesigningrequests.certificates.k8s.io "r" is forbidden: user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client"`
	for _, who := range []string{"ann", "cid"} {
		if code, text := do(who, http.MethodPut, requests+"/r/approval", r.DeepCopy()); code != http.StatusForbidden || text != want {
			t.Errorf("%s: %d %s", who, code, text)
		}
	}
	if code, text := do("bob", http.MethodPut, requests+"/r/approval", r); code != http.StatusOK {
		t.Fatalf("%d %s", code, text)
	}
	failed := r.DeepCopy()
	failed.Status.Conditions = append(failed.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: "Failed", Status: "True", Reason: "x"})
	want = `certificatesigningrequests.certificates.k8s.io "r" is forbidden: user not permitted to sign requests with signerName "kubernetes.io/kube-apiserver-client"`
	if code, text := do("bob", http.MethodPut, requests+"/r/status", failed.DeepCopy()); code != http.StatusForbidden || text != want {
		t.Errorf("%d %s", code, text)
	}
	if code, text := do("cid", http.MethodPut, requests+"/r/status", failed); code != http.StatusOK {
		t.Errorf("%d %s", code, text)
	}
}

// TestTrustIsGuarded: whom a signer trusts says who may attest it.
func TestTrustIsGuarded(t *testing.T) {
	b := newBed(t)
	all := rbacv1.PolicyRule{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"clustertrustbundles"}, Verbs: []string{"*"}}
	b.allow("ann", all)
	b.allow("bob", all, rbacv1.PolicyRule{
		APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"signers"}, Verbs: []string{"attest"}, ResourceNames: []string{"example.com/users"},
	})
	var manifest string
	eachKind(t, func(c *kindCase, object *unstructured.Unstructured) {
		if object.GetKind() == "ClusterTrustBundle" {
			manifest = mustJSON(t, object)
		}
	})
	const bundles = "/apis/certificates.k8s.io/v1/clustertrustbundles"
	_, data := b.do(call{method: http.MethodPost, path: bundles, body: manifest, as: "ann|dev"})
	mustContain(t, data, `user not permitted to attest for signerName \"example.com/users\"`)
	b.mustDo(call{method: http.MethodPost, path: bundles, body: manifest, as: "bob|dev"}, http.StatusCreated)
	label := patchOf(bundles+"/example.com:users:plant", []byte(`{"metadata":{"labels":{"a":"b"}}}`))
	label.as = "ann|dev"
	b.mustDo(label, http.StatusOK)
}

// TestPodCertificatesAreGuarded: who signs for a signer says what becomes of requests that are addressed to it.
func TestPodCertificatesAreGuarded(t *testing.T) {
	b := newBed(t)
	all := rbacv1.PolicyRule{
		APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"podcertificaterequests", "podcertificaterequests/status"}, Verbs: []string{"*"},
	}
	b.allow("ann", all)
	b.allow("bob", all, rbacv1.PolicyRule{
		APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"signers"}, Verbs: []string{"sign"}, ResourceNames: []string{"example.com/*"},
	})
	var manifest string
	eachKind(t, func(c *kindCase, object *unstructured.Unstructured) {
		if object.GetKind() == "PodCertificateRequest" {
			manifest = mustJSON(t, object)
		}
	})
	const path = "/apis/certificates.k8s.io/v1/namespaces/default/podcertificaterequests"
	b.mustDo(call{method: http.MethodPost, path: path, body: manifest, as: "ann|dev"}, http.StatusCreated)
	deny := patchOf(path+"/web-0/status", []byte(`{"status":{"conditions":[{"type":"Denied","status":"True","reason":"x","message":"y","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`))
	deny.as = "ann|dev"
	_, data := b.do(deny)
	mustContain(t, data, `spec.signerName: Forbidden: User \"ann\" is not permitted to \"sign\" for signer \"example.com/pods\"`)
	deny.as = "bob|dev"
	b.mustDo(deny, http.StatusOK)
}
