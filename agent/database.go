package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"go.etcd.io/bbolt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/transport"
)

var (
	bucketDesired = []byte("desired") // key of the desired state -> its value, as the control plane sent it
	bucketStatus  = []byte("status")  // pod uid -> corev1.Pod with the status last reported
	bucketDevices = []byte("devices") // id of a device -> claim, allocationPrefix uid/container/resource -> what its plugin said
	bucketEvents  = []byte("events")  // order of an event -> the event, for as long as the control plane has not acknowledged it
	bucketMeta    = []byte("meta")    // epoch, seq, heard, boots, boot
)

func buckets() [][]byte {
	return [][]byte{bucketDesired, bucketStatus, bucketDevices, bucketEvents, bucketMeta}
}

// database is what this device must know after a reboot with no network. It is written only when something changed.
type database struct {
	db *bbolt.DB
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
	v := unseal(tx.Bucket(bucketMeta).Get([]byte(key)))
	if len(v) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

func setNumber(tx *bbolt.Tx, key string, n uint64) error {
	if number(tx, key) == n {
		return nil
	}
	_, err := change(tx.Bucket(bucketMeta), []byte(key), binary.BigEndian.AppendUint64(nil, n))
	return err
}

// apply stores changes of the desired state and returns the keys that really changed.
func (d *database) apply(epoch, seq uint64, full bool, items []transport.Item) (changed []string, err error) {
	err = d.db.Update(func(tx *bbolt.Tx) error {
		changed = nil
		if known := number(tx, "epoch"); epoch < known {
			return fmt.Errorf("%w: it is of epoch %d, and this device has seen epoch %d", errStale, epoch, known)
		}
		if newest := max(number(tx, "heard"), newestPod(items)); newest > 0 {
			if err := setNumber(tx, "heard", newest); err != nil {
				return err
			}
		}
		b := tx.Bucket(bucketDesired)
		listed := map[string]bool{}
		for _, item := range items {
			value := item.Value
			switch {
			case item.Deleted:
				value = nil
			case value == nil:
				value = []byte{}
			}
			listed[item.Key] = !item.Deleted
			different, err := change(b, []byte(item.Key), value)
			if err != nil {
				return err
			}
			if different {
				changed = append(changed, item.Key)
			}
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
				if _, err := change(b, []byte(key), nil); err != nil {
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

// errStale refuses the state of a control plane that is not the present one any more.
var errStale = errors.New("stale desired state")

// newestPod is the highest revision among pods.
func newestPod(items []transport.Item) (newest uint64) {
	for _, item := range items {
		// Every object has its metadata in field 1; the rest is skipped.
		var o metav1.PartialObjectMetadata
		if strings.HasPrefix(item.Key, "pods/") && !item.Deleted && o.Unmarshal(item.Value) == nil {
			n, _ := strconv.ParseUint(o.ResourceVersion, 10, 64)
			newest = max(newest, n)
		}
	}
	return newest
}

// heard is the newest revision of the cluster's state that this device has heard of.
func (d *database) heard() (n uint64) {
	_ = d.db.View(func(tx *bbolt.Tx) error {
		n = number(tx, "heard")
		return nil
	})
	return n
}

// hear raises what the device has heard of.
func (d *database) hear(revision uint64) error {
	if revision <= d.heard() {
		return nil
	}
	return d.db.Update(func(tx *bbolt.Tx) error { return setNumber(tx, "heard", max(revision, number(tx, "heard"))) })
}

// desired returns a copy of one value, nil when there is none.
func (d *database) desired(key string) []byte { return d.get(bucketDesired, key) }

func (d *database) get(bucket []byte, key string) []byte {
	var value []byte
	_ = d.db.View(func(tx *bbolt.Tx) error {
		if v := unseal(tx.Bucket(bucket).Get([]byte(key))); v != nil {
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
			f(string(k), unseal(v))
		}
		return nil
	})
}

// put stores and deletes (nil values) keys of one bucket, all or none.
func (d *database) put(bucket []byte, values map[string][]byte) error {
	return d.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		for k, v := range values {
			if _, err := change(b, []byte(k), v); err != nil {
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
		_, err := change(tx.Bucket(bucketMeta), []byte("boot"), id)
		return errors.Join(setNumber(tx, "boots", number(tx, "boots")+1), err)
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
