package wire

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/store/seal"
)

// primaryMark is the file, in the folder pki, that names the key with which this server encrypts. It is no secret. The keys may
// lie on another medium, and a server that starts without that medium must not go on with new keys.
const primaryMark = "secrets.primary"

// keys are this server's keys of Secrets, and the file that they are kept in.
type keys struct {
	seal.Keyring
	path, mark string
	logger     *slog.Logger

	mu sync.Mutex // held while the ring changes
	// missing has something in it when a value was met whose key is not there; changed when the ring has changed.
	missing, changed chan struct{}
}

func secretsKeyPath(c configs.Config) string {
	if c.Server.SecretsKeyFile != "" {
		return c.Server.SecretsKeyFile
	}
	return filepath.Join(c.DataDir, "pki", "secrets.keys")
}

// openKeys reads the keys, or makes the first one.
func openKeys(c configs.Config, logger *slog.Logger) (*keys, error) {
	k := &keys{
		path: secretsKeyPath(c), mark: filepath.Join(c.DataDir, "pki", primaryMark), logger: logger,
		missing: make(chan struct{}, 1), changed: make(chan struct{}, 1),
	}
	ring, err := k.read()
	if err == nil {
		err = removeHalfWritten(k.path)
	}
	if err != nil {
		return nil, fmt.Errorf("the keys of Secrets: %w", err)
	}
	// A fresh ring goes to its file; a known one is not written again.
	return k, k.change(func(seal.Ring) (seal.Ring, error) { return ring, nil })
}

// removeHalfWritten takes away what a power cut may have left beside the file: it would keep keys that are dropped later.
func removeHalfWritten(path string) error {
	left, err := filepath.Glob(path + ".tmp-*")
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

func (k *keys) read() (ring seal.Ring, err error) {
	mark, err := os.ReadFile(k.mark)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ring, err
	}
	primary := seal.ID(strings.TrimSpace(string(mark)))
	data, err := os.ReadFile(k.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && primary == "":
		return seal.NewRing(pki.Now())
	case errors.Is(err, fs.ErrNotExist):
		return ring, fmt.Errorf("%s is missing: bring back the medium that it is on, or put a copy there, from a backup or another server", k.path)
	case err != nil:
		return ring, err
	}
	if ring, err = seal.Parse(data); err != nil {
		return ring, fmt.Errorf("%s: %w; put a copy there, from a backup or another server", k.path, err)
	}
	if primary != "" && !ring.Has(primary) && !ring.Dropped(primary) {
		return ring, fmt.Errorf("%s has not the key %s, with which this server encrypted: it is another cluster's or too old; put the right one there",
			k.path, primary)
	}
	return ring, k.Set(ring)
}

// change makes a ring of the present one, and uses it once it is on the disk.
func (k *keys) change(f func(seal.Ring) (seal.Ring, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	older := k.Ring()
	newer, err := f(older)
	if err != nil {
		return err
	}
	if !newer.Equal(older) {
		if err := writeKeys(k.path, newer); err != nil {
			return err
		}
		if err := k.Set(newer); err != nil {
			return err
		}
		wake(k.changed)
	}
	return k.writeMark(newer)
}

func (k *keys) writeMark(ring seal.Ring) error {
	primary, _ := ring.Primary()
	text := string(primary.ID) + "\n"
	if have, err := os.ReadFile(k.mark); err == nil && string(have) == text {
		return nil
	}
	return pki.Write(filepath.Dir(k.mark), filepath.Base(k.mark), []byte(text), 0o600)
}

func writeKeys(path string, ring seal.Ring) error {
	data, err := ring.Marshal()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil { // the folder pki is there, and no other one is to be made in the place of a medium
		return fmt.Errorf("the keys of Secrets: %w", err)
	}
	if err := pki.Write(filepath.Dir(path), filepath.Base(path), data, 0o600); err != nil {
		return fmt.Errorf("the keys of Secrets: %w", err)
	}
	return nil
}

// saveGrantedKeys keeps the keys that came with a grant, if there are none yet.
func saveGrantedKeys(c configs.Config, granted []byte) error {
	path := secretsKeyPath(c)
	if len(granted) == 0 {
		return nil
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ring, err := seal.Parse(granted)
	if err != nil {
		return fmt.Errorf("the keys of Secrets from the cluster: %w", err)
	}
	return writeKeys(path, ring)
}

// merge takes over what another server has.
func (k *keys) merge(other seal.Ring) error {
	return k.change(func(ring seal.Ring) (seal.Ring, error) { return ring.Merge(other), nil })
}

// Open opens a value as the keyring does, and notes that its key is missing.
func (k *keys) Open(sealed, additional []byte) ([]byte, error) {
	plain, err := k.Keyring.Open(sealed, additional)
	k.note(err)
	return plain, err
}

// Check checks a value as the keyring does, and notes that its key is missing.
func (k *keys) Check(sealed []byte) (bool, error) {
	stale, err := k.Keyring.Check(sealed)
	k.note(err)
	return stale, err
}

func (k *keys) note(err error) {
	if errors.Is(err, seal.ErrUnknownKey) {
		wake(k.missing)
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
