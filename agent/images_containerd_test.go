package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/archive"
	"github.com/shoal-edge/shoal/agent/runtime/containerdtest"
	"github.com/shoal-edge/shoal/agent/runtime/cri"
	"github.com/shoal-edge/shoal/agent/runtime/image"
)

// testRegistry serves images to whoever knows its password.
type testRegistry struct {
	blobs map[string]image.Blob // by digest, and by repository:tag
	open  bool                  // it asks for no password
}

func (r *testRegistry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if user, password, _ := q.BasicAuth(); !r.open && (user != "pi" || password != "secret") {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	part := strings.Split(strings.TrimPrefix(q.URL.Path, "/v2/"), "/") // repository, manifests or blobs, reference
	if len(part) != 3 {
		return
	}
	blob, ok := r.blobs[part[2]]
	if !ok {
		blob, ok = r.blobs[part[0]+":"+part[2]]
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", blob.MediaType)
	w.Header().Set("Docker-Content-Digest", blob.Digest)
	if q.Method == http.MethodGet {
		_, _ = w.Write(blob.Data)
	}
}

func (r *testRegistry) add(t *testing.T, name, marker string, more ...image.File) {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Build(image.Config{
		Ref: name, Cmd: []string{"/bin/busybox", "sleep", "3600"},
		Files: append(more, image.File{Path: "/bin/busybox", Content: busybox}, image.File{Path: "/" + marker}),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range img.Blobs {
		r.blobs[b.Digest] = b
	}
	r.blobs[name] = img.Blobs[len(img.Blobs)-1]
}

// certificate makes one for the loopback address, and writes it to file.
func certificate(t *testing.T, file string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Images come from a registry with an authority and a login of its own, by way of a mirror that is away, and those that nobody needs
// go when the disk is full, while the ones that were imported stay.
func TestImagesOnContainerd(t *testing.T) {
	b := newBoard(t)
	registry := &testRegistry{blobs: map[string]image.Blob{}}
	registry.add(t, "app:1", "one")
	registry.add(t, "app:2", "two")
	registry.add(t, "other:1", "three")
	ca, password := filepath.Join(b.daemon.Dir, "ca.pem"), filepath.Join(b.daemon.Dir, "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: registry, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate(t, ca)}}}
	listener := b.daemon.Listen(t)
	go server.ServeTLS(listener, "", "")
	defer server.Close()
	b.stop()
	b.registries = []Registry{{
		Host: "registry.shoal.test", Endpoint: "https://" + listener.Addr().String(), Mirrors: []string{"http://127.0.0.1:1"},
		CAFile: ca, Username: "pi", PasswordFile: password,
	}}
	b.start()

	p := testPod("app", "")
	c := &p.Spec.Containers[0]
	c.ImagePullPolicy, c.Command = corev1.PullIfNotPresent, nil
	for i, ref := range []string{"registry.shoal.test/other:1", "registry.shoal.test/app:1", "registry.shoal.test/app:2"} {
		c.Image = ref
		b.apply(encode(t, "pods/default/app", p))
		b.await(ref, func() bool {
			s := b.container(p)
			return s.State.Running != nil && int(s.RestartCount) == i && s.Image == ref
		})
	}
	ctx := context.Background()
	has := func(ref string) bool {
		_, err := b.daemon.Runtime.Image(ctx, ref)
		if err != nil && !errors.Is(err, runtime.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	b.a.sensors.disk = func(string) space { return space{total: 1000, free: 120} }
	if b.a.images() == "" || b.a.freeImages(ctx) != 1 {
		t.Errorf("not one image was removed; the folder of images is %q", b.a.images())
	}
	for ref, want := range map[string]bool{
		"registry.shoal.test/app:2": true, "registry.shoal.test/app:1": true, "registry.shoal.test/other:1": false,
		containerdtest.Image: true, image.PauseRef: true,
	} {
		if has(ref) != want {
			t.Errorf("%s is there: %t, want %t", ref, !want, want)
		}
	}
}

// The kernel holds a pod as a whole to what it asked for, and the device ends one that fills its volume.
func TestLimitsOnContainerd(t *testing.T) {
	b := newBoard(t)
	p := testPod("limited", `i=0; while test $i -lt 40; do cat /bin/busybox; i=$((i+1)); done > /data/file; exec sleep 3600`)
	p.Spec.Containers[0].Resources = resources("200m 16Mi", "500m 64Mi")
	limit := resource.MustParse("1Mi")
	p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	b.apply(encode(t, "pods/default/limited", p))
	b.await("running", func() bool { return b.container(p).State.Running != nil })
	find := func(names ...string) string {
		for _, root := range b.a.cgroupRoots() {
			for _, name := range names {
				if v := firstLine(filepath.Join(root, b.a.podCgroup(string(p.UID)), name)); v != "" {
					return v
				}
			}
		}
		return ""
	}
	if got := find("cpu.shares", "cpu.weight"); got != "204" && got != "8" {
		t.Errorf("weight %q", got)
	}
	if got := find("memory.limit_in_bytes", "memory.max"); got != "67108864" {
		t.Errorf("memory %q", got)
	}
	if got := find("cpu.cfs_quota_us", "cpu.max"); got != "50000" && got != "50000 100000" {
		t.Errorf("quota %q", got)
	}
	// The pod grows and shrinks while it runs.
	first := b.container(p).ContainerID
	for _, tc := range []struct{ size, memory, quota string }{{"1 128Mi", "134217728", "100000"}, {"250m 48Mi", "50331648", "25000"}} {
		p = p.DeepCopy()
		p.Spec.Containers[0].Resources = resources("", tc.size)
		b.apply(encode(t, "pods/default/limited", p))
		cpu, _, _ := strings.Cut(tc.size, " ")
		b.await("resized", func() bool {
			s := b.container(p)
			return s.Resources != nil && s.Resources.Limits.Cpu().String() == cpu
		})
		if got := find("memory.limit_in_bytes", "memory.max"); got != tc.memory {
			t.Errorf("memory of the pod with %s: %q", tc.size, got)
		}
		if got := find("cpu.cfs_quota_us", "cpu.max"); got != tc.quota && got != tc.quota+" 100000" {
			t.Errorf("quota of the pod with %s: %q", tc.size, got)
		}
		id := strings.TrimPrefix(first, "containerd://")
		if got := find(id+"/memory.limit_in_bytes", id+"/memory.max"); got != tc.memory {
			t.Errorf("memory of the container with %s: %q", tc.size, got)
		}
	}
	if s := b.container(p); s.ContainerID != first || s.RestartCount != 0 {
		t.Errorf("it did not go on: %+v", s)
	}
	data := b.a.volumes.Path(p, &p.Spec.Volumes[0])
	for deadline := time.Now().Add(30 * time.Second); folder(data).bytes < 2<<20; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the pod wrote %d bytes", folder(data).bytes)
		}
	}
	b.a.enforceDisk(context.Background())
	b.await("evicted", func() bool { return b.pods[p.UID].Status.Reason == "Evicted" && b.container(p).State.Terminated != nil })
	for deadline := time.Now().Add(30 * time.Second); len(entries(filepath.Dir(data))) != 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the volume of a pod that is over is still there")
		}
	}
	if got := b.get("/containerLogs/default/limited/main"); !strings.HasPrefix(got, "200 ") {
		t.Errorf("the logs of an evicted pod: %q", got)
	}
}

// A device imports what is put into its folder of archives, once all of it is there, and the pods that wait for the image start.
func TestSeedsOnContainerd(t *testing.T) {
	b := newBoard(t, func(c *Config) {
		c.Seeds = filepath.Join(c.DataDir, "seeds")
		c.Import = func(ctx context.Context, file io.Reader) ([]archive.Named, error) {
			return c.Runtime.(*cri.Runtime).ImportArchive(ctx, file)
		}
	})
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Build(image.Config{
		Ref: "factory.example/press:1", Cmd: []string{"/bin/busybox", "sleep", "3600"}, Files: []image.File{{Path: "/bin/busybox", Content: busybox}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	if _, err := img.WriteTo(&data); err != nil {
		t.Fatal(err)
	}
	p := testPod("press", "")
	c := &p.Spec.Containers[0]
	c.Image, c.ImagePullPolicy, c.Command = img.Ref, corev1.PullNever, nil
	b.apply(encode(t, "pods/default/press", p))
	b.await("waiting", func() bool { w := b.container(p).State.Waiting; return w != nil && w.Reason == reasonNeverPull })
	seed := filepath.Join(b.a.c.Seeds, "press.tar")
	if err := os.WriteFile(seed, data.Bytes()[:data.Len()/2], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(seed, data.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	b.await("running", func() bool { return b.container(p).State.Running != nil })
	if got := string(b.a.db.get(bucketMeta, seedKey+"press.tar")); !strings.HasPrefix(got, fmt.Sprint(data.Len())+" ") {
		t.Errorf("the record is %q", got)
	}
}
