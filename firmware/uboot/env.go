// Package uboot owns the backend for devices that U-Boot boots: slots A and B, and U-Boot's own environment as the record, with its
// boot counting. The environment is read and written in U-Boot's format (include/env_internal.h, tools/env/fw_env.c): a CRC-32, with
// two copies a counter, then name=value texts.
package uboot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"slices"
	"strings"
)

// Place is where one copy of the environment is: a file, a partition or a whole block device, and the bytes in it.
type Place struct {
	Path   string
	Offset int64
	Size   int64
}

// Bounds of an environment.
const (
	minSize = 64
	maxSize = 4 << 20
)

var errEnvironment = errors.New("uboot: no copy of the environment is whole")

// environment is U-Boot's, in one or two copies. With two, the older one is written and becomes the newer by its counter, so that a
// power cut leaves one or the other.
type environment struct {
	places []Place
}

// parse reads one copy. The counter is only there when there are two copies.
func parse(data []byte, redundant bool) (vars map[string]string, counter byte, err error) {
	head := 4
	if redundant {
		head = 5
	}
	if len(data) < head+2 || binary.LittleEndian.Uint32(data) != crc32.ChecksumIEEE(data[head:]) {
		return nil, 0, errEnvironment
	}
	vars = map[string]string{}
	for _, entry := range bytes.Split(data[head:], []byte{0}) {
		if len(entry) == 0 {
			break
		}
		name, value, ok := strings.Cut(string(entry), "=")
		if !ok {
			return nil, 0, errEnvironment
		}
		vars[name] = value
	}
	return vars, data[4], nil
}

// format makes one copy of a size.
func format(vars map[string]string, counter byte, size int64, redundant bool) ([]byte, error) {
	head := 4
	if redundant {
		head = 5
	}
	data := make([]byte, head, size)
	data[head-1] = counter // overwritten by the checksum when there is one copy
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(vars[name], "\x00") {
			return nil, fmt.Errorf("uboot: variable %q cannot be written", name)
		}
		data = append(append(data, name+"="+vars[name]...), 0)
	}
	if int64(len(data)) >= size {
		return nil, fmt.Errorf("uboot: the environment needs %d bytes and has %d", len(data)+1, size)
	}
	data = data[:size]
	binary.LittleEndian.PutUint32(data, crc32.ChecksumIEEE(data[head:]))
	return data, nil
}

// newer reports whether counter a is of a later write than b: it wraps from 255 to 0 (env_check_redund).
func newer(a, b byte) bool {
	switch {
	case a == 255 && b == 0:
		return false
	case b == 255 && a == 0:
		return true
	}
	return a > b
}

// read returns the variables, the index of the copy that they are from and its counter.
func (e *environment) read() (vars map[string]string, at int, counter byte, err error) {
	at = -1
	var failure error
	for i, p := range e.places {
		data, readErr := readPlace(p)
		if readErr != nil {
			failure = errors.Join(failure, readErr)
			continue
		}
		found, n, parseErr := parse(data, len(e.places) > 1)
		if parseErr != nil {
			continue
		}
		if at < 0 || newer(n, counter) {
			vars, at, counter = found, i, n
		}
	}
	if at < 0 {
		return nil, 0, 0, errors.Join(errEnvironment, failure)
	}
	return vars, at, counter, nil
}

func readPlace(p Place) ([]byte, error) {
	f, err := os.Open(p.Path)
	if err != nil {
		return nil, err
	}
	data := make([]byte, p.Size)
	_, err = f.ReadAt(data, p.Offset)
	return data, errors.Join(err, f.Close())
}

// write changes variables; an empty value takes one away. It is one write of one copy, synced.
func (e *environment) write(change map[string]string) error {
	vars, at, counter, err := e.read()
	if err != nil {
		return err
	}
	for name, value := range change {
		if vars[name] = value; value == "" {
			delete(vars, name)
		}
	}
	redundant := len(e.places) > 1
	if redundant {
		at, counter = 1-at, counter+1
	}
	p := e.places[at]
	data, err := format(vars, counter, p.Size, redundant)
	if err != nil {
		return err
	}
	return writeWhole(p, data)
}

func writeWhole(p Place, data []byte) error {
	f, err := os.OpenFile(p.Path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, p.Offset)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("uboot: write the environment: %w", err)
	}
	return nil
}
