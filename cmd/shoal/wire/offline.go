package wire

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"

	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/raft"
)

// What is done to the data folder of a server that does not run follows. Each takes the folder's lock first.

// RestoreOffline makes a snapshot the state of a new cluster that begins with the server of a data folder. The folder has that
// server's identity, and no state yet.
func RestoreOffline(dataDir string, from io.Reader) (_ raft.SnapshotInfo, _ raft.Founded, err error) {
	lock, err := lockDataDir(dataDir)
	if err != nil {
		return raft.SnapshotInfo{}, raft.Founded{}, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	self, err := serverOf(dataDir)
	if err != nil {
		return raft.SnapshotInfo{}, raft.Founded{}, err
	}
	if client, err := kube.Load(filepath.Join(dataDir, "admin.kubeconfig")); err == nil {
		if u, err := url.Parse(client.Server()); err == nil {
			self.Address = u.Host
		}
	}
	return raft.RestoreFolder(raftDir(dataDir), from, self)
}

// Survivor says what a server that does not run has.
func Survivor(c configs.Config) (_ raft.Survivor, err error) {
	lock, err := lockDataDir(c.DataDir)
	if err != nil {
		return raft.Survivor{}, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if _, err := serverOf(c.DataDir); err != nil {
		return raft.Survivor{}, err
	}
	return raft.InspectFolder(raftDir(c.DataDir))
}

// Recover makes a server that does not run the only one of a new cluster, with all that it has.
func Recover(c configs.Config) (_ raft.Founded, err error) {
	lock, err := lockDataDir(c.DataDir)
	if err != nil {
		return raft.Founded{}, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	self, err := serverOf(c.DataDir)
	if err != nil {
		return raft.Founded{}, err
	}
	if self.ID != c.NodeName {
		return raft.Founded{}, fmt.Errorf("the data folder %s is that of %s, not of %s: check nodeName and dataDir", c.DataDir, self.ID, c.NodeName)
	}
	_, port, err := net.SplitHostPort(c.Server.Listen)
	if err != nil {
		return raft.Founded{}, err
	}
	self.Address = net.JoinHostPort(c.AdvertiseAddress, port)
	return raft.Recover(raftDir(c.DataDir), self)
}

func raftDir(dataDir string) string { return filepath.Join(dataDir, "raft") }

// serverOf reads who the server of a data folder is. Its address is a guess: it tells the right one when it starts.
func serverOf(dataDir string) (raft.Server, error) {
	id, err := pki.Load(filepath.Join(dataDir, "pki"), "server")
	if errors.Is(err, fs.ErrNotExist) {
		return raft.Server{}, fmt.Errorf("%s is not the data folder of a server: start 'shoal server' there once, or copy the folder pki of one there",
			dataDir)
	} else if err != nil {
		return raft.Server{}, err
	}
	name, ok := pki.ServerName(id.Leaf())
	if !ok {
		return raft.Server{}, fmt.Errorf("the certificate in %s is not a server's", dataDir)
	}
	return raft.Server{ID: name, Address: net.JoinHostPort(name, "6443"), Voter: true}, nil
}
