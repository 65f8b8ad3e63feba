package cluster

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
)

// as makes a request to a member as somebody else: with a certificate, a token, or nothing.
func (c *cluster) as(to *fleet.Member, certificates []tls.Certificate, token, method, path, body string) (int, string) {
	c.Helper()
	settings := c.kube.TLS()
	settings.Certificates = certificates
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true}}
	r, err := http.NewRequestWithContext(c.Context(), method, "https://"+to.Config.Server.Listen+path, strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(r)
	if err != nil {
		c.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		c.Fatal(err)
	}
	return answer.StatusCode, string(data)
}

// TestPodsSpeakToTheAPI takes the token out of a pod's volume and uses it at every server, and then looks at what the pod's device may
// read with its own certificate.
func TestPodsSpeakToTheAPI(t *testing.T) {
	c := start(t, 3, 1)
	device := c.fleet.Member("agent-1")
	for name, data := range map[string]string{"wanted": "a", "other": "b"} {
		c.do("POST", "/api/v1/namespaces/default/secrets", &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"k": data},
		}, nil)
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{corev1.LabelHostname: device.Name},
			Containers: []corev1.Container{{
				Name: "c", Image: "hello:v1",
				EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "wanted"}}}},
			}},
		},
	}
	const path = "/api/v1/namespaces/default/pods/p"
	c.do("POST", "/api/v1/namespaces/default/pods", p, p)
	c.eventually("the pod runs", func() error {
		c.do("GET", path, nil, p)
		if p.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("it is %s", p.Status.Phase)
		}
		return nil
	})
	volume := filepath.Join(device.Config.DataDir, "agent", "pods", string(p.UID), "volumes", p.Spec.Volumes[0].Name)
	file := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(volume, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	token := file("token")
	if file("namespace") != "default" || !strings.Contains(file("ca.crt"), "BEGIN CERTIFICATE") {
		t.Error("namespace or CA are wrong")
	}
	const whoAmI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
	for _, server := range c.fleet.Members()[:3] {
		code, told := c.as(server, nil, token, "POST", whoAmI, "{}")
		var review authenticationv1.SelfSubjectReview
		if err := json.Unmarshal([]byte(told), &review); err != nil || code != http.StatusCreated {
			t.Fatalf("%s: %d %s", server.Name, code, told)
		}
		u := review.Status.UserInfo
		if u.Username != "system:serviceaccount:default:default" || u.Extra["authentication.kubernetes.io/pod-name"][0] != "p" ||
			u.Extra["authentication.kubernetes.io/node-name"][0] != device.Name {
			t.Errorf("%s: %+v", server.Name, u)
		}
		if code, told := c.as(server, nil, token, "GET", "/api/v1/namespaces/default/secrets", ""); code != http.StatusForbidden {
			t.Errorf("%s: %d %s", server.Name, code, told)
		}
		if code, _ := c.as(server, nil, "", "GET", "/version", ""); code != http.StatusUnauthorized {
			t.Errorf("%s: nobody got %d", server.Name, code)
		}
	}

	pki := filepath.Join(device.Config.DataDir, "pki")
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, "node.crt"), filepath.Join(pki, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range c.fleet.Members()[:3] {
		for path, want := range map[string]int{
			"/api/v1/namespaces/default/secrets/wanted":          200,
			"/api/v1/namespaces/default/secrets/other":           403,
			"/api/v1/namespaces/default/secrets":                 403,
			"/api/v1/nodes/agent-1":                              200,
			"/api/v1/nodes/server-1":                             403,
			"/api/v1/pods":                                       403,
			"/api/v1/pods?fieldSelector=spec.nodeName%3Dagent-1": 200,
			"/shoal/v1/snapshot":                                 403,
			"/apis/rbac.authorization.k8s.io/v1/clusterroles":    403,
		} {
			if code, told := c.as(server, []tls.Certificate{pair}, "", "GET", path, ""); code != want {
				t.Errorf("%s %s: %d %s", server.Name, path, code, told)
			}
		}
	}
	c.do("DELETE", path+"?gracePeriodSeconds=0", nil, nil)
	c.eventually("the token ends with its pod", func() error {
		for _, server := range c.fleet.Members()[:3] {
			if code, _ := c.as(server, nil, token, "POST", whoAmI, "{}"); code != http.StatusUnauthorized {
				return errors.New("it still counts")
			}
		}
		return nil
	})
}
