package apiserver

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/store"
)

// statePath is where administrators compare the servers: equal revisions must have equal hashes.
const statePath = "/shoal/v1/state"

// state is what one server holds of the durable kinds.
type state struct {
	Leader   bool   `json:"leader"`
	Revision uint64 `json:"revision"`
	Objects  int    `json:"objects"`
	SHA256   string `json:"sha256"`
}

func (s *Server) serveState(w http.ResponseWriter, req *request) error {
	if !req.user.in(groupMasters) {
		return errNotFound()
	}
	items, revision := s.cfg.Durable.All()
	told, err := json.Marshal(state{
		Leader: s.cfg.Consensus.IsLeader(), Revision: revision, Objects: len(items), SHA256: digest(items),
	})
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	w.Header().Set("Content-Type", mediaJSON)
	_, _ = w.Write(append(told, '\n')) // the client has gone: there is nobody to tell
	return nil
}

// digest is a hash over every object, its key and its revision.
func digest(items []store.Item) string {
	sum := sha256.New()
	var number [8]byte
	write := func(part []byte) {
		binary.BigEndian.PutUint64(number[:], uint64(len(part)))
		sum.Write(number[:])
		sum.Write(part)
	}
	for _, item := range items {
		write([]byte(item.Key.Resource))
		write([]byte(item.Key.Namespace))
		write([]byte(item.Key.Name))
		write(item.Value)
		binary.BigEndian.PutUint64(number[:], item.Revision)
		sum.Write(number[:])
	}
	return hex.EncodeToString(sum.Sum(nil))
}
