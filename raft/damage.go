package raft

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
)

// What is damaged is found at the start, by checksums, and set aside under a dated name. What is left is of use only if it fits
// together: a log that does not begin where the checkpoint ends goes the same way. The server then begins with what it has, or
// with nothing, on probation: see there. A file that turns out to be damaged later ends the server, since all is looked at again
// when it starts anew.

// openState opens the checkpoint and the log. Of a server that is new, nothing can be missing.
func (n *Node) openState(isNew bool) (err error) {
	dir := n.cfg.Dir
	if n.checkpoint, err = openCheckpoint(dir, n.store); isDamaged(err) {
		if err = n.setAside(filepath.Join(dir, checkpointFile), err); err == nil {
			n.checkpoint, err = openCheckpoint(dir, n.store)
		}
	}
	if err != nil {
		return err
	}
	if err = n.openLog(isNew && n.cfg.Bootstrap); isDamaged(err) {
		if n.log != nil {
			err = errors.Join(err, n.log.close())
			n.log = nil
		}
		if err = n.setAsideLog(err); err == nil {
			err = n.openLog(false)
		}
	}
	if err != nil {
		return err
	}
	n.log.logger = n.logger
	n.log.alarm, n.checkpoint.alarm = n.alarm, n.alarm
	n.log.reserve, n.checkpoint.reserve = n.reserve, n.reserve
	if isNew {
		return nil
	}
	if err := n.doubt(); err != nil || n.OnProbation() {
		return err
	}
	return n.dropAsides()
}

// setAsideLog also sets aside one of before there were segments.
func (n *Node) setAsideLog(why error) error {
	for _, name := range []string{logFile, oldLogFile} {
		path := filepath.Join(n.cfg.Dir, name)
		found, err := exists(path)
		if err != nil {
			return errors.Join(why, err)
		}
		if found {
			return n.setAside(path, why)
		}
	}
	return why
}

func (n *Node) openLog(proven bool) (err error) {
	if n.log, err = openLog(n.cfg.Dir, proven); err != nil {
		n.log = nil
		return err
	}
	if err := n.log.join(n.checkpoint.header()); err != nil {
		return err
	}
	n.probation, err = openProbation(n.log)
	return err
}

// untouched reports whether a data folder has nothing of a server in it, and had nothing that was set aside: the server is new.
// A power cut may have left half of a file that was to be the first.
func untouched(dir string) (bool, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(files, func(f fs.DirEntry) bool {
		return slices.Contains([]string{logFile, oldLogFile, checkpointFile, identityFile}, f.Name()) || strings.Contains(f.Name(), ".damaged-")
	}), nil
}

// doubt puts a server on probation that may have lost something, though each file by itself is sound.
func (n *Node) doubt() error {
	if n.OnProbation() {
		n.logger.Warn("this server lacks what it may have known, and waits for the other servers to readmit it; "+
			"if there are none, stop it, and use shoal recover or shoal snapshot restore", "folder", n.cfg.Dir)
		return nil
	}
	last, err := n.log.LastIndex()
	if err != nil {
		return err
	}
	term, err := n.log.GetUint64([]byte(keyTerm))
	if err != nil && !errors.Is(err, errAbsent) {
		return err
	}
	empty := last == 0 && n.checkpoint.header().Index == 0
	if empty && n.cfg.Bootstrap && term <= foundingTerm {
		return n.log.SetUint64([]byte(keyTerm), 0) // a power cut came between the term and the first entry
	}
	if empty && term > 0 {
		n.logger.Error("this server has voted, but its log and its checkpoint are empty; it waits for the others to readmit it", "folder", n.cfg.Dir)
		return n.probation.begin()
	}
	if n.log.doubt == nil {
		return nil
	}
	alone, err := n.alone(last)
	if err != nil {
		return err
	}
	if alone {
		n.logger.Error("the newest change of the log may be lost; as this is the only server with a vote, it goes on without",
			"folder", n.log.path, "error", n.log.doubt)
		n.log.settleDoubt()
		return nil
	}
	n.logger.Error("the newest change of the log may be lost; this server waits for the others to readmit it", "folder", n.log.path, "error", n.log.doubt)
	return n.probation.begin()
}

const (
	// keyTerm is the library's name for the newest term that this server knows.
	keyTerm = "CurrentTerm"
	// foundingTerm is that of a cluster's first entry, before anybody was elected.
	foundingTerm = 1
)

// alone reports whether this server is the only one with a vote.
func (n *Node) alone(last uint64) (bool, error) {
	head := n.checkpoint.header()
	members := head.Configuration
	for index := head.Index + 1; index <= last; index++ {
		var entry hraft.Log
		if err := n.log.GetLog(index, &entry); err != nil {
			return false, err
		}
		if entry.Type == hraft.LogConfiguration {
			var err error
			if members, err = decodeConfiguration(entry.Data); err != nil {
				return false, err
			}
		}
	}
	voters, mine := 0, false
	for _, s := range members.Servers {
		if s.Suffrage == hraft.Voter {
			voters++
			mine = mine || string(s.ID) == n.cfg.ID
		}
	}
	return mine && voters == 1, nil
}

// setAside gives a damaged file another name, so that it can be looked at.
func (n *Node) setAside(path string, why error) error {
	aside, err := setAside(path, time.Now())
	if err != nil {
		return errors.Join(why, err)
	}
	n.logger.Error("a damaged file was set aside", "file", path, "aside", aside, "error", why)
	return nil
}

// setAside renames a file to a dated name that nothing has yet.
func setAside(path string, now time.Time) (string, error) {
	dated := path + now.UTC().Format(".damaged-20060102T150405Z")
	aside := dated
	for i := 2; ; i++ {
		taken, err := exists(aside)
		if err != nil {
			return "", err
		}
		if !taken {
			break
		}
		aside = fmt.Sprintf("%s-%d", dated, i)
	}
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	return aside, syncDir(filepath.Dir(path))
}

// dropAsides removes what was set aside, now that the state is whole. The newest of each kind stays, to be looked at.
func (n *Node) dropAsides() error {
	var errs []error
	for _, name := range []string{identityFile, checkpointFile, logFile, oldLogFile} {
		asides, err := filepath.Glob(filepath.Join(n.cfg.Dir, name+".damaged-*"))
		if err != nil {
			return err
		}
		for _, path := range asides[:max(0, len(asides)-1)] { // sorted
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}

func isDamaged(err error) bool {
	var damaged *DamagedError
	return errors.As(err, &damaged)
}

// alarm tells that a file turned out to be damaged while the server runs.
type alarm struct {
	raised chan struct{}
	once   sync.Once
	err    error // read after raised
}

func newAlarm() *alarm { return &alarm{raised: make(chan struct{})} }

// heed returns the error that it is given, and raises the alarm if that says that a file is damaged.
func (a *alarm) heed(err error) error {
	if a != nil && isDamaged(err) {
		a.once.Do(func() {
			a.err = fmt.Errorf("%w; the next start sets the file aside and copies what it lacks from the other servers", err)
			close(a.raised)
		})
	}
	return err
}
