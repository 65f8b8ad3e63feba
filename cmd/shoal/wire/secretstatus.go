package wire

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/store/seal"
)

// SecretsStatus says with which keys the Secrets are encrypted.
type SecretsStatus struct {
	Keys []SecretsKey `json:"keys"`
	// Plain are Secrets that are not encrypted yet, Unreadable those whose key is not here.
	Plain      int `json:"plain"`
	Unreadable int `json:"unreadable"`
	// Pending are all that are still to be encrypted with the primary key.
	Pending int `json:"pending"`
}

// SecretsKey is one key: "primary", "old", or "staged" while not all servers have it.
type SecretsKey struct {
	ID      seal.ID   `json:"id"`
	State   string    `json:"state"`
	Created time.Time `json:"created"`
	Secrets int       `json:"secrets"`
}

// sensitive calls f with every object that is to be encrypted.
func (s *Server) sensitive(f func(item store.Item)) {
	for _, kind := range api.Kinds() {
		if !kind.Sensitive {
			continue
		}
		items, _ := s.durable.List(kind.GroupResource(), "")
		for _, item := range items {
			f(item)
		}
	}
}

func (s *Server) secretsStatus() SecretsStatus {
	var status SecretsStatus
	counts := map[seal.ID]int{}
	s.sensitive(func(item store.Item) {
		sealed, ok := item.Sealed()
		if id, err := seal.KeyOf(sealed); ok && err == nil {
			counts[id]++
		}
		stale, err := s.durable.CheckSeal(item)
		switch {
		case err != nil:
			status.Unreadable++
		case stale:
			status.Pending++
		}
		if !ok {
			status.Plain++
		}
	})
	ring := s.keys.Ring()
	primary, _ := ring.Primary()
	for _, key := range ring.Keys() {
		told := SecretsKey{ID: key.ID, State: "old", Created: key.Created, Secrets: counts[key.ID]}
		switch {
		case key.ID == primary.ID:
			told.State = "primary"
		case !key.Active:
			told.State = "staged"
		}
		status.Keys = append(status.Keys, told)
	}
	return status
}

// unreadable counts the Secrets whose keys are neither here nor known to be dropped: a checkpoint may be older than the end of a
// rotation, and the log then brings what was encrypted anew.
func (s *Server) unreadable() (count int, why error) {
	ring := s.keys.Ring()
	s.sensitive(func(item store.Item) {
		sealed, ok := item.Sealed()
		if !ok {
			return
		}
		id, err := seal.KeyOf(sealed)
		if err == nil && ring.Dropped(id) {
			return
		}
		if _, err := s.durable.CheckSeal(item); err != nil {
			count, why = count+1, err
		}
	})
	return count, why
}

// lostMark is the file, in the folder pki, by which a person says that keys are lost for good: the server starts without them.
const lostMark = "secrets.lost"

// checkKeys refuses to serve when Secrets cannot be read and there is no other server to have their keys from: the devices would
// be told that these Secrets are gone.
func (s *Server) checkKeys() error {
	count, why := s.unreadable()
	if count == 0 {
		return nil
	}
	lost := filepath.Join(s.o.Config.DataDir, "pki", lostMark)
	_, err := os.Stat(lost)
	switch {
	case len(s.otherServers()) > 0:
		s.o.Logger.Error("Secrets cannot be decrypted here; asking the other servers for their keys", "count", count, "error", why)
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%d Secrets cannot be decrypted: put the keys of their time into %s, or, if these are lost for good, "+
			"make the file %s to start without them (%w)", count, s.keys.path, lost, why)
	case err != nil:
		return err
	}
	s.o.Logger.Error("Secrets cannot be decrypted and their keys are lost; delete them and apply them again", "count", count, "error", why)
	return nil
}
