package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-edge/shoal/apiserver/audit"
)

func TestAuditVerify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(audit.Config{File: path})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		log.Record(&audit.Event{Verb: "get"})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = log.Run(ctx)
	if code, stdout, stderr := shoal(t, "audit", "verify", path); code != 0 || !strings.Contains(stdout, "3 lines in 1 files hold together") {
		t.Errorf("%d %s %s", code, stdout, stderr)
	}
	data, _ := os.ReadFile(path)
	if err := os.WriteFile(path, []byte(strings.Replace(string(data), `"verb":"get"`, `"verb":"put"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := shoal(t, "audit", "verify", path); code != 1 || !strings.Contains(stderr, "line 2: it does not follow the line before it") {
		t.Errorf("%d %s", code, stderr)
	}
	if code, _, _ := shoal(t, "audit", "verify"); code == 0 {
		t.Error("no file was verified")
	}
}
