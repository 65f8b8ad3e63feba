package raft

import (
	"encoding/binary"
	"os"
	"path/filepath"

	hraft "github.com/hashicorp/raft"
)

// What was set aside as damaged may be all that is left, when there are no other servers to copy from. A recovery then takes from the
// log what can still be read: every entry has a checksum of its own, so that it needs nothing of the file around it.

// What a page of bbolt begins with, and an element of a leaf page, all little endian: page number (8 bytes), kind (2), number of
// elements (2), further pages (4); kind (4), place of the key, counted from the element (4), and the lengths of key and value (4 each).
const (
	pageHead  = 16
	pageKind  = 8
	pageCount = 10
	leafPage  = 2
	leafHead  = 16
)

// salvage finds the entries in a damaged log, by index. Pages that are free now have older versions: the one of the newest term counts.
func salvage(path string) (found map[uint64]hraft.Log, err error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	found = map[uint64]hraft.Log{}
	page := pageSizeOf(file)
	for at := 0; at+pageHead <= len(file); at += page {
		if binary.LittleEndian.Uint16(file[at+pageKind:]) != leafPage {
			continue
		}
		for i := range int(binary.LittleEndian.Uint16(file[at+pageCount:])) {
			key, value, ok := leafElement(file, at+pageHead+i*leafHead)
			var entry hraft.Log
			if !ok || decodeEntry(key, value, &entry) != nil {
				continue
			}
			if have, ok := found[entry.Index]; !ok || have.Term < entry.Term {
				found[entry.Index] = entry
			}
		}
	}
	return found, nil
}

func leafElement(file []byte, at int) (key, value []byte, ok bool) {
	if at+leafHead > len(file) {
		return nil, nil, false
	}
	place := func(i int) int64 { return int64(binary.LittleEndian.Uint32(file[at+4*i:])) }
	begin := int64(at) + place(1)
	middle := begin + place(2)
	end := middle + place(3)
	if end > int64(len(file)) {
		return nil, nil, false
	}
	return file[begin:middle], file[middle:end], true
}

// pageSizeOf believes a root page that looks like one, or else takes this machine's.
func pageSizeOf(file []byte) int {
	size := os.Getpagesize()
	if len(file) >= rootAt+rootSum && binary.LittleEndian.Uint32(file[rootAt:]) == rootMagic {
		if told := int(binary.LittleEndian.Uint32(file[rootAt+rootPageSize:])); told >= 512 && told <= 64<<10 && told&(told-1) == 0 {
			size = told
		}
	}
	return size
}

// salvage applies what follows in logs that were set aside, as far as nothing is missing. Only a server that has not copied the state
// from others since needs it.
func (r *remains) salvage() error {
	p, err := openProbation(r.log)
	if err != nil || !p.on.Load() {
		return err
	}
	asides, err := filepath.Glob(filepath.Join(r.dir, logFile+".damaged-*"))
	if err != nil {
		return err
	}
	for _, path := range asides {
		entries, err := salvage(path)
		if err != nil {
			return err
		}
		for {
			entry, ok := entries[r.Index+1]
			if !ok || entry.Term < r.Term {
				break
			}
			if err := r.apply(&entry); err != nil {
				return err
			}
			r.Salvaged++
		}
	}
	return nil
}
