package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// book is what is known of the cases: what people wrote down in cases.yaml, and what the runs noted in results.yaml.
type book struct {
	// Skip says why a case is not run: what of the outside world it needs. Why says why one fails.
	Skip map[string]string `json:"skip"`
	Why  map[string]string `json:"why"`

	root  string
	noted notes
}

// notes is results.yaml.
type notes struct {
	Runs  []noted           `json:"runs"`
	Cases map[string]result `json:"cases"`
}

// noted is one run of some of the cases.
type noted struct {
	Date  string `json:"date"`
	Focus string `json:"focus"`
	Tally string `json:"tally"`
}

// keptRuns is how many runs are listed.
const keptRuns = 12

func openBook(root string) (*book, error) {
	b := &book{root: root}
	text, err := os.ReadFile(b.path("cases.yaml"))
	if err != nil {
		return nil, err
	}
	if err := yaml.UnmarshalStrict(text, b); err != nil {
		return nil, fmt.Errorf("cases.yaml: %w", err)
	}
	if b.Skip == nil {
		b.Skip = map[string]string{}
	}
	text, err = os.ReadFile(b.path("results.yaml"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := yaml.UnmarshalStrict(text, &b.noted); err != nil {
		return nil, fmt.Errorf("results.yaml: %w", err)
	}
	if b.noted.Cases == nil {
		b.noted.Cases = map[string]result{}
	}
	return b, nil
}

func (b *book) path(file string) string { return filepath.Join(b.root, "test", "conformance", file) }

func (b *book) note(focus string, cases []result, t tally) {
	for _, c := range cases {
		b.noted.Cases[c.Name] = c
	}
	run := noted{
		Date: time.Now().UTC().Format(time.DateOnly), Focus: cmp.Or(focus, "everything"),
		Tally: fmt.Sprintf("%d passed, %d failed, %d skipped", t.passed, t.failed, t.skipped),
	}
	// The latest run of each focus.
	b.noted.Runs = slices.DeleteFunc(b.noted.Runs, func(r noted) bool { return r.Focus == run.Focus })
	b.noted.Runs = append([]noted{run}, b.noted.Runs...)
	b.noted.Runs = b.noted.Runs[:min(keptRuns, len(b.noted.Runs))]
}

// write saves the notes and the document. suite names all cases of the conformance suite.
func (b *book) write(suite []string) error {
	text, err := yaml.Marshal(b.noted)
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.path("results.yaml"), text, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.root, "docs", "conformance.md"), []byte(b.document(suite)), 0o644)
}

const preface = `# Conformance

%[1]s runs cases of Kubernetes' own end-to-end suite, built from the module
k8s.io/kubernetes %[2]s, against a cluster of a server and two agents with real containerds on one machine, built with CEL=1. This page is written by
that run: it shows how each case went when it was last run. Why a case fails or is skipped is written down in
test/conformance/cases.yaml; nothing else on this page is written by hand.

`

// document is docs/conformance.md.
func (b *book) document(suite []string) string {
	cases := b.cases()
	var w strings.Builder
	fmt.Fprintf(&w, preface, "`make conformance FOCUS='regexp'`", version)
	summary(&w, suite, cases)
	w.WriteString("\n## Latest runs\n\n| date | focus | result |\n|---|---|---|\n")
	for _, r := range b.noted.Runs {
		fmt.Fprintf(&w, "| %s | `%s` | %s |\n", r.Date, strings.ReplaceAll(r.Focus, "|", `\|`), r.Tally)
	}
	section(&w, "Failing cases", cases, failed, b.Why)
	section(&w, "Skipped cases", cases, skipped, b.Skip)
	return w.String()
}

// cases are those that ran, and those that are known to fail and were left out so far.
func (b *book) cases() map[string]result {
	all := maps.Clone(b.noted.Cases)
	for name := range b.Why {
		if _, ran := all[name]; !ran {
			all[name] = result{State: failed, Date: "left out"}
		}
	}
	return all
}

// version is the one that go.mod pins.
const version = "v1.37.2"

// summary counts the cases by the group that wrote them.
func summary(w *strings.Builder, suite []string, cases map[string]result) {
	type count struct{ all, passed, failed, skipped int }
	counts := map[string]*count{}
	for _, name := range suite {
		c := counts[group(name)]
		if c == nil {
			c = &count{}
			counts[group(name)] = c
		}
		c.all++
		switch cases[name].State {
		case passed:
			c.passed++
		case failed:
			c.failed++
		case skipped:
			c.skipped++
		}
	}
	w.WriteString("| group | cases | pass | fail | skipped | not run yet |\n|---|---|---|---|---|---|\n")
	for _, g := range slices.Sorted(maps.Keys(counts)) {
		c := counts[g]
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %d |\n", g, c.all, c.passed, c.failed, c.skipped, c.all-c.passed-c.failed-c.skipped)
	}
}

// section lists the cases of one state, each with why it is in it: what a person wrote, or else what the suite said.
func section(w *strings.Builder, title string, cases map[string]result, of state, why map[string]string) {
	fmt.Fprintf(w, "\n## %s\n\n", title)
	none := true
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		c := cases[name]
		if c.State != of {
			continue
		}
		none = false
		reason := why[name]
		if reason == "" {
			reason = "`" + strings.ReplaceAll(c.Message, "`", "'") + "`"
		}
		fmt.Fprintf(w, "- **%s** (%s): %s\n", name, c.Date, reason)
	}
	if none {
		w.WriteString("None.\n")
	}
}

// group is the part in brackets at a name's start.
func group(name string) string {
	if g, _, ok := strings.Cut(strings.TrimPrefix(name, "["), "]"); ok && strings.HasPrefix(name, "[") {
		return g
	}
	return "other"
}
