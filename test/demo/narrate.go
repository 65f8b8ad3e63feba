package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/shoal-edge/shoal/cmd/shoal/dev"
	"github.com/shoal-edge/shoal/test/scenario"
)

// narrator writes the story as it goes, and keeps what the table at the end needs.
type narrator struct {
	out     io.Writer
	start   time.Time
	results []result
	memory  []dev.Usage
}

func (n *narrator) say(format string, args ...any) { _, _ = fmt.Fprintf(n.out, format+"\n", args...) }

// pending shows a step that has begun, on a terminal only; row overwrites it.
func (n *narrator) pending(name string) {
	if f, ok := n.out.(*os.File); ok && terminal(f) {
		_, _ = fmt.Fprintf(n.out, "  ...     %s\r", name)
	}
}

func (n *narrator) row(r result, text string) {
	mark := "ok  "
	if r.err != nil {
		mark, text = "FAIL", r.err.Error()
	}
	n.results = append(n.results, r)
	n.say("%s %5.1fs  %-58s", mark, r.took.Seconds(), r.name)
	if text != "" {
		n.say("             %s", strings.ReplaceAll(text, "\n", "\n             "))
	}
}

func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// usage measures the processes while they still run.
func (n *narrator) usage(env *scenario.Env) error {
	memory, err := env.Lab.Usage()
	n.memory = memory
	return err
}

// summary is the table at the end.
func (n *narrator) summary() {
	n.say("\n%-28s %10s %10s", "memory of each shoal process", "RSS", "anonymous")
	for _, u := range n.memory {
		n.say("  %-26s %7.1f MB %7.1f MB", u.Device, float64(u.RSS)/1e6, float64(u.Anon)/1e6)
	}
	n.say("\nAll %d steps held, in %.1fs. Go on with: make dev   (the same cluster, yours until Ctrl-C)",
		len(n.results), time.Since(n.start).Seconds())
}

// evidence is what somebody who looks for the cause of a failed step reads first.
func (n *narrator) evidence(env *scenario.Env) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, args := range [][]string{
		{"get", "nodes,pods", "-A", "-o", "wide", "--request-timeout=4s"},
		{"get", "events", "-A", "--request-timeout=4s"},
	} {
		out, err := env.Kubectl(ctx, args...)
		n.say("\n$ kubectl %s", strings.Join(args, " "))
		if err != nil {
			n.say("%v", err)
		}
		n.say("%s", lastLines([]byte(out), 25))
	}
	for _, d := range env.Lab.Devices() {
		log, err := os.ReadFile(d.ShoalLog())
		if err != nil {
			log = []byte(err.Error())
		}
		n.say("\n== %s ==\n%s", d.ShoalLog(), lastLines(log, 15))
	}
}

func lastLines(text []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))
}
