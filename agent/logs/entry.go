// Package logs owns the log files of containers in the format of the Container Runtime Interface: parsing, reading the
// tail, following without polling, rotation.
package logs

import (
	"bytes"
	"fmt"
	"time"
)

// Entry is one line of a log file, or a part of a line when Partial.
type Entry struct {
	Time    time.Time
	Stream  string // stdout or stderr
	Partial bool
	// Text ends with a newline unless Partial.
	Text []byte
}

// Parse parses one line, with or without its newline: "2016-10-06T00:17:09.669794202Z stdout F text". Text shares memory
// with line.
func Parse(line []byte) (Entry, error) {
	whole := bytes.HasSuffix(line, []byte("\n"))
	stamp, rest, ok1 := bytes.Cut(line, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tags, text, ok3 := bytes.Cut(rest, []byte(" "))
	if !ok1 || !ok2 || !ok3 {
		return Entry{}, fmt.Errorf("not a line of a container log: %.80q", line)
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return Entry{}, fmt.Errorf("not a line of a container log: %.80q: %w", line, err)
	}
	if s := string(stream); s != "stdout" && s != "stderr" {
		return Entry{}, fmt.Errorf("not a line of a container log: stream %.20q", s)
	}
	tag, _, _ := bytes.Cut(tags, []byte(":"))
	e := Entry{Time: at, Stream: string(stream), Partial: string(tag) == "P", Text: text}
	if e.Partial && whole {
		e.Text = text[:len(text)-1]
	}
	return e, nil
}
