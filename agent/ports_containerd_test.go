package agent

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A port of the device leads to the pod, for as long as there is a pod.
func TestHostPortOnContainerd(t *testing.T) {
	b := newBoard(t)
	p := testPod("web", "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 8080, HostPort: 18080, Protocol: corev1.ProtocolTCP}}
	p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{
		Command: []string{"/bin/wget", "-q", "-O", "-", "http://127.0.0.1:8080/index.html"},
	}}}
	b.apply(encode(t, "pods/default/web", p))
	b.await("ready", func() bool { return b.container(p).Ready })
	page := func() (text string, err error) {
		b.daemon.Inside(t, func() error {
			var conn net.Conn
			if conn, err = (&net.Dialer{Timeout: 5 * time.Second}).Dial("tcp4", "10.88.0.1:18080"); err != nil {
				return nil
			}
			defer conn.Close()
			_, _ = fmt.Fprint(conn, "GET /index.html HTTP/1.0\r\n\r\n")
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			for in := bufio.NewScanner(conn); in.Scan(); {
				text = in.Text()
			}
			return nil
		})
		return text, err
	}
	if text, err := page(); err != nil || !strings.Contains(text, "hello") {
		t.Errorf("through the device's port: %q, %v", text, err)
	}
	b.apply(encode(t, "pods/default/web", deleting(p)))
	b.await("deleted", func() bool { return b.deleted["pods/default/web/uid-web"] })
	if text, err := page(); err == nil {
		t.Errorf("the port still leads somewhere: %q", text)
	}
}

// A pod in the device's own network has its name, and its hosts file. Environment variables may have any name, also one that no shell takes.
func TestHostNetwork(t *testing.T) {
	b := newBoard(t)
	p := testPod("node-exporter", `hostname; head -n 1 /etc/hosts; tr '\0' '\n' </proc/1/environ | grep ^data; sleep 1000`)
	p.Spec.HostNetwork = true
	p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "data-1.x", Value: "y"}}
	b.apply(encode(t, "pods/default/node-exporter", p))
	b.await("ready", func() bool { return b.container(p).Ready })
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want := "200 " + name + "\n# Kubernetes-managed hosts file (host network).\ndata-1.x=y\n"
	got := ""
	for deadline := time.Now().Add(30 * time.Second); got != want && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		got = b.get("/containerLogs/default/node-exporter/main")
	}
	if got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	if s := b.pods[p.UID].Status; s.PodIP != "192.0.2.1" {
		t.Errorf("its address is %s, and the device's 192.0.2.1", s.PodIP)
	}
}
