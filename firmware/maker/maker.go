// Package maker owns the other end of trust: the folder in which those who make releases keep what they have signed, by TUF's rules
// (https://theupdateframework.github.io/specification/). It is used where releases are built, never on a device or by a server.
//
// The root says whose keys count, and for what. It is signed by several people, each on a machine of their own; the other roles are signed
// wherever releases are made. Private keys are files that are named each time, and never in the folder.
package maker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/shoal-edge/shoal/durable"
)

// The files of a folder. Each root also stays under its number, 1.root.json: devices follow them one by one.
const (
	rootFile      = "root.json"
	pendingFile   = "root.pending.json"
	targetsFile   = "targets.json"
	snapshotFile  = "snapshot.json"
	timestampFile = "timestamp.json"
)

// onlineRoles are those that are signed for each release.
var onlineRoles = []string{metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP}

// Folder is where a release's makers keep their metadata.
type Folder struct{ dir string }

// Roles say whose keys count.
type Roles struct {
	// Root are the keys of those who may change the roles, Threshold how many of them it takes.
	Root      []*Key
	Threshold int
	// Release are the keys that releases are signed with, each of which is enough.
	Release []*Key
	// Expires is until when devices believe this.
	Expires time.Time
}

// Init begins a folder with a first root. It counts once enough of its keys have signed: see Sign.
func Init(dir string, r Roles) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f := &Folder{dir}
	for _, name := range []string{rootFile, pendingFile} {
		if _, err := os.Lstat(f.path(name)); !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%s is there already: to change its keys, rotate it", f.path(name))
		}
	}
	return f, f.propose(r, 1)
}

// Open opens a folder.
func Open(dir string) (*Folder, error) {
	f := &Folder{dir}
	if _, err := os.Stat(f.path(rootFile)); err == nil {
		return f, nil
	}
	if _, err := os.Stat(f.path(pendingFile)); err != nil {
		return nil, fmt.Errorf("%s is no folder of signed metadata: begin one with init", dir)
	}
	return f, nil
}

func (f *Folder) path(name string) string { return filepath.Join(f.dir, name) }

// Rotate begins a next root, which counts once enough keys of the present one and enough of its own have signed.
func (f *Folder) Rotate(r Roles) error {
	now, err := f.root()
	if err != nil {
		return err
	}
	return f.propose(r, now.Signed.Version+1)
}

// propose writes a root that nobody has signed yet.
func (f *Folder) propose(r Roles, version int64) error {
	if r.Threshold < 1 || r.Threshold > len(r.Root) {
		return fmt.Errorf("a threshold of %d is not to be reached with %d keys for the root", r.Threshold, len(r.Root))
	}
	if len(r.Release) == 0 {
		return errors.New("no key for releases")
	}
	root := metadata.Root(r.Expires)
	root.Signed.Version = version
	for _, k := range r.Root {
		if err := root.Signed.AddKey(k.public, metadata.ROOT); err != nil {
			return err
		}
	}
	if len(root.Signed.Roles[metadata.ROOT].KeyIDs) != len(r.Root) {
		return errors.New("a key for the root is named twice")
	}
	root.Signed.Roles[metadata.ROOT].Threshold = r.Threshold
	for _, role := range onlineRoles {
		for _, k := range r.Release {
			if err := root.Signed.AddKey(k.public, role); err != nil {
				return err
			}
		}
	}
	return f.save(pendingFile, root)
}

func (f *Folder) save(name string, m interface{ ToBytes(bool) ([]byte, error) }) error {
	data, err := m.ToBytes(true)
	if err != nil {
		return err
	}
	return durable.Write(f.path(name), append(data, '\n'), 0o644)
}

func (f *Folder) root() (*metadata.Metadata[metadata.RootType], error) {
	root, err := metadata.Root().FromFile(f.path(rootFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the first root still lacks signatures (%s): %w", f.path(pendingFile), err)
	}
	return root, err
}

// SignRoot adds the signatures of those keys to the root that is to come, and puts it in force when that is enough: missing is how many
// more are needed, of the present root and of the one to come.
func (f *Folder) SignRoot(keys []*Key) (version int64, missing int, err error) {
	next, err := metadata.Root().FromFile(f.path(pendingFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, errors.New("no root waits for signatures")
	}
	if err != nil {
		return 0, 0, err
	}
	judges := []*metadata.Metadata[metadata.RootType]{next}
	if next.Signed.Version > 1 {
		now, err := f.root()
		if err != nil {
			return 0, 0, err
		}
		judges = append(judges, now)
	}
	added := 0
	for _, judge := range judges {
		n, err := addSignatures(next, judge, metadata.ROOT, keys)
		if err != nil {
			return 0, 0, err
		}
		added += n
	}
	if len(keys) > 0 && added == 0 {
		return 0, 0, errors.New("none of these keys, with its private half, is one of the root's that has not signed yet")
	}
	for _, judge := range judges {
		missing = max(missing, lacks(next, judge))
	}
	if missing > 0 {
		return next.Signed.Version, missing, f.save(pendingFile, next)
	}
	for _, judge := range judges {
		if err := judge.VerifyDelegate(metadata.ROOT, next); err != nil {
			return 0, 0, err
		}
	}
	// Under its number first: a root in force that could not be followed would cut devices off.
	err = f.save(strconv.FormatInt(next.Signed.Version, 10)+"."+rootFile, next)
	if err == nil {
		err = f.save(rootFile, next)
	}
	return next.Signed.Version, 0, errors.Join(err, os.Remove(f.path(pendingFile)))
}

// lacks is how many signatures a root lacks for a judge.
func lacks(next, judge *metadata.Metadata[metadata.RootType]) int {
	n := judge.Signed.Roles[metadata.ROOT].Threshold
	for _, id := range judge.Signed.Roles[metadata.ROOT].KeyIDs {
		if signed(next, id) {
			n--
		}
	}
	return max(n, 0)
}

// roots are all roots after the first, which devices are made with.
func (f *Folder) roots(version int64) (all [][]byte, err error) {
	for v := int64(2); v <= version; v++ {
		data, err := os.ReadFile(f.path(strconv.FormatInt(v, 10) + "." + rootFile))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}
