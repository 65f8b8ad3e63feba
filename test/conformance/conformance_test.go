package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const report = `[{"SpecReports": [
  {"ContainerHierarchyTexts": ["[sig-a]"], "LeafNodeText": "good", "LeafNodeType": "It", "State": "passed"},
  {"ContainerHierarchyTexts": ["[sig-a]"], "LeafNodeText": "bad", "LeafNodeType": "It", "State": "failed", "Failure": {"Message": "no\nmore"}},
  {"ContainerHierarchyTexts": ["[sig-a]"], "LeafNodeText": "slow", "LeafNodeType": "It", "State": "timedout", "Failure": {"Message": "late"}},
  {"ContainerHierarchyTexts": ["[sig-a]"], "LeafNodeText": "cannot", "LeafNodeType": "It", "State": "skipped", "Failure": {"Message": "wants two zones"}},
  {"ContainerHierarchyTexts": ["[sig-a]"], "LeafNodeText": "named", "LeafNodeType": "It", "State": "skipped"},
  {"ContainerHierarchyTexts": ["[sig-b]"], "LeafNodeText": "out of focus", "LeafNodeType": "It", "State": "skipped"},
  {"ContainerHierarchyTexts": null, "LeafNodeText": "", "LeafNodeType": "SynchronizedBeforeSuite", "State": "passed"}
]}]`

func TestRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.json")
	skip := map[string]string{"[sig-a] named": "wants the outside world", "[sig-b] other": "too"}
	parse := func(text string) ([]result, error) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return read(file, regexp.MustCompile("sig-a"), skip)
	}
	got, err := parse(report)
	if err != nil {
		t.Fatal(err)
	}
	want := []result{
		{Name: "[sig-a] good", State: passed},
		{Name: "[sig-a] bad", State: failed, Message: "no"},
		{Name: "[sig-a] slow", State: failed, Message: "late"},
		{Name: "[sig-a] cannot", State: skipped, Message: "wants two zones"},
		{Name: "[sig-a] named", State: skipped, Message: "wants the outside world"},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(result{}, "Date")); diff != "" {
		t.Error(diff)
	}
	unprepared := strings.Replace(report, `"LeafNodeType": "SynchronizedBeforeSuite", "State": "passed"`,
		`"LeafNodeType": "SynchronizedBeforeSuite", "State": "failed", "Failure": {"Message": "no nodes"}`, 1)
	if _, err := parse(unprepared); err == nil || !strings.Contains(err.Error(), "no nodes") {
		t.Errorf("a suite that did not start: %v", err)
	}
}

func TestDocument(t *testing.T) {
	b := &book{Why: map[string]string{"[sig-a] bad": "To come.", "[sig-b] never": "Needs much."}, noted: notes{Cases: map[string]result{}}}
	b.note("sig-a|sig-b", []result{
		{Name: "[sig-a] good", State: passed},
		{Name: "[sig-a] bad", State: failed, Date: "2026-01-02", Message: "no"},
		{Name: "[sig-b] worse", State: failed, Date: "2026-01-02", Message: "it `broke`"},
	}, tally{passed: 1, failed: 2})
	text := b.document([]string{"[sig-a] good", "[sig-a] bad", "[sig-a] new", "[sig-b] worse", "[sig-b] never"})
	for _, part := range []string{
		"| sig-a | 3 | 1 | 1 | 0 | 1 |", "| sig-b | 2 | 0 | 2 | 0 | 0 |", "| `sig-a\\|sig-b` | 1 passed, 2 failed, 0 skipped |",
		"- **[sig-b] never** (left out): Needs much.",
		"- **[sig-a] bad** (2026-01-02): To come.", "- **[sig-b] worse** (2026-01-02): `it 'broke'`", "## Skipped cases\n\nNone.",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in\n%s", part, text)
		}
	}
}
