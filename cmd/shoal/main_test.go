package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shoal runs one command line and returns its exit status and output.
func shoal(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, &out, &err)
	return code, out.String(), err.String()
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"--help"},
		{"server", "--help"},
		{"agent", "--help"},
		{"token"},
		{"token", "create", "--help"},
		{"dev", "--help"},
		{"secrets"},
		{"secrets", "rotate-key", "--help"},
		{"completion", "bash"},
		{"completion", "zsh"},
		{"version"},
	} {
		code, stdout, stderr := shoal(t, args...)
		if code != 0 || len(stdout) < 20 || stderr != "" {
			t.Errorf("shoal %v: exit %d, %d bytes, stderr %q", args, code, len(stdout), stderr)
		}
	}
}

func TestVersionJSON(t *testing.T) {
	code, stdout, _ := shoal(t, "version", "-o", "json")
	var v map[string]string
	if err := json.Unmarshal([]byte(stdout), &v); code != 0 || err != nil || v["version"] == "" || v["kubernetes"] == "" {
		t.Errorf("exit %d, %v: %s", code, err, stdout)
	}
}

func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	data := filepath.Join(dir, "data")
	lonely := write("lonely.yaml", "nodeName: a\ndataDir: "+data+"\n")
	badToken := write("token.yaml", "nodeName: a\ndataDir: "+data+"\njoin: {servers: ['127.0.0.1:1'], token: shoal1.x}\n")
	unknown := write("unknown.yaml", "nodename: a\n")
	notKubeconfig := write("kube", "current-context: x\n")

	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"servr"}, 1, "server"},
		{[]string{"server", "--confg", "x"}, 2, "see 'shoal server --help'"},
		{[]string{"server", "extra"}, 1, "extra"},
		{[]string{"server", "--config", filepath.Join(dir, "none.yaml")}, 1, "none.yaml"},
		{[]string{"agent", "--config", unknown}, 1, `unknown.yaml:1: unknown key "nodename"; did you mean "nodeName"?`},
		{[]string{"agent", "--config", lonely}, 1, "set join.servers and join.token"},
		{[]string{"witness", "--config", lonely}, 1, "this witness has not joined a cluster yet: set join.servers"},
		{[]string{"agent", "--config", badToken}, 1, "join.token: the join token is malformed"},
		{[]string{"token", "create", "--role", "king"}, 2, "use agent, server or witness"},
		{[]string{"token", "create", "--kubeconfig", filepath.Join(dir, "none")}, 1, "name one with --kubeconfig or KUBECONFIG"},
		{[]string{"token", "list", "--kubeconfig", notKubeconfig}, 1, `there is no context "x"`},
		{[]string{"token", "list", "-o", "xml"}, 2, "use json"},
		{[]string{"secrets", "status", "-o", "xml"}, 2, "use json"},
		{[]string{"secrets", "rotate-key", "--kubeconfig", filepath.Join(dir, "none")}, 1, "name one with --kubeconfig or KUBECONFIG"},
		{[]string{"version", "-o", "xml"}, 2, "use json"},
	} {
		code, _, stderr := shoal(t, tc.args...)
		if code != tc.code || !strings.Contains(stderr, tc.want) {
			t.Errorf("shoal %s: exit %d, %q; want %d and %q", strings.Join(tc.args, " "), code, stderr, tc.code, tc.want)
		}
	}
}
