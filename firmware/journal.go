package firmware

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// Journal keeps a Record on the disk. Each save is one transaction: after a power cut the record is the older or the newer one.
type Journal struct {
	db   *bbolt.DB
	have []byte
}

var (
	journalBucket = []byte("firmware")
	journalKey    = []byte("record")
)

var errDamaged = errors.New("its checksum is wrong")

// OpenJournal opens the journal in a folder, and reads it. A damaged one is set aside: damaged then names it, and the record is empty.
func OpenJournal(dir string, now time.Time) (j *Journal, record Record, damaged string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, record, "", fmt.Errorf("firmware: %w", err)
	}
	file := filepath.Join(dir, "firmware.db")
	if j, record, err = openJournal(file); err == nil {
		return j, record, "", nil
	}
	if system := (*fs.PathError)(nil); errors.As(err, &system) {
		return nil, record, "", fmt.Errorf("firmware: journal: %w", err)
	}
	damaged = file + ".damaged-" + now.UTC().Format("20060102T150405Z")
	if renameErr := os.Rename(file, damaged); renameErr != nil {
		return nil, record, "", fmt.Errorf("firmware: journal: %w", errors.Join(err, renameErr))
	}
	if j, record, err = openJournal(file); err != nil {
		return nil, record, "", fmt.Errorf("firmware: journal: %w", err)
	}
	return j, record, damaged, nil
}

func openJournal(file string) (*Journal, Record, error) {
	var record Record
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: 2 * time.Second})
	if err != nil {
		return nil, record, err
	}
	j := &Journal{db: db}
	err = db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(journalBucket); b != nil {
			j.have = append([]byte(nil), b.Get(journalKey)...)
		}
		return nil
	})
	if err == nil && len(j.have) > 0 {
		err = parseRecord(j.have, &record)
	}
	if err != nil {
		return nil, record, errors.Join(err, db.Close())
	}
	return j, record, nil
}

// parseRecord reads a checksum and the JSON that it is of.
func parseRecord(data []byte, record *Record) error {
	if len(data) < 4 || binary.BigEndian.Uint32(data) != crc32.ChecksumIEEE(data[4:]) {
		return errDamaged
	}
	return json.Unmarshal(data[4:], record)
}

// Save makes the record durable. It writes nothing if nothing has changed.
func (j *Journal) Save(record Record) error {
	text, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("firmware: journal: %w", err)
	}
	data := append(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(text)), text...)
	if string(data) == string(j.have) {
		return nil
	}
	err = j.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(journalBucket)
		if err != nil {
			return err
		}
		return b.Put(journalKey, data)
	})
	if err != nil {
		return fmt.Errorf("firmware: journal: %w", err)
	}
	j.have = data
	return nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.db.Close() }
