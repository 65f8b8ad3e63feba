package firmware

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/shoal-edge/shoal/durable"
)

// Artifacts is a folder with artifacts that were brought to a site, each in a file that is named by its SHA-256. The device that has it
// takes them from there, and gives them to its neighbours. Empty: there is none.
type Artifacts string

// ErrContent says that a file is not what its name, or a release, says.
var ErrContent = errors.New("it has other content")

// named reports whether a name is that of an artifact, and not of another file.
func named(sum string) bool {
	return len(sum) == 2*sha256.Size && strings.Trim(sum, "0123456789abcdef") == ""
}

// Add copies an artifact into the folder, if it is the one with that length and SHA-256. After a power cut it is there whole or not at all.
func (a Artifacts) Add(sum string, size int64, from io.Reader) error {
	if !named(sum) {
		return fmt.Errorf("%q is not a SHA-256 of 64 lower-case hexadecimal digits", sum)
	}
	if err := os.MkdirAll(string(a), 0o755); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(string(a), sum), 0o644, func(w io.Writer) error {
		have := sha256.New()
		n, err := io.Copy(io.MultiWriter(w, have), io.LimitReader(from, size+1))
		if err != nil {
			return err
		}
		if got := hex.EncodeToString(have.Sum(nil)); n != size || got != sum {
			return fmt.Errorf("%w: %d bytes or more with SHA-256 %s, and the release says %d with %s", ErrContent, n, got, size, sum)
		}
		return nil
	})
}

// Has reports whether an artifact is in the folder.
func (a Artifacts) Has(ctx context.Context, sum string) bool {
	_, err := a.Size(ctx, "sha256:"+sum)
	return err == nil
}

// Size is the length of an artifact; the digest is sha256:...
func (a Artifacts) Size(_ context.Context, digest string) (int64, error) {
	if a == "" || !named(strings.TrimPrefix(digest, "sha256:")) {
		return 0, os.ErrNotExist
	}
	stat, err := os.Stat(a.path(digest))
	if err != nil {
		return 0, err
	}
	return stat.Size(), nil
}

// Copy writes an artifact, from an offset on.
func (a Artifacts) Copy(_ context.Context, w io.Writer, digest string, offset int64) error {
	file, err := a.part(strings.TrimPrefix(digest, "sha256:"), offset, toEnd)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, file)
	return errors.Join(err, file.Close())
}

func (a Artifacts) path(digest string) string {
	return filepath.Join(string(a), strings.TrimPrefix(digest, "sha256:"))
}

// Open opens an artifact.
func (a Artifacts) Open(sum string) (io.ReadCloser, error) { return a.part(sum, 0, toEnd) }

// part opens an artifact from one offset up to another, or to its end.
func (a Artifacts) part(sum string, from, to int64) (io.ReadCloser, error) {
	if !named(sum) {
		return nil, os.ErrNotExist
	}
	file, err := os.Open(a.path(sum))
	if err != nil {
		return nil, err
	}
	if to == toEnd {
		to = 1<<63 - 1
	}
	return part{io.NewSectionReader(file, from, to-from), file}, nil
}

type part struct {
	io.Reader
	io.Closer
}
