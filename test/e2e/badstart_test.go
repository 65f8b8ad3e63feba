package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/scenario"
)

// badStart starts shoal on a device in ways that cannot work: each ends soon, with one line that says what to do.
func badStart(t *testing.T, env *scenario.Env) {
	on, err := env.Lab.Device("agent-2")
	if err != nil {
		t.Fatal(err)
	}
	first := env.Lab.Devices()[0]
	shoal := filepath.Join(env.Bin, "shoal")
	scratch := filepath.Join(on.Dir, "scratch")
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		t.Fatal(err)
	}
	token := createToken(t, env, "agent")
	expired := createToken(t, env, "agent", "--ttl", "1s")
	time.Sleep(1200 * time.Millisecond) // the token's whole life
	join := func(token string) string {
		return fmt.Sprintf("join: {servers: ['%s:6443'], token: '%s'}\n", first.Address, token)
	}
	for _, tc := range []struct {
		name, role, file string
		prepare          func(dir string) error
		want             []string // each in the one line
	}{
		{name: "unknown key", role: "agent", file: "agent: {heartbeet: 1s}\n", want: []string{"config.yaml:", `did you mean "heartbeat"`}},
		{name: "no such token", role: "agent", file: join("not-a-token"), want: []string{"join token is malformed"}},
		{name: "forged token", role: "agent", file: join(forge(token, 2)), want: []string{"join token is not known"}},
		{name: "token of another cluster", role: "agent", file: join(forge(token, 0)), want: []string{"belongs to another cluster"}},
		{name: "expired token", role: "agent", file: join(expired), want: []string{"join token has expired"}},
		{name: "agent's token for a server", role: "server", file: join(token), want: []string{"join token is for another role"}},
		{name: "missing containerd", role: "agent", file: join(token) + "agent: {containerd: /run/nothing.sock}\n", want: []string{"/run/nothing.sock", "agent.containerd"}},
		{name: "busy port", role: "server", file: fmt.Sprintf("server: {listen: '%s:22222'}\n", on.Address), want: []string{"22222", "in use"}},
		{name: "corrupt data folder", role: "server", file: "server: {listen: '127.0.0.1:22223'}\n", prepare: func(dir string) error { return corrupt(first.Data, dir) }, want: []string{filepath.Join(scratch, "corrupt-data-folder", "data", "pki"), "from a copy"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(scratch, strings.ReplaceAll(tc.name, " ", "-"))
			if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
				t.Fatal(err)
			}
			if tc.prepare != nil {
				if err := tc.prepare(filepath.Join(dir, "data")); err != nil {
					t.Fatal(err)
				}
			}
			if tc.name == "busy port" {
				stop := occupy(t, on.Command(context.Background(), "busybox", "httpd", "-f", "-p", on.Address+":22222"))
				defer stop()
			}
			file := filepath.Join(dir, "config.yaml")
			text := fmt.Sprintf("nodeName: scratch\ndataDir: %s\nadvertiseAddress: %s\n%s", filepath.Join(dir, "data"), on.Address, tc.file)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			line := refused(t, on.Command, shoal, tc.role, file)
			for _, want := range tc.want {
				if !strings.Contains(line, want) {
					t.Errorf("said %q, want %q", line, want)
				}
			}
		})
	}
	t.Run("taken data folder", func(t *testing.T) {
		line := refused(t, first.Command, shoal, "server", filepath.Join(first.Dir, "server.yaml"))
		if !strings.Contains(line, first.Data) {
			t.Errorf("said %q, want %q", line, first.Data)
		}
	})
}

// refused runs shoal, which has to end with a status and one last line of its own.
func refused(t *testing.T, command func(context.Context, string, ...string) *exec.Cmd, shoal, role, file string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := command(ctx, shoal, role, "--config", file).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() < 1 {
		t.Fatalf("ended with %v (%v):\n%s", err, ctx.Err(), out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	last := lines[len(lines)-1]
	if !strings.HasPrefix(last, "shoal: ") {
		t.Errorf("the last line does not start with its name: %s", out)
	}
	return last
}

func occupy(t *testing.T, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// corrupt copies a server's data folder and overwrites the keys in it: what else is damaged there mends itself.
func corrupt(from, to string) error {
	if out, err := exec.Command("cp", "-a", from+"/.", to).CombinedOutput(); err != nil { // there is a socket in it
		return fmt.Errorf("%w: %s", err, out)
	}
	spoiled := 0
	err := filepath.WalkDir(to, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".key" {
			return err
		}
		spoiled++
		return os.WriteFile(path, bytes.Repeat([]byte("this is not a key"), 1000), 0o600)
	})
	if err == nil && spoiled == 0 {
		return fmt.Errorf("no key in %s", from)
	}
	return err
}

// forge changes a character of a token's CA hash (0) or secret (2).
func forge(token string, part int) string {
	fields := strings.Split(token, ".")
	text := []byte(fields[part+1])
	if text[0] == 'a' {
		text[0] = 'b'
	} else {
		text[0] = 'a'
	}
	fields[part+1] = string(text)
	return strings.Join(fields, ".")
}

func createToken(t *testing.T, env *scenario.Env, role string, more ...string) string {
	t.Helper()
	args := append([]string{"token", "create", "--role", role, "--kubeconfig", env.Lab.Kubeconfig()}, more...)
	out, err := exec.CommandContext(t.Context(), filepath.Join(env.Bin, "shoal"), args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
