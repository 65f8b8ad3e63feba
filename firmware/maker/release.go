package maker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/firmware/trust"
)

// Measure says of an artifact what is in its file: its size and hash. What the artifact says already has to be true.
func Measure(a *firmwarev1.Artifact, file io.Reader) error {
	sum := sha256.New()
	size, err := io.Copy(sum, file)
	if err != nil {
		return err
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	if a.Size != 0 && a.Size != size || a.SHA256 != "" && a.SHA256 != digest {
		return fmt.Errorf("the file of artifact %q has %d bytes with SHA-256 %s, and the release says otherwise", a.Name, size, digest)
	}
	a.Size, a.SHA256 = size, digest
	return nil
}

// SignRelease signs a release beside those that the folder has, and gives it the metadata that devices ask for.
func (f *Folder) SignRelease(r *firmwarev1.Release, keys []*Key, now, expires time.Time) error {
	if err := complete(r); err != nil {
		return err
	}
	root, err := f.root()
	if err != nil {
		return err
	}
	targets, err := load(f.path(targetsFile), metadata.Targets())
	if err != nil {
		return err
	}
	snapshot, err := load(f.path(snapshotFile), metadata.Snapshot())
	if err != nil {
		return err
	}
	timestamp, err := load(f.path(timestampFile), metadata.Timestamp())
	if err != nil {
		return err
	}
	if err := add(targets.Signed.Targets, r); err != nil {
		return err
	}
	// One version for all three, above each of them: a signing that was cut off is done again.
	version := max(targets.Signed.Version, snapshot.Signed.Version, timestamp.Signed.Version)
	if _, err := os.Stat(f.path(timestampFile)); err == nil || !errors.Is(err, os.ErrNotExist) {
		version++
	}
	targets.Signed.Version, targets.Signed.Expires = version, expires
	snapshot.Signed.Version, snapshot.Signed.Expires = version, expires
	timestamp.Signed.Version, timestamp.Signed.Expires = version, expires
	snapshot.Signed.Meta[targetsFile] = metadata.MetaFile(version)
	timestamp.Signed.Meta[snapshotFile] = metadata.MetaFile(version)
	timestamp.Signed.UnrecognizedFields = map[string]any{trust.Issued: now.UTC().Format(time.RFC3339)}
	for role, sign := range map[string]func() (int, error){
		metadata.TARGETS:   func() (int, error) { return signBy(targets, root, metadata.TARGETS, keys) },
		metadata.SNAPSHOT:  func() (int, error) { return signBy(snapshot, root, metadata.SNAPSHOT, keys) },
		metadata.TIMESTAMP: func() (int, error) { return signBy(timestamp, root, metadata.TIMESTAMP, keys) },
	} {
		if n, err := sign(); err != nil {
			return err
		} else if n < root.Signed.Roles[role].Threshold {
			return fmt.Errorf("none of these keys, with its private half, may sign %s", role)
		}
	}
	if err := errors.Join(f.save(targetsFile, targets), f.save(snapshotFile, snapshot), f.save(timestampFile, timestamp)); err != nil {
		return err
	}
	m := &firmwarev1.SignedMetadata{}
	if m.Roots, err = f.roots(root.Signed.Version); err != nil {
		return err
	}
	for _, part := range []struct {
		to   *[]byte
		from interface{ ToBytes(bool) ([]byte, error) }
	}{{&m.Targets, targets}, {&m.Snapshot, snapshot}, {&m.Timestamp, timestamp}} {
		if *part.to, err = part.from.ToBytes(false); err != nil {
			return err
		}
	}
	r.Spec.Metadata = m
	return nil
}

// load reads a file of metadata, or returns fresh for the first release.
func load[T metadata.Roles](path string, fresh *metadata.Metadata[T]) (*metadata.Metadata[T], error) {
	m, err := new(metadata.Metadata[T]).FromFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return fresh, nil
	}
	return m, err
}

// complete reports what a release lacks that has to be signed.
func complete(r *firmwarev1.Release) error {
	switch {
	case r.Name == "":
		return errors.New("the release has no metadata.name")
	case r.Spec.Version == "" || r.Spec.Counter < 1:
		return errors.New("the release lacks spec.version or spec.counter")
	case len(r.Spec.HardwareIDs) == 0 || len(r.Spec.Artifacts) == 0:
		return errors.New("the release lacks spec.hardwareIDs or spec.artifacts")
	}
	for _, a := range r.Spec.Artifacts {
		if a.Name == "" || a.Size == 0 || len(a.SHA256) != 2*sha256.Size {
			return fmt.Errorf("artifact %q lacks its size or sha256: name its file", a.Name)
		}
	}
	return nil
}

// add adds a release's artifacts to the targets.
func add(targets map[string]*metadata.TargetFiles, r *firmwarev1.Release) error {
	for _, a := range r.Spec.Artifacts {
		hardware := a.HardwareIDs
		if len(hardware) == 0 {
			hardware = r.Spec.HardwareIDs
		}
		target := trust.Target{
			Version: r.Spec.Version, Counter: r.Spec.Counter, SecurityFloor: r.Spec.SecurityFloor, HardwareIDs: hardware, DataSchema: r.Spec.DataSchema,
		}
		if a.Chunks != nil {
			target.IndexSHA256 = a.Chunks.IndexSHA256
		}
		custom, err := json.Marshal(target)
		if err != nil {
			return err
		}
		digest, err := hex.DecodeString(a.SHA256)
		if err != nil {
			return fmt.Errorf("artifact %q: sha256: %w", a.Name, err)
		}
		raw, path := json.RawMessage(custom), r.Name+"/"+a.Name
		file := &metadata.TargetFiles{Length: a.Size, Hashes: metadata.Hashes{"sha256": digest}, Custom: &raw}
		if old := targets[path]; old != nil && !old.Equal(*file) {
			return fmt.Errorf("%s was signed before with other content: a correction is another release, with a higher counter", path)
		}
		targets[path] = file
	}
	return nil
}

// Verify judges a signed release as a new device of each of its kinds of hardware would, whose clock shows now: it returns the first objection.
func Verify(root []byte, r *firmwarev1.Release, now time.Time) error {
	if err := complete(r); err != nil {
		return err
	}
	for _, hardware := range r.Spec.HardwareIDs {
		a := r.Spec.ArtifactFor(hardware)
		if a == nil {
			return fmt.Errorf("the release has nothing for %s", hardware)
		}
		told := &firmwarev1.Assignment{
			Release: r.Name, Version: r.Spec.Version, Counter: r.Spec.Counter, SecurityFloor: r.Spec.SecurityFloor,
			DataSchema: r.Spec.DataSchema, Artifact: *a,
		}
		if _, err := trust.Verify(trust.State{Root: root}, told, r.Spec.Metadata, hardware, now); err != nil {
			return fmt.Errorf("a device of kind %s refuses it: %w", hardware, err)
		}
	}
	return nil
}
