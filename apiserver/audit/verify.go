package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// Summary is what a verified log holds.
type Summary struct {
	Files   int       `json:"files"`
	Lines   int       `json:"lines"`
	First   time.Time `json:"first,omitzero"`
	Last    time.Time `json:"last,omitzero"`
	Dropped uint64    `json:"dropped"` // events that the log itself says are missing
	Torn    int       `json:"torn"`    // lines that a power cut left unfinished
	// Anchor is what the oldest line says of the line before it, which is gone by rotation; empty if it is the first of all.
	Anchor string `json:"anchor,omitempty"`
	// Head is the hash of the last line. Whoever keeps it elsewhere can tell later that no line was taken off the end.
	Head string `json:"head"`
}

// Verify reads a log with its older files, from the oldest on, and checks that each line follows the one before it. The error names
// the first line that does not.
func Verify(path string) (*Summary, error) {
	files := []string{path}
	for n := 1; ; n++ {
		name := old(path, n)
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			break
		}
		files = append([]string{name}, files...)
	}
	s := &Summary{}
	for _, name := range files {
		if err := s.read(name); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *Summary) read(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	s.Files++
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		if err := s.take(lines.Bytes()); err != nil {
			return fmt.Errorf("%s, line %d: %w", name, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (s *Summary) take(line []byte) error {
	var e Event
	decoder := json.NewDecoder(bytes.NewReader(line))
	if err := decoder.Decode(&e); err != nil {
		return fmt.Errorf("it is no event: %w", err)
	}
	previous := e.Annotations[annotationPrevious]
	switch {
	case s.Lines == 0:
		s.Anchor, s.First = previous, e.StageTime.Time
	case previous != s.Head:
		return errors.New("it does not follow the line before it: one of them was changed, or lines were taken out or put in")
	}
	if text := e.Annotations[annotationDropped]; text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fmt.Errorf("the number of dropped events is %q", text)
		}
		s.Dropped += n
	}
	if e.Annotations[annotationTorn] != "" {
		s.Torn++
	}
	s.Lines++
	s.Last, s.Head = e.StageTime.Time, hash(line)
	return nil
}
