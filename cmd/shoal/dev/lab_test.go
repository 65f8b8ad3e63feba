package dev

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/need"
)

// TestMain lets the test binary play the part of a lab's owner that is killed.
func TestMain(m *testing.M) {
	if name := os.Getenv("SHOAL_LAB_TO_KILL"); name != "" {
		ownLab(name)
	}
	os.Exit(m.Run())
}

func ownLab(name string) {
	lab, err := New(Config{Name: name, Subnet: 201, Agents: 1, WithoutShoal: true})
	if err == nil {
		err = lab.Start(context.Background())
	}
	fmt.Println("started", err)
	select {}
}

func needLab(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("makes namespaces")
	}
	need.Root(t)
	need.Command(t, "containerd")
}

// held names what of a lab is on the machine.
func held(t *testing.T, name string) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{filepath.Join(dataRoot, name), stateFile(name), "/sys/fs/cgroup" + cgroupOf(name), "/sys/fs/cgroup/*" + cgroupOf(name)} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, matches...)
	}
	if _, err := net.InterfaceByName(linkOf(name)); err == nil {
		found = append(found, "link "+linkOf(name))
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, filepath.Join(dataRoot, name)) {
			found = append(found, "mount "+line)
		}
	}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if line, err := os.ReadFile(f); err == nil && strings.Contains(string(line), filepath.Join(dataRoot, name)+"/") {
			found = append(found, f+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

func TestLab(t *testing.T) {
	needLab(t)
	ctx := t.Context()
	lab, err := New(Config{Name: "labtest", Subnet: 200, Agents: 2, WithoutShoal: true, Images: greeter("pulled")})
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Start(ctx); err != nil {
		t.Fatal(err, lab.Close())
	}
	closed := false
	defer func() {
		if !closed {
			_ = lab.Close()
		}
	}()
	if _, err := New(Config{Name: "labtest", Subnet: 200}); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("a second lab of the same name: %v", err)
	}
	one, two := lab.Devices()[0], lab.Devices()[1]
	if out, err := one.Command(ctx, "ctr", "version").CombinedOutput(); err != nil {
		t.Fatalf("containerd of %s: %v\n%s", one.Name, err, out)
	}
	if got, err := fetch(ctx, lab, one, lab.registryAddress()); err != nil || got != "pulled" {
		t.Fatalf("device to registry: %q, %v", got, err)
	}
	// A process on the other device, and its network cut and restored.
	listener := make(chan error, 1)
	cmd := two.Command(ctx, "busybox", "httpd", "-f", "-p", "7")
	go func() { listener <- cmd.Run() }()
	reach := func() error {
		limited, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		conn, err := lab.Dial(limited, one, "tcp", two.Address+":7")
		if err != nil {
			return err
		}
		return conn.Close()
	}
	if err := wait(ctx, reach); err != nil {
		t.Fatal(err)
	}
	if err := lab.Cut(ctx, two); err != nil {
		t.Fatal(err)
	}
	if reach() == nil {
		t.Error("a cut device answers")
	}
	if err := lab.Restore(ctx, two); err != nil {
		t.Fatal(err)
	}
	if err := wait(ctx, reach); err != nil {
		t.Fatal(err)
	}
	if err := lab.TakeAway(two); err != nil {
		t.Fatal(err)
	}
	select {
	case <-listener:
	case <-time.After(10 * time.Second):
		t.Fatal("a process of a device that was taken away lives on")
	}
	if err := lab.boot(ctx, two); err != nil {
		t.Fatalf("bring back: %v", err)
	}
	if len(held(t, "labtest")) == 0 {
		t.Error("the check for leftovers sees nothing of a running lab")
	}
	closed = true
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	if left := held(t, "labtest"); len(left) > 0 {
		t.Fatalf("left behind: %q", left)
	}
}

func TestLabAfterKill(t *testing.T) {
	needLab(t)
	const name = "labkill"
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), "SHOAL_LAB_TO_KILL="+name)
	stdout, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "started <nil>\n" {
		t.Errorf("owner: %q, %v", line, err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	lab, err := New(Config{Name: name, Subnet: 201, Agents: 1, WithoutShoal: true})
	if err != nil {
		t.Fatal(err)
	}
	if left := held(t, name); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
}

// An init's pid that now belongs to another process must not be killed.
func TestHolderOfAnotherProcess(t *testing.T) {
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	if err := (holder{Name: "x", PID: other.Process.Pid, Start: "1"}).end(); err != nil {
		t.Fatal(err)
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatalf("killed a process that the lab did not start: %v", err)
	}
}

func TestSerialPort(t *testing.T) {
	s, err := newSerialPort()
	if err != nil {
		need.Missing(t, "no pseudo-terminals here: %v", err)
	}
	defer func() { _ = s.Close() }()
	line, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = line.Close() }()
	got, err := bufio.NewReader(line).ReadString('\n')
	if err != nil || !strings.HasPrefix(got, "temperature=") {
		t.Fatalf("got %q, %v", got, err)
	}
}

func greeter(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
}

func fetch(ctx context.Context, lab *Lab, from *Device, address string) (string, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return lab.Dial(ctx, from, network, address)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return string(body), err
}
