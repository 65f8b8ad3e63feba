package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// maxLine bounds one line in memory; containerd splits what the container writes at 16 KiB.
const maxLine = 64 << 10

// Options of Read, as `kubectl logs` has them.
type Options struct {
	Follow bool
	// Tail is how many lines from the end; negative: all.
	Tail       int64
	Since      time.Time
	Timestamps bool
	// LimitBytes ends the output after that many bytes; 0: no limit.
	LimitBytes int64
	// Stream is stdout or stderr; empty: both.
	Stream string
	// Ended, with Follow, is closed when the container has ended and writes no more.
	Ended <-chan struct{}
}

// Read copies a log file to w until its end, or with Follow until the container ends or ctx does.
func Read(ctx context.Context, file string, w io.Writer, o Options) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	r := &reader{file: f, in: bufio.NewReaderSize(f, 16<<10), out: w, o: o, left: o.LimitBytes}
	defer func() { _ = r.file.Close() }()
	if o.Tail >= 0 {
		offset, err := tailOffset(f, o.Tail)
		if err != nil {
			return fmt.Errorf("log: %w", err)
		}
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			return fmt.Errorf("log: %w", err)
		}
	}
	if !o.Follow {
		err = r.copy()
	} else {
		err = r.follow(ctx, file)
	}
	if errors.Is(err, errLimit) || ctx.Err() != nil {
		return nil
	}
	return err
}

var errLimit = errors.New("limit reached")

type reader struct {
	file *os.File
	in   *bufio.Reader
	out  io.Writer
	o    Options
	left int64
	// part is a line that the container runtime has not finished writing.
	part []byte
	// continued: the last entry was partial, so the next one of its stream carries no timestamp.
	continued bool
}

// copy writes what the file has now.
func (r *reader) copy() error {
	for {
		line, err := r.in.ReadSlice('\n')
		r.part = append(r.part, line...)
		switch {
		case err == nil || errors.Is(err, bufio.ErrBufferFull) && len(r.part) > maxLine:
			if err := r.entry(r.part); err != nil {
				return err
			}
			r.part = r.part[:0]
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil
		default:
			return fmt.Errorf("log: %w", err)
		}
	}
}

func (r *reader) entry(line []byte) error {
	e, err := Parse(line)
	if err != nil {
		return nil //nolint:nilerr // a line that a power cut left half written is no reason to hide the others
	}
	if e.Time.Before(r.o.Since) || r.o.Stream != "" && e.Stream != r.o.Stream {
		return nil
	}
	if r.o.Timestamps && !r.continued {
		if err := r.write(append([]byte(e.Time.Format(time.RFC3339Nano)), ' ')); err != nil {
			return err
		}
	}
	r.continued = e.Partial
	return r.write(e.Text)
}

func (r *reader) write(data []byte) error {
	if r.o.LimitBytes > 0 && int64(len(data)) >= r.left {
		if _, err := r.out.Write(data[:r.left]); err != nil {
			return err
		}
		return errLimit
	}
	r.left -= int64(len(data))
	_, err := r.out.Write(data)
	return err
}

// follow writes what the file has and gets, woken by the kernel's notices of writes.
func (r *reader) follow(ctx context.Context, file string) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	defer func() { _ = watcher.Close() }()
	// The folder is watched, not the file: after a rotation the name belongs to another file.
	if err := watcher.Add(filepath.Dir(file)); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	for {
		if err := r.copy(); err != nil {
			return err
		}
		if flusher, ok := r.out.(interface{ Flush() }); ok {
			flusher.Flush()
		}
		if err := r.next(ctx, watcher, file); err != nil {
			if errors.Is(err, io.EOF) {
				return r.copy()
			}
			return err
		}
	}
}

// next returns when there may be more to read; io.EOF when the container has ended.
func (r *reader) next(ctx context.Context, watcher *fsnotify.Watcher, file string) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.o.Ended:
			return io.EOF
		case err := <-watcher.Errors:
			return fmt.Errorf("log: %w", err)
		case e := <-watcher.Events:
			if filepath.Clean(e.Name) != filepath.Clean(file) {
				continue
			}
			if !e.Has(fsnotify.Create) {
				return nil
			}
			if err := r.copy(); err != nil { // the rest of the rotated file
				return err
			}
			f, err := os.Open(file)
			if err != nil {
				return fmt.Errorf("log: %w", err)
			}
			_ = r.file.Close()
			r.file, r.part = f, r.part[:0]
			r.in.Reset(f)
			return nil
		}
	}
}

// tailOffset is where the last n lines of a file begin.
func tailOffset(f *os.File, n int64) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end := info.Size()
	if n == 0 {
		return end, nil
	}
	buf := make([]byte, 16<<10)
	lines := int64(0)
	for at := end; at > 0; {
		size := min(at, int64(len(buf)))
		at -= size
		if _, err := f.ReadAt(buf[:size], at); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		part := buf[:size]
		for {
			i := bytes.LastIndexByte(part, '\n')
			if i < 0 {
				break
			}
			part = part[:i]
			if at+int64(i) == end-1 {
				continue // the newline of the last line
			}
			if lines++; lines == n {
				return at + int64(i) + 1, nil
			}
		}
	}
	return 0, nil
}
