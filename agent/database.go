package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/shoal-edge/shoal/transport"
)

var (
	bucketDesired = []byte("desired") // key of the desired state -> its value, as the control plane sent it
	bucketStatus  = []byte("status")  // pod uid -> corev1.Pod with the status last reported
	bucketDevices = []byte("devices") // device path -> pod uid/container that has it
	bucketMeta    = []byte("meta")    // epoch, seq, boots, boot
)

// database is what this device must know after a reboot with no network. It is written only when something changed.
type database struct {
	db *bbolt.DB
}

// openDatabase opens the file, or sets a damaged one aside and starts empty: the control plane sends everything again, and
// until it does, running containers are left alone.
func openDatabase(dir string, now time.Time, logger *slog.Logger) (*database, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	file := filepath.Join(dir, "agent.db")
	db, err := tryOpen(file)
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("data folder %s is in use by another process", dir)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("data folder: %w", err)
	}
	aside := file + ".damaged-" + now.UTC().Format("20060102T150405Z")
	if renameErr := os.Rename(file, aside); renameErr != nil {
		return nil, errors.Join(fmt.Errorf("%s is damaged: %w", file, err), renameErr)
	}
	logger.Error("the database is damaged and was set aside; starting empty, running containers are left alone until the control plane sends what this device should run",
		"file", file, "aside", aside, "err", err)
	return tryOpen(file)
}

// tryOpen opens the file and reads all of it, so that damage shows now and not in the middle of the work.
func tryOpen(file string) (d *database, err error) {
	var db *bbolt.DB
	defer func() {
		if r := recover(); r != nil { // bbolt panics on pages that make no sense
			err = fmt.Errorf("%v", r)
		}
		if err != nil && db != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	db, err = bbolt.Open(file, 0o600, &bbolt.Options{Timeout: 2 * time.Second, NoFreelistSync: true})
	if err != nil {
		return nil, err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	d = &database{db: db}
	complete := false
	err = db.View(func(tx *bbolt.Tx) error {
		complete = tx.Bucket(bucketMeta) != nil && tx.Bucket(bucketDevices) != nil
		return nil
	})
	if err != nil || complete {
		return d, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketDesired, bucketStatus, bucketDevices, bucketMeta} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	return d, err
}

func (d *database) close() error { return d.db.Close() }

// position is the epoch and the sequence number of the desired state; 0, 0 when there was none yet.
func (d *database) position() (epoch, seq uint64) {
	_ = d.db.View(func(tx *bbolt.Tx) error { // f never fails, so neither does View on an open database
		epoch, seq = number(tx, "epoch"), number(tx, "seq")
		return nil
	})
	return epoch, seq
}

func number(tx *bbolt.Tx, key string) uint64 {
	v := tx.Bucket(bucketMeta).Get([]byte(key))
	if len(v) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

func setNumber(tx *bbolt.Tx, key string, n uint64) error {
	if number(tx, key) == n {
		return nil
	}
	return tx.Bucket(bucketMeta).Put([]byte(key), binary.BigEndian.AppendUint64(nil, n))
}

// apply stores changes of the desired state and returns the keys that really changed.
func (d *database) apply(epoch, seq uint64, full bool, items []transport.Item) (changed []string, err error) {
	err = d.db.Update(func(tx *bbolt.Tx) error {
		changed = nil
		b := tx.Bucket(bucketDesired)
		listed := map[string]bool{}
		for _, item := range items {
			key := []byte(item.Key)
			old := b.Get(key)
			switch {
			case item.Deleted && old != nil:
				err = b.Delete(key)
			case !item.Deleted && (old == nil || string(old) != string(item.Value)):
				err = b.Put(key, item.Value)
			default:
				listed[item.Key] = !item.Deleted
				continue
			}
			if err != nil {
				return err
			}
			listed[item.Key] = !item.Deleted
			changed = append(changed, item.Key)
		}
		if full {
			var gone []string
			_ = b.ForEach(func(k, _ []byte) error {
				if !listed[string(k)] {
					gone = append(gone, string(k))
				}
				return nil
			})
			for _, key := range gone {
				if err := b.Delete([]byte(key)); err != nil {
					return err
				}
			}
			changed = append(changed, gone...)
		}
		return errors.Join(setNumber(tx, "epoch", epoch), setNumber(tx, "seq", seq))
	})
	if err != nil {
		return nil, fmt.Errorf("store the desired state: %w", err)
	}
	return changed, nil
}

// desired returns a copy of one value, nil when there is none.
func (d *database) desired(key string) []byte { return d.get(bucketDesired, key) }

func (d *database) get(bucket []byte, key string) []byte {
	var value []byte
	_ = d.db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucket).Get([]byte(key)); v != nil {
			value = append([]byte{}, v...)
		}
		return nil
	})
	return value
}

// each calls f with every key below a prefix; value is only valid during the call.
func (d *database) each(bucket []byte, prefix string, f func(key string, value []byte)) {
	_ = d.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		for k, v := c.Seek([]byte(prefix)); k != nil && strings.HasPrefix(string(k), prefix); k, v = c.Next() {
			f(string(k), v)
		}
		return nil
	})
}

// put stores and deletes (nil values) keys of one bucket, all or none.
func (d *database) put(bucket []byte, values map[string][]byte) error {
	return d.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		for k, v := range values {
			old := b.Get([]byte(k))
			var err error
			if v == nil && old != nil {
				err = b.Delete([]byte(k))
			} else if v != nil && string(old) != string(v) {
				err = b.Put([]byte(k), v)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// boot counts the starts of this device's kernel and returns the count.
func (d *database) boot() (uint64, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return 0, fmt.Errorf("boot id: %w", err)
	}
	if string(d.get(bucketMeta, "boot")) == string(id) {
		return d.boots(), nil
	}
	err = d.db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(setNumber(tx, "boots", number(tx, "boots")+1), tx.Bucket(bucketMeta).Put([]byte("boot"), id))
	})
	return d.boots(), err
}

func (d *database) boots() (n uint64) {
	_ = d.db.View(func(tx *bbolt.Tx) error {
		n = number(tx, "boots")
		return nil
	})
	return n
}
