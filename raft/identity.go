package raft

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// ClusterID names a cluster: it is made when the cluster is, and anew when the cluster is recovered or restored from nothing.
// Servers of different clusters do not talk to each other.
type ClusterID [16]byte

// NewClusterID makes one.
func NewClusterID() (id ClusterID) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// ParseClusterID reads the text form.
func ParseClusterID(text string) (id ClusterID, err error) {
	err = id.UnmarshalText([]byte(text))
	return id, err
}

// IsZero reports whether this is the cluster of a server that belongs to none yet.
func (id ClusterID) IsZero() bool { return id == ClusterID{} }

// String is the text form: hexadecimal, and empty for none.
func (id ClusterID) String() string {
	if id.IsZero() {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// MarshalText implements encoding.TextMarshaler.
func (id ClusterID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ClusterID) UnmarshalText(text []byte) error {
	*id = ClusterID{}
	if len(text) == 0 {
		return nil
	}
	if len(text) == 2*len(id) {
		if _, err := hex.Decode(id[:], text); err == nil {
			return nil
		}
	}
	*id = ClusterID{}
	return fmt.Errorf("%q is not the identifier of a cluster", text)
}

// identityFile holds, in the data folder, which cluster the folder belongs to. It is a file of its own so that it outlives a
// damaged log.
const identityFile = "cluster"

// maxPrevious bounds the clusters that one descends from and still knows.
const maxPrevious = 8

// ErrSuperseded says that this server's cluster was recovered without it.
var ErrSuperseded = errors.New("this server's cluster was recovered without it")

// identity is which cluster a server belongs to.
type identity struct {
	dir string

	mu      sync.Mutex
	content identityContent
	ended   chan struct{} // closed when the cluster turns out to be superseded
}

type identityContent struct {
	Cluster ClusterID `json:"cluster"`
	// Previous are the clusters that this one was recovered from, the newest first.
	Previous []ClusterID `json:"previous,omitempty"`
	// SupersededBy is the cluster that was recovered from this one, on another server.
	SupersededBy ClusterID `json:"supersededBy,omitzero"`
}

func (c *identityContent) descendsFrom(other ClusterID) bool {
	return slices.Contains(c.Previous, other)
}

// openIdentity reads the identity of a data folder; without a file it is that of no cluster.
func openIdentity(dir string) (*identity, error) {
	id := &identity{dir: dir, ended: make(chan struct{})}
	content, err := readIdentity(dir)
	var damaged *DamagedError
	if errors.As(err, &damaged) {
		// The log and the checkpoint know the cluster too, and so do the other servers.
		_, err = setAside(damaged.Path, time.Now())
	}
	if err != nil {
		return nil, err
	}
	id.content = content
	if by := content.SupersededBy; !by.IsZero() {
		return nil, id.superseded(by)
	}
	return id, nil
}

func readIdentity(dir string) (identityContent, error) {
	var content identityContent
	path := filepath.Join(dir, identityFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return content, nil
	}
	if err != nil {
		return content, err
	}
	text, sum, _ := bytes.Cut(data, []byte("\n"))
	if string(bytes.TrimSpace(sum)) != fmt.Sprintf("%08x", checksum(text)) {
		return identityContent{}, &DamagedError{path, errors.New("its checksum is wrong")}
	}
	if err := json.Unmarshal(text, &content); err != nil || content.Cluster.IsZero() {
		return identityContent{}, &DamagedError{path, errors.New("it names no cluster")}
	}
	return content, nil
}

func writeIdentity(dir string, content identityContent) error {
	text, err := json.Marshal(content)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, identityFile)
	if err := os.WriteFile(path+".new", fmt.Appendf(nil, "%s\n%08x\n", text, checksum(text)), 0o600); err != nil {
		return err
	}
	return replaceFile(path+".new", path)
}

func (id *identity) get() identityContent {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.content
}

func (id *identity) cluster() ClusterID { return id.get().Cluster }

// adopt makes a server that belongs to no cluster a member of one.
func (id *identity) adopt(cluster ClusterID) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	switch {
	case id.content.Cluster == cluster:
		return nil
	case cluster.IsZero():
		return errors.New("there is no cluster to belong to")
	case !id.content.Cluster.IsZero():
		return fmt.Errorf("this server belongs to the cluster %s, not to %s", id.content.Cluster, cluster)
	}
	content := identityContent{Cluster: cluster}
	if err := writeIdentity(id.dir, content); err != nil {
		return fmt.Errorf("note the cluster: %w", err)
	}
	id.content = content
	return nil
}

// supersede notes for good that the cluster goes on as another one. It returns the error to end with, the first time.
func (id *identity) supersede(by ClusterID) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if !id.content.SupersededBy.IsZero() {
		return nil
	}
	id.content.SupersededBy = by
	close(id.ended)
	return errors.Join(id.superseded(by), writeIdentity(id.dir, id.content))
}

func (id *identity) superseded(by ClusterID) error {
	return fmt.Errorf("%w: it was %s and goes on as %s, where the changes that only its old servers have are not known; "+
		"to join again, stop shoal, move the folder %s away and start shoal", ErrSuperseded, id.content.Cluster, by, id.dir)
}

// Cluster is the cluster that this server belongs to; zero while it has not joined one.
func (n *Node) Cluster() ClusterID { return n.identity.cluster() }

// Adopt makes this server, which belongs to no cluster yet, a member of one. Other servers reach it only afterwards.
func (n *Node) Adopt(cluster ClusterID) error {
	if err := n.identity.adopt(cluster); err != nil {
		return err
	}
	if err := noteCluster(n.log, cluster); err != nil {
		return err
	}
	n.checkpoint.setCluster(cluster)
	return nil
}

// keyCluster is where the log has the cluster, beside the votes.
const keyCluster = "cluster"

func noteCluster(log *logStore, cluster ClusterID) error {
	if have, err := log.Get([]byte(keyCluster)); err == nil && bytes.Equal(have, cluster[:]) {
		return nil
	}
	return log.Set([]byte(keyCluster), cluster[:])
}

// settleCluster finds out, at the start, which cluster the data folder belongs to; who founds one gives it a name.
func (n *Node) settleCluster() error {
	own := n.identity.cluster()
	var inLog ClusterID
	if text, err := n.log.Get([]byte(keyCluster)); err == nil {
		copy(inLog[:], text)
	} else if !errors.Is(err, errAbsent) {
		return err
	}
	for _, other := range []ClusterID{n.checkpoint.header().Cluster, inLog} {
		switch {
		case other.IsZero() || other == own:
		case own.IsZero():
			own = other
		default:
			return fmt.Errorf("the files in %s are of different clusters, %s and %s: was one of them copied there?", n.cfg.Dir, own, other)
		}
	}
	if own.IsZero() && n.cfg.Bootstrap && !n.OnProbation() {
		own = NewClusterID()
	}
	if own.IsZero() {
		return nil
	}
	return n.Adopt(own)
}
