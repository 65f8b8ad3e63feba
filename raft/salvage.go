package raft

import (
	"os"
	"path/filepath"

	hraft "github.com/hashicorp/raft"
)

// What was set aside as damaged may be all that is left, when there are no other servers to copy from. A recovery then takes from the
// log what can still be read: of every batch what comes before the first sector that is not sound.

// salvage finds the entries in a damaged log, by index. Segments have older entries too: the one of the newest term counts.
func salvage(path string) (found map[uint64]hraft.Log, err error) {
	files, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	found = map[uint64]hraft.Log{}
	for _, file := range files {
		id, ok := segmentID(file.Name())
		if !ok {
			continue
		}
		content, err := os.ReadFile(filepath.Join(path, file.Name()))
		if err != nil {
			return nil, err
		}
		for at := 0; at+sectorSize <= len(content); at += blockSize {
			_, _ = decodeBatch(unpack(nil, salvageBatch(content, id, at)), func(index uint64, body []byte) error { // it may be cut off
				var entry hraft.Log
				k := logKey(index)
				if err := decodeEntry(k[:], body, &entry); err != nil {
					return err
				}
				if have, ok := found[index]; !ok || have.Term < entry.Term {
					found[index] = entry
				}
				return nil
			})
		}
	}
	return found, nil
}

// salvageBatch is what is sound of a batch from its beginning on.
func salvageBatch(content []byte, id uint64, at int) []byte {
	number := uint64(0)
	end := at
	for part := 0; end+sectorSize <= len(content); part++ {
		s := readSector(content[end:end+sectorSize], id, uint32(end/sectorSize))
		if part == 0 {
			number = s.batch
		}
		if s.bad || s.batch == 0 || s.batch != number || int(s.part) != part {
			break
		}
		end += sectorSize
	}
	return content[at:end]
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
