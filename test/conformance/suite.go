package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2/types"
	"sigs.k8s.io/yaml"
)

// suite is the built upstream suite: .build/conformance/e2e.test.
type suite struct {
	options
	build string
}

// state is how a case went.
type state string

const (
	passed  state = "passed"
	failed  state = "failed"
	skipped state = "skipped"
)

// result is one case's.
type result struct {
	Name string `json:"-"`
	// State is how it went on Date, Message the first line of what the suite said of it if it did not pass.
	State   state  `json:"state"`
	Date    string `json:"date"`
	Message string `json:"message,omitempty"`
}

// list names all cases of the conformance suite.
func (s *suite) list(ctx context.Context) ([]string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.build, "e2e.test"), "-list-conformance-tests")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the suite's cases: %w", err)
	}
	var tests []struct {
		Codename string `json:"codename"`
	}
	if err := yaml.Unmarshal(out, &tests); err != nil {
		return nil, fmt.Errorf("list the suite's cases: %w", err)
	}
	names := make([]string, len(tests))
	for i, t := range tests {
		names[i] = t.Codename
	}
	return names, nil
}

// run runs the cases in focus but for those named in skip and, if only new ones are wanted, those known to fail. What the suite prints goes to suite.log, a line per case to standard output.
func (s *suite) run(ctx context.Context, skip, known map[string]string) ([]result, error) {
	focus, err := regexp.Compile(s.focus)
	if err != nil {
		return nil, fmt.Errorf("-focus: %w", err)
	}
	leave := maps.Clone(skip)
	if s.fresh {
		maps.Copy(leave, known)
	}
	report := filepath.Join(s.build, "report.json")
	if err := os.RemoveAll(report); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(s.build, "suite.log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(filepath.Join(s.build, "ginkgo"), s.arguments(leave)...)
	cmd.Dir = s.build
	cmd.Stdout = io.MultiWriter(log, &progress{})
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the suite: %w", err)
	}
	// Interrupted, the suite still cleans up and writes its report.
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(os.Interrupt) })()
	ended := cmd.Wait() // a failed case is an error too: the report tells
	results, err := read(report, focus, skip)
	if err != nil {
		return nil, fmt.Errorf("the suite (%w) left no report: %w; see %s", ended, err, log.Name())
	}
	return results, nil
}

// arguments are those of ginkgo, which runs several processes of the suite: most of a case's time is waiting.
func (s *suite) arguments(skip map[string]string) []string {
	args := []string{
		"-procs=" + strconv.Itoa(s.procs), "-focus=" + s.focus, "-timeout=" + s.timeout.String(),
		"-output-dir=" + s.build, "-json-report=report.json", "-no-color", "-v", "-keep-going",
	}
	if !s.all {
		args = append(args, "-label-filter=Conformance")
	}
	for name := range skip {
		args = append(args, "-skip="+regexp.QuoteMeta(name))
	}
	return append(args, filepath.Join(s.build, "e2e.test"), "--",
		"-kubeconfig="+s.kubeconfig,
		"-kubectl-path="+filepath.Join(s.root, "bin", "kubectl"),
		"-provider=skeleton",
		"-disable-log-dump",
		"-e2e-output-dir="+s.build,
	)
}

// read takes from the suite's report the cases that ran, those that said themselves that they cannot, and those of skip in focus.
func read(file string, focus *regexp.Regexp, skip map[string]string) ([]result, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var reports []types.Report
	if err := json.Unmarshal(data, &reports); err != nil {
		return nil, err
	}
	today := time.Now().UTC().Format(time.DateOnly)
	var results []result
	for _, report := range reports {
		for _, spec := range report.SpecReports {
			r := result{Name: spec.FullText(), Date: today, Message: firstLine(spec.Failure.Message)}
			reason, named := skip[r.Name]
			switch {
			case named && focus.MatchString(r.Name):
				r.State, r.Message = skipped, reason
			case spec.State.Is(types.SpecStatePassed):
				r.State = passed
			case spec.State.Is(types.SpecStateFailureStates):
				r.State = failed
			case spec.State.Is(types.SpecStateSkipped) && r.Message != "": // left out by the focus: without a message
				r.State = skipped
			default:
				continue
			}
			if spec.LeafNodeType != types.NodeTypeIt {
				if r.State == failed {
					return nil, fmt.Errorf("%s: %s", spec.LeafNodeType, spec.Failure.Message)
				}
				continue
			}
			results = append(results, r)
		}
	}
	return results, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(line)
}

// progress passes on the lines that tell how a case went.
type progress struct{ rest []byte }

func (p *progress) Write(data []byte) (int, error) {
	p.rest = append(p.rest, data...)
	for {
		line, rest, ok := bytes.Cut(p.rest, []byte("\n"))
		if !ok {
			return len(data), nil
		}
		p.rest = rest
		if text := string(bytes.TrimSpace(line)); strings.HasPrefix(text, "• [") || strings.HasPrefix(text, "[FAIL] [") {
			fmt.Println(text)
		}
	}
}
