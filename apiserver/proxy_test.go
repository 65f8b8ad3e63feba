package apiserver_test

import (
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// behind puts a pod behind a service, as the controller of endpoints does.
func (b *bed) behind(service, port string, pod *corev1.Pod, number int32) {
	b.t.Helper()
	b.create(&discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: service, Namespace: pod.Namespace, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &port, Port: &number}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.1.2.9"}, NodeName: ptr.To("n1"), TargetRef: podRef("unready"), Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}},
			{Addresses: []string{"10.1.2.8"}}, // it is no pod
			{Addresses: []string{"10.1.2.3"}, NodeName: &pod.Spec.NodeName, TargetRef: podRef(pod.Name), Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}},
		},
	})
}

func podRef(name string) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: name}
}

const services = "/api/v1/namespaces/default/services"

func TestProxy(t *testing.T) {
	beds := onServers(t)
	for _, name := range []string{"n1", "n2"} {
		beds[0].create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	pod, _ := beds[0].client.Reader().Get(key("pods", "p"))
	obj, err := beds[0].durable.Decode(pod)
	if err != nil {
		t.Fatal(err)
	}
	p := obj.(*corev1.Pod)
	p.Status.PodIP, p.Status.PodIPs = "10.1.2.3", []corev1.PodIP{{IP: "10.1.2.3"}}
	if _, err := beds[0].client.UpdateStatus(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	beds[0].create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, Spec: corev1.ServiceSpec{
		Selector: p.Labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
	}})
	beds[0].create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "two", Namespace: "default"}, Spec: corev1.ServiceSpec{
		Selector: p.Labels, Ports: []corev1.ServicePort{{Name: "a", Port: 80, TargetPort: intstr.FromInt32(8080)}, {Name: "none", Port: 81, TargetPort: intstr.FromString("none")}},
	}})
	beds[0].create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "empty", Namespace: "default"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "none"}, Ports: []corev1.ServicePort{{Port: 80}},
	}})
	for _, name := range []string{"web", "two"} {
		beds[0].behind(name, map[string]string{"web": "", "two": "a"}[name], p, 8080)
	}
	bearer := map[string]string{"Authorization": "Basic c2VjcmV0"}
	for _, b := range beds {
		for _, c := range []struct {
			call call
			code int
			want string
		}{
			{call{path: pods + "/p:8080/proxy/a%2Fb/c?x=y", header: bearer}, 203, `GET /a%2Fb/c?x=y "" []`},
			{call{path: pods + "/p:8080/proxy/"}, 203, `GET / "" []`},
			{call{method: "POST", path: pods + "/http:p:8080/proxy/a/", body: "hello"}, 203, `POST /a/ "hello" []`},
			{call{method: "DELETE", path: pods + "/p:8080/proxy/a"}, 203, `DELETE /a "" []`},
			{call{path: pods + "/p:9999/proxy/"}, 503, `error trying to reach service: connection refused`},
			{call{path: pods + "/p:none/proxy/"}, 400, `pod p has no port`},
			{call{path: pods + "/q/proxy/"}, 400, `address not allowed`},
			{call{path: pods + "/none/proxy/"}, 404, `pods \"none\" not found`},
			{call{path: pods + "/ftp:p:1/proxy/"}, 400, `invalid pod request`},
			{call{path: services + "/web/proxy/a?x=y"}, 203, `GET /a?x=y "" []`},
			{call{method: "POST", path: services + "/http:web:80/proxy/a", body: "hello"}, 203, `POST /a "hello" []`},
			{call{path: services + "/two:none/proxy/"}, 503, `no endpoints available for service \"two\"`},
			{call{path: services + "/two:a/proxy/b"}, 203, `GET /b "" []`},
			{call{path: services + "/web:82/proxy/"}, 503, `no service port \"82\" found for service \"web\"`},
			{call{path: services + "/empty:80/proxy/"}, 503, `no endpoints available for service \"empty\"`},
			{call{path: services + "/none/proxy/"}, 404, `services \"none\" not found`},
			{call{path: "/api/v1/nodes/n1/proxy/healthz"}, 200, `ok`},
			{call{path: "/api/v1/nodes/n1:10250/proxy/healthz"}, 200, `ok`},
			{call{path: "/api/v1/nodes/n2/proxy/healthz"}, 503, `error trying to reach service: it is not connected`},
			{call{path: "/api/v1/nodes/none/proxy/healthz"}, 404, `nodes \"none\" not found`},
		} {
			answer, data := b.do(c.call)
			if answer.StatusCode != c.code {
				t.Errorf("%s %s: %d %s", c.call.method, c.call.path, answer.StatusCode, data)
			}
			mustContain(t, data, c.want)
		}
	}
	// Relative links of a page at the root must lead back here.
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, beds[0].url+pods+"/p:8080/proxy?a=b", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(identityHeader, "admin|system:masters")
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if got := answer.Header.Get("Location"); answer.StatusCode != http.StatusMovedPermanently || got != pods+"/p:8080/proxy/?a=b" {
		t.Errorf("%d %q", answer.StatusCode, got)
	}
}
