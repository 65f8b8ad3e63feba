package apiserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/store"
)

// reviewer is a program that serves webhooks, each at a path of its own.
type reviewer struct {
	*httptest.Server
	ca      []byte
	answers map[string]func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse

	mu    sync.Mutex
	asked []*admissionv1.AdmissionReview
}

// newReviewer serves as 127.0.0.1 and as the service hook.default.svc.
func newReviewer(t *testing.T) *reviewer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"hook.default.svc"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	r := &reviewer{
		ca:      pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		answers: map[string]func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse{},
	}
	r.Server = httptest.NewUnstartedServer(r)
	r.Config.ErrorLog = log.New(io.Discard, "", 0) // some tests do not trust it
	r.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	r.StartTLS()
	t.Cleanup(r.Close)
	return r
}

func (r *reviewer) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	review := &admissionv1.AdmissionReview{}
	if err := json.NewDecoder(q.Body).Decode(review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	r.asked = append(r.asked, review)
	answer := r.answers[q.URL.Path]
	r.mu.Unlock()
	if answer == nil {
		http.Error(w, "there is no such webhook", http.StatusNotFound)
		return
	}
	response := answer(review.Request)
	if response.UID == "" {
		response.UID = review.Request.UID
	}
	_ = json.NewEncoder(w).Encode(&admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: response})
}

// heard returns what was asked since the last time.
func (r *reviewer) heard() []*admissionv1.AdmissionReview {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.asked
	r.asked = nil
	return all
}

func allow(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Allowed: true}
}

func deny(status *metav1.Status) func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	return func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Result: status}
	}
}

// patching wants a change.
func patching(patch string) func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	return func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(patch), PatchType: ptr.To(admissionv1.PatchTypeJSONPatch)}
	}
}

func on(group, version, resource string, operations ...admissionregistrationv1.OperationType) admissionregistrationv1.RuleWithOperations {
	return admissionregistrationv1.RuleWithOperations{
		Operations: operations, Rule: admissionregistrationv1.Rule{APIGroups: []string{group}, APIVersions: []string{version}, Resources: []string{resource}},
	}
}

var anyWrite = on("*", "*", "*/*", "*")

// validating registers a webhook that may be changed before.
func (b *bed) validating(r *reviewer, path string, rule admissionregistrationv1.RuleWithOperations, change ...func(*admissionregistrationv1.ValidatingWebhook)) {
	b.t.Helper()
	hook := admissionregistrationv1.ValidatingWebhook{
		Name: strings.Trim(path, "/") + ".example.com", Rules: []admissionregistrationv1.RuleWithOperations{rule},
		ClientConfig:            admissionregistrationv1.WebhookClientConfig{URL: ptr.To(r.URL + path), CABundle: r.ca},
		AdmissionReviewVersions: []string{"v1"}, SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone),
	}
	for _, f := range change {
		f(&hook)
	}
	b.create(&admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: strings.Trim(path, "/")}, Webhooks: []admissionregistrationv1.ValidatingWebhook{hook},
	})
}

func (b *bed) mutating(r *reviewer, path string, rule admissionregistrationv1.RuleWithOperations, change ...func(*admissionregistrationv1.MutatingWebhook)) {
	b.t.Helper()
	hook := admissionregistrationv1.MutatingWebhook{
		Name: strings.Trim(path, "/") + ".example.com", Rules: []admissionregistrationv1.RuleWithOperations{rule},
		ClientConfig:            admissionregistrationv1.WebhookClientConfig{URL: ptr.To(r.URL + path), CABundle: r.ca},
		AdmissionReviewVersions: []string{"v1"}, SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone),
	}
	for _, f := range change {
		f(&hook)
	}
	b.create(&admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: strings.Trim(path, "/")}, Webhooks: []admissionregistrationv1.MutatingWebhook{hook},
	})
}

func post(path, kind, body string) call {
	return call{method: http.MethodPost, path: path, body: `{"apiVersion":"v1","kind":"` + kind + `",` + body + `}`}
}

func TestValidatingWebhookRefuses(t *testing.T) {
	b, r := newBed(t, confirming), newReviewer(t)
	r.answers["/no"] = deny(&metav1.Status{Message: "never on a Friday", Reason: metav1.StatusReasonForbidden, Code: 403})
	b.validating(r, "/no", on("", "v1", "configmaps", "CREATE", "UPDATE", "DELETE"), func(h *admissionregistrationv1.ValidatingWebhook) {
		h.ObjectSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "new"}}
	})
	_, data := b.do(post(configMaps, "ConfigMap", `"metadata":{"name":"a","labels":{"app":"new"}}`))
	mustContain(t, data, `"message":"admission webhook \"no.example.com\" denied the request: never on a Friday","reason":"Forbidden","code":403`)
	asked := r.heard()
	if len(asked) != 1 {
		t.Fatalf("it was asked %d times of a request that was refused", len(asked))
	}
	q := asked[0].Request
	if q.Name != "a" || q.Namespace != "default" || q.Operation != "CREATE" || q.Kind.Kind != "ConfigMap" || q.Resource.Resource != "configmaps" ||
		q.UserInfo.Username != "admin" || *q.DryRun || !strings.Contains(string(q.Object.Raw), `"kind":"ConfigMap"`) || len(q.OldObject.Raw) > 0 {
		t.Errorf("%+v", q)
	}
	// What the rules and selectors do not cover passes: other kinds, other labels.
	b.mustDo(post("/api/v1/namespaces/default/secrets", "Secret", `"metadata":{"name":"a","labels":{"app":"new"}}`), 201)
	b.mustDo(post(configMaps, "ConfigMap", `"metadata":{"name":"a","labels":{"app":"old"}}`), 201)
	if asked := r.heard(); len(asked) > 0 {
		t.Errorf("asked of %s", asked[0].Request.Name)
	}
	b.mustDo(patchOf(configMaps+"/a", []byte(`{"metadata":{"labels":{"app":"new"}}}`)), 403)
	b.mustDo(call{method: http.MethodDelete, path: configMaps + "/a"}, 200) // it is not labelled
	b.mustDo(post(configMaps+"?dryRun=All", "ConfigMap", `"metadata":{"name":"b","labels":{"app":"new"}}`), 403)
	if asked = r.heard(); len(asked) != 2 || !strings.Contains(string(asked[0].Request.OldObject.Raw), `"old"`) || !*asked[1].Request.DryRun {
		t.Errorf("%d: %+v", len(asked), asked)
	}
	// Controllers' own writes are looked at, too.
	if _, err := b.client.Create(t.Context(), configMap("c", map[string]string{"app": "new"})); err == nil || !strings.Contains(err.Error(), "Friday") {
		t.Error(err)
	}
	if asked = r.heard(); asked[0].Request.UserInfo.Username != "system:kube-controller-manager" {
		t.Errorf("%+v", asked[0].Request.UserInfo)
	}
}

// confirming has an API server that, as in a cluster of several, looks again before it refuses anything.
func confirming(b *bed, cfg *apiserver.Config) {
	clients := b.clients
	clients.Confirm = func(context.Context) error { return nil }
	cfg.Client = store.NewClient(clients)
}

func TestWebhookThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse
		change func(*admissionregistrationv1.ValidatingWebhook)
		want   string
	}{
		"slow": {func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			time.Sleep(1500 * time.Millisecond)
			return &admissionv1.AdmissionResponse{Allowed: true}
		}, func(h *admissionregistrationv1.ValidatingWebhook) { h.TimeoutSeconds = ptr.To[int32](1) }, "context deadline exceeded"},
		"absent": {nil, nil, "it answered 404 Not Found: there is no such webhook"},
		"of-another": {func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			return &admissionv1.AdmissionResponse{UID: "x"}
		}, nil, "expected response.uid="},
		"with-a-patch":  {patching(`[]`), nil, "may not return a patch"},
		"without-trust": {allow, func(h *admissionregistrationv1.ValidatingWebhook) { h.ClientConfig.CABundle = nil }, "certificate"},
		"without-roots": {allow, func(h *admissionregistrationv1.ValidatingWebhook) { h.ClientConfig.CABundle = []byte("x") }, "caBundle has none"},
		"nowhere": {allow, func(h *admissionregistrationv1.ValidatingWebhook) {
			h.ClientConfig.URL, h.ClientConfig.Service = nil, &admissionregistrationv1.ServiceReference{Namespace: "default", Name: "none"}
		}, `service \"none\" not found`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, r := newBed(t), newReviewer(t)
			if c.answer != nil {
				r.answers["/closed"], r.answers["/open"] = c.answer, c.answer
			}
			change := func(policy admissionregistrationv1.FailurePolicyType, app string) func(*admissionregistrationv1.ValidatingWebhook) {
				return func(h *admissionregistrationv1.ValidatingWebhook) {
					h.FailurePolicy, h.ObjectSelector = &policy, &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
					if c.change != nil {
						c.change(h)
					}
				}
			}
			b.validating(r, "/closed", anyWrite, change(admissionregistrationv1.Fail, "closed"))
			b.validating(r, "/open", anyWrite, change(admissionregistrationv1.Ignore, "open"))
			answer, data := b.do(post(configMaps, "ConfigMap", `"metadata":{"name":"a","labels":{"app":"closed"}}`))
			if answer.StatusCode != http.StatusInternalServerError {
				t.Errorf("%d", answer.StatusCode)
			}
			mustContain(t, data, `failed calling webhook \"closed.example.com\": `)
			mustContain(t, data, c.want)
			b.mustDo(post(configMaps, "ConfigMap", `"metadata":{"name":"a","labels":{"app":"open"}}`), 201)
		})
	}
}

func TestWebhookSaysMore(t *testing.T) {
	b, r := newBed(t), newReviewer(t)
	r.answers["/says"] = func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Allowed: true, Warnings: []string{"it is late"}}
	}
	b.validating(r, "/says", on("", "v1", "namespaces", "*"), func(h *admissionregistrationv1.ValidatingWebhook) {
		h.NamespaceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "quiet", Operator: "DoesNotExist"}}}
		h.AdmissionReviewVersions = []string{"v7", "v1beta1"}
	})
	answer, _ := b.do(post("/api/v1/namespaces", "Namespace", `"metadata":{"name":"loud"}`))
	if got := answer.Header.Get("Warning"); !strings.Contains(got, "it is late") {
		t.Errorf("%q", got)
	}
	if asked := r.heard(); asked[0].APIVersion != "admission.k8s.io/v1beta1" {
		t.Errorf("%+v", asked[0].TypeMeta)
	}
	answer, _ = b.do(post("/api/v1/namespaces", "Namespace", `"metadata":{"name":"quiet","labels":{"quiet":"yes"}}`))
	if got := answer.Header.Get("Warning"); got != "" || answer.StatusCode != 201 {
		t.Errorf("%d %q", answer.StatusCode, got)
	}
}

// TestWebhooksAreNotAskedOfThemselves: who refuses everything can be taken away again.
func TestWebhooksAreNotAskedOfThemselves(t *testing.T) {
	b, r := newBed(t), newReviewer(t)
	r.answers["/no"] = deny(nil)
	b.validating(r, "/no", anyWrite)
	b.mutating(r, "/none", anyWrite) // it cannot be asked
	_, data := b.do(post(configMaps, "ConfigMap", `"metadata":{"name":"a"}`))
	mustContain(t, data, "none.example.com")
	const configurations = "/apis/admissionregistration.k8s.io/v1/"
	b.mustDo(call{method: http.MethodDelete, path: configurations + "mutatingwebhookconfigurations/none"}, 200)
	_, data = b.do(post(configMaps, "ConfigMap", `"metadata":{"name":"a"}`))
	mustContain(t, data, `denied the request without explanation`)
	b.mustDo(call{method: http.MethodDelete, path: configurations + "validatingwebhookconfigurations/no"}, 200)
	b.mustDo(post(configMaps, "ConfigMap", `"metadata":{"name":"a"}`), 201)
}

func TestMutatingWebhook(t *testing.T) {
	b, r := newBed(t), newReviewer(t)
	r.answers["/add"] = patching(`[{"op":"add","path":"/data","value":{"added":"yes"}},{"op":"add","path":"/metadata/uid","value":"x"},
		{"op":"add","path":"/metadata/deletionTimestamp","value":"2026-01-01T00:00:00Z"},{"op":"add","path":"/bogus","value":1}]`)
	b.mutating(r, "/add", on("", "v1", "configmaps", "CREATE", "UPDATE"))
	var made corev1.ConfigMap
	b.get(&made, post(configMaps, "ConfigMap", `"metadata":{"name":"a"}`))
	if made.Data["added"] != "yes" || made.UID == "x" || made.UID == "" || made.DeletionTimestamp != nil {
		t.Errorf("%+v", made)
	}
	uid := made.UID
	b.get(&made, patchOf(configMaps+"/a", []byte(`{"data":{"more":"yes"}}`)))
	if made.Data["added"] != "yes" || made.Data["more"] != "" || made.UID != uid {
		t.Errorf("%+v", made)
	}
	b.mustDo(post(configMaps+"?dryRun=All", "ConfigMap", `"metadata":{"name":"dry"}`), 201)
	b.mustDo(call{path: configMaps + "/dry"}, 404)

	// What is added to a pod has defaults, is looked at by what the server itself adds, and is validated; the status is not a webhook's to set on the way of the spec.
	r.answers["/pod"] = patching(`[{"op":"add","path":"/spec/initContainers","value":[{"name":"init","image":"i:2"}]},
		{"op":"add","path":"/status/phase","value":"Running"}]`)
	b.mutating(r, "/pod", on("", "v1", "pods", "CREATE"))
	b.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "default"}})
	var pod corev1.Pod
	b.get(&pod, post(pods, "Pod", `"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i:1"}]}`))
	if len(pod.Spec.InitContainers) != 1 || pod.Spec.InitContainers[0].TerminationMessagePath != "/dev/termination-log" || pod.Status.Phase != corev1.PodPending ||
		pod.Spec.InitContainers[0].VolumeMounts[0].MountPath != "/var/run/secrets/kubernetes.io/serviceaccount" {
		t.Errorf("%+v %+v", pod.Spec.InitContainers, pod.Status)
	}
	r.answers["/pod"] = patching(`[{"op":"add","path":"/spec/initContainers","value":[{"name":"c","image":"i:2"}]}]`)
	_, data := b.do(post(pods, "Pod", `"metadata":{"name":"q"},"spec":{"containers":[{"name":"c","image":"i:1"}]}`))
	mustContain(t, data, `spec.initContainers[0].name: Duplicate value`)
	r.answers["/pod"] = patching(`[{"op":"replace","path":"/metadata/name","value":"other"}]`)
	_, data = b.do(post(pods, "Pod", `"metadata":{"name":"q"},"spec":{"containers":[{"name":"c","image":"i:1"}]}`))
	mustContain(t, data, `it wants to change the name of the object`)
	r.answers["/pod"] = patching(`[{"op":"remove","path":"/spec/none"}]`)
	_, data = b.do(post(pods, "Pod", `"metadata":{"name":"q"},"spec":{"containers":[{"name":"c","image":"i:1"}]}`))
	mustContain(t, data, `failed calling webhook \"pod.example.com\"`)
}

// TestMutatingWebhooksSeeEachOther: in the order of their names, and once more if they want to and there is something new.
func TestMutatingWebhooksSeeEachOther(t *testing.T) {
	b, r := newBed(t), newReviewer(t)
	add := func(name string) func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return func(q *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			var c corev1.ConfigMap
			_ = json.Unmarshal(q.Object.Raw, &c)
			if c.Data[name] != "" {
				return &admissionv1.AdmissionResponse{Allowed: true}
			}
			return patching(`[{"op":"add","path":"/data/` + name + `","value":"` + fmt.Sprint(len(c.Data)) + `"}]`)(q)
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		r.answers["/"+name] = add(name)
		b.mutating(r, "/"+name, on("", "v1", "configmaps", "CREATE"), func(h *admissionregistrationv1.MutatingWebhook) {
			if name != "a" {
				h.ReinvocationPolicy = ptr.To(admissionregistrationv1.IfNeededReinvocationPolicy)
			}
		})
	}
	var made corev1.ConfigMap
	b.get(&made, post(configMaps, "ConfigMap", `"metadata":{"name":"x"},"data":{"first":"yes"}`))
	if made.Data["a"] != "1" || made.Data["b"] != "2" || made.Data["c"] != "3" {
		t.Errorf("%+v", made.Data)
	}
	if asked := len(r.heard()); asked != 4 { // b once more, since c came after it
		t.Errorf("asked %d times", asked)
	}
}

// TestWebhookSeesItsVersion: a rule about one version of a kind covers requests in another one, and a custom resource is pruned.
func TestWebhookSeesItsVersion(t *testing.T) {
	b, r := newBed(t), newReviewer(t)
	b.define(widgetDefinition)
	r.answers["/old"] = func(q *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if q.Kind.Version != "v1beta1" || q.RequestKind.Version != "v1" || !strings.Contains(string(q.Object.Raw), `"apiVersion":"example.com/v1beta1"`) {
			return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: q.Kind.Version + " " + q.RequestKind.Version + string(q.Object.Raw)}}
		}
		return patching(`[{"op":"add","path":"/spec/color","value":"red"},{"op":"add","path":"/spec/unknown","value":1}]`)(q)
	}
	b.mutating(r, "/old", on("example.com", "v1beta1", "widgets", "CREATE"))
	made := b.mustDo(call{method: http.MethodPost, path: widgets, body: widget("w", `{"size":1}`)}, 201)
	if spec := made["spec"].(object); spec["color"] != "red" || spec["unknown"] != nil {
		t.Errorf("%v", spec)
	}
	b2, r2 := newBed(t), newReviewer(t)
	b2.define(widgetDefinition)
	r2.answers["/exact"] = deny(nil)
	b2.mutating(r2, "/exact", on("example.com", "v1beta1", "widgets", "CREATE"), func(h *admissionregistrationv1.MutatingWebhook) {
		h.MatchPolicy = ptr.To(admissionregistrationv1.Exact)
	})
	b2.mustDo(call{method: http.MethodPost, path: widgets, body: widget("w", `{"color":"red"}`)}, 201)
}

func TestWebhookSeesSubresources(t *testing.T) {
	b, r := newBed(t), newReviewer(t)
	b.hello()
	b.create(podOn("p", ""))
	r.answers["/sub"] = allow
	b.validating(r, "/sub", on("*", "*", "*/*", "*"))
	deployment := "/apis/apps/v1/namespaces/default/deployments/hello"
	b.mustDo(patchOf(deployment+"/scale", []byte(`{"spec":{"replicas":3}}`)), 200)
	b.mustDo(patchOf(deployment+"/status", []byte(`{"status":{"replicas":1}}`)), 200)
	b.mustDo(post(pods+"/p/binding", "Binding", `"metadata":{"name":"p"},"target":{"kind":"Node","name":"n1"}`), 201)
	var got []string
	for _, review := range r.heard() {
		q := review.Request
		var obj struct{ Kind, APIVersion string }
		if err := json.Unmarshal(q.Object.Raw, &obj); err != nil {
			t.Error(err)
		}
		got = append(got, fmt.Sprintf("%s %s/%s %s %s", q.Operation, q.Resource.Resource, q.SubResource, q.Kind.Kind, obj.Kind))
	}
	want := []string{
		"UPDATE deployments/scale Scale Scale", "UPDATE deployments/status Deployment Deployment", "CREATE pods/binding Binding Binding",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestWebhookInAPod: it is reached by way of its device's own link.
func TestWebhookInAPod(t *testing.T) {
	b, r, k := newBed(t), newReviewer(t), newKubelet(t)
	b.reach = k.dial
	k.pipe["8443"] = r.Listener.Addr().String()
	pod := podOn("p", "n1")
	b.create(pod)
	b.mustDo(post("/api/v1/namespaces/default/services", "Service",
		`"metadata":{"name":"hook"},"spec":{"selector":{"app":"hook"},"ports":[{"port":443,"targetPort":"https"}]}`), 201)
	r.answers["/in-a-pod"] = deny(&metav1.Status{Message: "no"})
	b.validating(r, "/in-a-pod", on("", "v1", "configmaps", "CREATE"), func(h *admissionregistrationv1.ValidatingWebhook) {
		h.ClientConfig.URL = nil
		h.ClientConfig.Service = &admissionregistrationv1.ServiceReference{Namespace: "default", Name: "hook", Path: ptr.To("/in-a-pod"), Port: ptr.To[int32](443)}
	})
	_, data := b.do(post(configMaps, "ConfigMap", `"metadata":{"name":"a"}`))
	mustContain(t, data, `no endpoints available for service \"hook\"`)
	b.behind("hook", "", pod, 8443)
	for range 3 {
		_, data = b.do(post(configMaps, "ConfigMap", `"metadata":{"name":"a"}`))
		mustContain(t, data, `denied the request: no`)
	}
	b.reach = func(context.Context, string) (net.Conn, error) { return nil, errors.New("it is not connected") }
}

func TestWebhookRefusesConnections(t *testing.T) {
	beds, r := onServers(t), newReviewer(t)
	b := beds[0]
	r.answers["/attach"] = func(q *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		var options corev1.PodAttachOptions
		if err := json.Unmarshal(q.Object.Raw, &options); err != nil || !options.Stdin || options.Kind != "PodAttachOptions" || q.Kind.Kind != options.Kind {
			return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: fmt.Sprintf("%v %s", err, q.Object.Raw)}}
		}
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: "attaching to " + q.Name + " is not allowed", Code: http.StatusForbidden}}
	}
	b.validating(r, "/attach", on("", "v1", "pods/attach", "CONNECT"))
	upgrade := map[string]string{"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
	answer, data := b.do(call{method: http.MethodPost, path: pods + "/p/attach?stdin=true&stdout=true", header: upgrade})
	if answer.StatusCode != http.StatusForbidden {
		t.Errorf("%d", answer.StatusCode)
	}
	mustContain(t, data, "attaching to p is not allowed")
	if asked := r.heard(); asked[0].Request.Operation != admissionv1.Connect || asked[0].Request.UID == types.UID("") {
		t.Errorf("%+v", asked[0].Request)
	}
	if answer, _ = b.do(call{path: pods + "/p/log"}); answer.StatusCode != http.StatusOK {
		t.Errorf("%d", answer.StatusCode)
	}
	if asked := r.heard(); len(asked) > 0 {
		t.Errorf("asked of %s", asked[0].Request.SubResource)
	}
}

// An Eviction and a TokenRequest are shown as what was sent, and may be refused, but not changed.
func TestWebhookRefusesWhatIsNotStored(t *testing.T) {
	b, r := newBed(t, withTokens), newReviewer(t)
	b.create(podOn("p", "n"))
	r.answers["/stay"] = func(q *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if q.Kind.Kind != "Eviction" || q.Operation != admissionv1.Create || !strings.Contains(string(q.Object.Raw), `"name":"p"`) {
			return &admissionv1.AdmissionResponse{Allowed: true}
		}
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: q.Name + " is needed", Code: http.StatusForbidden}}
	}
	r.answers["/never"] = patching(`[{"op":"add","path":"/spec/expirationSeconds","value":1}]`)
	b.validating(r, "/stay", on("", "v1", "pods/eviction", "CREATE"))
	b.mutating(r, "/never", on("", "v1", "serviceaccounts/token", "CREATE"))
	answer, data := b.do(call{method: http.MethodPost, path: pods + "/p/eviction", body: `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p"}}`})
	if mustContain(t, data, "p is needed"); answer.StatusCode != http.StatusForbidden {
		t.Errorf("%d", answer.StatusCode)
	}
	if _, ok := store.Get[corev1.Pod](b.durable, "default", "p"); !ok {
		t.Error("it is gone all the same")
	}
	_, data = b.do(call{method: http.MethodPost, path: accounts + "/bot/token", body: `{"spec":{}}`})
	mustContain(t, data, "it wants to change the subresource token, which cannot be done here")
	if asked := r.heard(); len(asked) != 2 || asked[1].Request.Kind.Kind != "TokenRequest" {
		t.Errorf("%d: %+v", len(asked), asked)
	}
}

// A webhook that asks for one version of a kind hears of requests in another one, in its own.
func TestWebhookHearsOfOtherVersions(t *testing.T) {
	b, r := newBed(t), newReviewer(t)
	r.answers["/old"] = deny(&metav1.Status{Message: "no scaling"})
	b.validating(r, "/old", on("autoscaling", "v1", "horizontalpodautoscalers", "CREATE"))
	_, data := b.do(call{method: http.MethodPost, path: "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", body: `{"apiVersion":"autoscaling/v2",
		"kind":"HorizontalPodAutoscaler","metadata":{"name":"a"},"spec":{"maxReplicas":3,"scaleTargetRef":{"kind":"Deployment","name":"a","apiVersion":"apps/v1"}}}`})
	mustContain(t, data, "no scaling")
	asked := r.heard()
	if len(asked) != 1 || asked[0].Request.Kind.Version != "v1" || asked[0].Request.RequestKind.Version != "v2" || !strings.Contains(string(asked[0].Request.Object.Raw), `"autoscaling/v1"`) {
		t.Errorf("%d: %+v", len(asked), asked)
	}
}
