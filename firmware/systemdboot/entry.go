package systemdboot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/durable"
)

// entry is a boot loader entry of a slot, as its file's name and its version say.
type entry struct {
	file    string
	slot    string
	counted bool // it is being tried: its name says how often it may still be, and how often it was
	left    int
	version int
}

// entryName is the name of a slot's entry (https://systemd.io/AUTOMATIC_BOOT_ASSESSMENT).
var entryName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^shoal-([ab])(\+(\d{1,4})(-\d{1,4})?)?\.conf$`) })

// entries are those of the slots. A file system as the EFI partition's may have two names of one entry after a power cut in a rename: the one
// with fewer tries counts.
func (b *Backend) entries() (list []entry, err error) {
	files, err := os.ReadDir(b.cfg.Entries)
	if err != nil {
		return nil, fmt.Errorf("systemd-boot: %w", err)
	}
	for _, f := range files {
		parts := entryName().FindStringSubmatch(f.Name())
		if parts == nil {
			continue
		}
		e := entry{file: filepath.Join(b.cfg.Entries, f.Name()), slot: parts[1], counted: parts[2] != ""}
		e.left, _ = strconv.Atoi(parts[3]) // digits, or nothing
		text, err := os.ReadFile(e.file)
		if err != nil {
			return nil, fmt.Errorf("systemd-boot: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if version, ok := strings.CutPrefix(line, "version "); ok {
				e.version, _ = strconv.Atoi(strings.TrimSpace(version)) // what is no number is as old as can be
			}
		}
		list = append(list, e)
	}
	return list, nil
}

// standing are the entry that is booted when nothing is tried, and the one that is tried, if any.
func (b *Backend) standing() (fallback, trying *entry, err error) {
	list, err := b.entries()
	if err != nil {
		return nil, nil, err
	}
	for i := range list {
		e := &list[i]
		switch {
		case e.counted && (trying == nil || e.left < trying.left):
			trying = e
		case !e.counted && (fallback == nil || e.version > fallback.version):
			fallback = e
		}
	}
	if fallback == nil {
		return nil, nil, fmt.Errorf("systemd-boot: %s has no entry shoal-a.conf or shoal-b.conf", b.cfg.Entries)
	}
	return fallback, trying, nil
}

// write makes a slot's entry. The newest version is booted first.
func (b *Backend) write(slot, suffix string, version int) error {
	text := fmt.Sprintf("# Written by shoal.\nsort-key shoal\nversion %d\n%s\n", version, strings.TrimSpace(b.cfg.Slots[slot].Entry))
	return durable.Write(filepath.Join(b.cfg.Entries, "shoal-"+slot+suffix+".conf"), []byte(text), 0o644)
}

// remove removes entries.
func (b *Backend) remove(which func(*entry) bool) error {
	list, err := b.entries()
	if err != nil {
		return err
	}
	gone := false
	for i := range list {
		if which(&list[i]) {
			err, gone = errors.Join(err, os.Remove(list[i].file)), true
		}
	}
	if !gone {
		return nil
	}
	return errors.Join(err, b.sync())
}

// rename gives an entry another name.
func (b *Backend) rename(e *entry, suffix string) error {
	to := filepath.Join(b.cfg.Entries, "shoal-"+e.slot+suffix+".conf")
	if to == e.file {
		return nil
	}
	if err := os.Rename(e.file, to); err != nil {
		return fmt.Errorf("systemd-boot: %w", err)
	}
	return b.sync()
}

// sync has the folder on the medium.
func (b *Backend) sync() error {
	dir, err := os.Open(b.cfg.Entries)
	if err != nil {
		return fmt.Errorf("systemd-boot: %w", err)
	}
	err = unix.Syncfs(int(dir.Fd())) // FAT has no journal: all of it
	return errors.Join(err, dir.Close())
}
