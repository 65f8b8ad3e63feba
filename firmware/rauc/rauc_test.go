package rauc

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/firmware"
	"github.com/shoal-edge/shoal/firmware/conformance"
	"github.com/shoal-edge/shoal/firmware/firmwaretest"
	"github.com/shoal-edge/shoal/test/need"
)

// handler is a bootloader as RAUC's custom ones are: it keeps an order, whether each slot is good, and how many boots it has left.
const handler = `#!/bin/sh
cd %s
case "$1" in
get-primary)
  p=$(cat primary); o=A; [ $p = A ] && o=B
  if [ $(cat left.$p) -gt 0 ] && [ $(cat state.$p) = good ]; then echo $p; else echo $o; fi ;;
set-primary) echo $2 >primary; cp tries left.$2; echo good >state.$2 ;;
get-state) cat state.$2 ;;
set-state) echo $3 >state.$2; [ $3 = bad ] || cp tries left.$2 ;;
*) exit 1 ;;
esac
`

const systemConf = `[system]
compatible=board
bootloader=custom
mountprefix=%[1]s/mount
statusfile=%[1]s/status
activate-installed=false

[keyring]
path=%[1]s/maker.crt

[handlers]
bootloader-custom-backend=%[1]s/handler

[slot.rootfs.0]
device=%[2]s
type=raw
bootname=A

[slot.rootfs.1]
device=%[3]s
type=raw
bootname=B
`

const busConf = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
`

// machine is a device with Debian's RAUC on a bus of its own, slots that are loop devices, and a bootloader that is played.
type machine struct {
	root    string
	loops   [2]string
	service *exec.Cmd
	booted  string // the bootname
}

func newMachine(t *testing.T) *machine {
	need.Root(t)
	for _, name := range []string{"rauc", "dbus-daemon", "losetup", "mksquashfs"} {
		need.Command(t, name)
	}
	m := &machine{root: t.TempDir(), booted: "A"}
	for i := range m.loops {
		file := filepath.Join(m.root, fmt.Sprint("slot", i))
		if err := os.WriteFile(file, make([]byte, 8<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(need.Command(t, "losetup"), "--find", "--show", file).Output()
		if err != nil {
			need.Missing(t, "losetup: %v", err)
		}
		m.loops[i] = strings.TrimSpace(string(out))
		t.Cleanup(func() {
			if err := exec.Command(need.Command(t, "losetup"), "--detach", m.loops[i]).Run(); err != nil {
				t.Error(err)
			}
		})
	}
	m.put(t, "handler", fmt.Sprintf(handler, m.root), 0o700)
	m.put(t, "system.conf", fmt.Sprintf(systemConf, m.root, m.loops[0], m.loops[1]), 0o600)
	m.put(t, "bus.conf", fmt.Sprintf(busConf, m.root), 0o600)
	for name, value := range map[string]string{"primary": "A", "tries": "3", "left.A": "3", "left.B": "0", "state.A": "good", "state.B": "bad"} {
		m.put(t, name, value+"\n", 0o600)
	}
	m.key(t, "maker")
	m.run(t, exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--config-file="+filepath.Join(m.root, "bus.conf")))
	await(t, "the bus", func() bool { _, err := os.Stat(filepath.Join(m.root, "bus")); return err == nil })
	m.start(t)
	t.Cleanup(func() { m.stop() })
	return m
}

func (m *machine) put(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.root, name), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) get(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(m.root, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// key makes a key that signs bundles, and its certificate.
func (m *machine) key(t *testing.T, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	m.put(t, name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), 0o600)
	m.put(t, name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), 0o600)
}

// bundle makes a bundle of an image that is signed by a key.
func (m *machine) bundle(t *testing.T, key string, image []byte) []byte {
	t.Helper()
	input, out := filepath.Join(m.root, "in-"+key), filepath.Join(m.root, key+".raucb")
	if err := os.MkdirAll(input, 0o700); err != nil {
		t.Fatal(err)
	}
	m.put(t, "in-"+key+"/root.img", string(image), 0o600)
	m.put(t, "in-"+key+"/manifest.raucm", "[update]\ncompatible=board\nversion=2\n[image.rootfs]\nfilename=root.img\n", 0o600)
	made, err := exec.Command("rauc", "--cert="+filepath.Join(m.root, key+".crt"), "--key="+filepath.Join(m.root, key+".key"), "bundle", input, out).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, made)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (m *machine) env() []string {
	return append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS=unix:path="+filepath.Join(m.root, "bus"))
}

// run starts a process that ends with the test.
func (m *machine) run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.Env = m.env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}))
}

// start starts RAUC's service, as a boot does.
func (m *machine) start(t *testing.T) {
	t.Helper()
	m.service = exec.Command("rauc", "--conf="+filepath.Join(m.root, "system.conf"), "--override-boot-slot="+m.booted, "service")
	m.service.Env = m.env()
	m.service.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.service.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "RAUC's service", func() bool {
		_, err := m.rauc(t.Context(), "status", "--output-format=json")
		return err == nil
	})
}

func (m *machine) stop() {
	if m.service != nil {
		_ = m.service.Process.Kill()
		_ = m.service.Wait() // it was killed
		m.service = nil
	}
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come up", what)
		}
	}
}

// rauc runs RAUC's command on the machine's bus.
func (m *machine) rauc(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "rauc", args...)
	cmd.Env = m.env()
	var failure bytes.Buffer
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, why(out, failure.Bytes()))
	}
	return out, err
}

func (m *machine) New(t *testing.T) *Backend {
	t.Helper()
	b, err := New(Config{
		Dir: filepath.Join(m.root, "data"), System: filepath.Join(m.root, "system.conf"), Run: m.rauc,
		Restart: func(context.Context) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// withTries sets how many tries the bootloader gives: RAUC's command has no word for it.
type withTries struct {
	*Backend
	m *machine
}

func (w withTries) set(tries int) error {
	return os.WriteFile(filepath.Join(w.m.root, "tries"), []byte(strconv.Itoa(tries)+"\n"), 0o600)
}

func (w withTries) Arm(ctx context.Context, slot string, tries int) error {
	if err := w.set(tries); err != nil {
		return err
	}
	return w.Backend.Arm(ctx, slot, tries)
}

func (w withTries) Refill(ctx context.Context, tries int) error {
	if err := w.set(tries); err != nil {
		return err
	}
	return w.Backend.Refill(ctx, tries)
}

// Backend implements conformance.Machine.
func (m *machine) Backend(t *testing.T) firmware.Backend { return withTries{m.New(t), m} }

// Boot implements conformance.Machine: the bootloader starts the first slot that is good and has boots left.
func (m *machine) Boot(t *testing.T) string {
	t.Helper()
	m.stop()
	first := m.get(t, "primary")
	order := []string{first, map[string]string{"A": "B", "B": "A"}[first]}
	m.booted = order[1]
	for _, name := range order {
		if left, err := strconv.Atoi(m.get(t, "left."+name)); err == nil && left > 0 && m.get(t, "state."+name) == "good" {
			m.put(t, "left."+name, fmt.Sprintln(left-1), 0o600)
			m.booted = name
			break
		}
	}
	m.start(t)
	if _, err := m.New(t).Boot(t.Context()); err != nil { // as the agent does, which says that a slot that is not on trial is good
		t.Fatal(err)
	}
	return map[string]string{"A": "a", "B": "b"}[m.booted]
}

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Machine { return newMachine(t) })
}

// TestBundle has a device fetch a bundle and install it: it is in the slot, and not started before the device says so.
func TestBundle(t *testing.T) {
	m := newMachine(t)
	image := bytes.Repeat([]byte("a root file system, "), 100_000)
	last := m.update(t, m.bundle(t, "maker", image))
	if last.State != firmwarev1.Staged {
		t.Fatalf("%s: %s %s", last.State, last.Reason, last.Message)
	}
	slot, err := os.ReadFile(m.loops[1])
	if err != nil || !bytes.Equal(slot[:len(image)], image) {
		t.Fatalf("the slot holds something else (%v)", err)
	}
	b := m.New(t)
	if boot, err := b.Boot(t.Context()); err != nil || boot != (firmware.Boot{Booted: "a", Default: "a"}) {
		t.Errorf("%+v, %v", boot, err)
	}
	if got := m.Boot(t); got != "a" {
		t.Errorf("%s was started before it was armed", got)
	}
	if err := m.New(t).Arm(t.Context(), "b", 3); err != nil {
		t.Fatal(err)
	}
	if got := m.Boot(t); got != "b" {
		t.Errorf("%s was started, and b was armed", got)
	}
}

// A bundle that somebody else has signed is not installed, whatever the release says of it.
func TestForeignBundle(t *testing.T) {
	m := newMachine(t)
	m.key(t, "stranger")
	last := m.update(t, m.bundle(t, "stranger", []byte(strings.Repeat("evil", 10_000))))
	if last.State != firmwarev1.WriteFailed || last.Reason != "NotInstalled" || !strings.Contains(last.Message, "signature") {
		t.Errorf("%s: %s %s", last.State, last.Reason, last.Message)
	}
}

// update tells a device to install a bundle, and returns its status when it has, or will not.
func (m *machine) update(t *testing.T, bundle []byte) firmwarev1.DeviceFirmwareStatus {
	t.Helper()
	makers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(bundle))
	}))
	defer makers.Close()
	sum := sha256.Sum256(bundle)
	return firmwaretest.Download(t, firmware.Config{Backend: m.New(t), Dir: filepath.Join(m.root, "journal"), HardwareID: "board", BootID: "boot"},
		&firmwarev1.Assignment{ID: "1", Release: "r", Version: "2", Counter: 2, Artifact: firmwarev1.Artifact{
			Name: "bundle", Type: firmwarev1.Bundle, URL: makers.URL, Size: int64(len(bundle)), SHA256: hex.EncodeToString(sum[:]),
		}}, time.Minute)
}

// A configuration that starts what is installed at once is refused, with what to do.
func TestSettings(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "system.conf")
	for text, fine := range map[string]bool{
		"[system]\nactivate-installed=false\n": true, "[system]\n activate-installed = false\n": true,
		"[system]\ncompatible=x\n": false, "[other]\nactivate-installed=false\n": false, "[system]\nactivate-installed=true\n": false,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := New(Config{Dir: dir, System: file})
		if fine != (err == nil) || err != nil && !strings.Contains(err.Error(), "activate-installed=false") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := New(Config{Dir: dir, System: filepath.Join(dir, "none")}); err == nil {
		t.Error("there is no RAUC, and a backend")
	}
}
