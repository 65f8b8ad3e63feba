package volume

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// file is one file of a volume that the agent writes.
type file struct {
	data []byte
	mode fs.FileMode
}

// replaceAll makes a folder hold exactly these files, in one step for whoever reads them: the files are in a folder of
// their own, the link ..data names it, and the files' names are links through ..data. It is kubelet's layout, which
// programs that watch their configuration know.
func replaceAll(dir string, files map[string]file, group *int64) error {
	data := filepath.Join(dir, "..data")
	old, _ := os.Readlink(data) // none at first
	if old != "" && same(filepath.Join(dir, old), files) {
		return nil
	}
	fresh, err := os.MkdirTemp(dir, "..shoal-")
	if err != nil {
		return err
	}
	if err := fill(fresh, files, group); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	link := filepath.Join(dir, "..data_tmp")
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Base(fresh), link); err != nil {
		return err
	}
	if err := os.Rename(link, data); err != nil {
		return err
	}
	return errors.Join(linkTop(dir, files), clean(dir, filepath.Base(fresh), files))
}

func same(dir string, files map[string]file) bool {
	count := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		count++
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		want, ok := files[name]
		if !ok {
			return fs.ErrNotExist
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		have, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if info.Mode().Perm() != want.mode || !bytes.Equal(have, want.data) {
			return fs.ErrInvalid
		}
		return nil
	})
	return err == nil && count == len(files)
}

func fill(dir string, files map[string]file, group *int64) error {
	if err := own(dir, 0o755, group); err != nil {
		return err
	}
	for name, f := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.data, f.mode); err != nil {
			return err
		}
		if err := own(path, f.mode, group); err != nil {
			return err
		}
	}
	return nil
}

// own sets the mode in spite of the umask, and the group.
func own(path string, mode fs.FileMode, group *int64) error {
	if group != nil {
		if err := os.Chown(path, -1, int(*group)); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// linkTop links the first part of each name through ..data.
func linkTop(dir string, files map[string]file) error {
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		err := os.Symlink(filepath.Join("..data", top), filepath.Join(dir, top))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// clean removes what belongs to earlier contents.
func clean(dir, fresh string, files map[string]file) error {
	top := map[string]bool{"..data": true, fresh: true}
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		top[first] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !top[e.Name()] {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
