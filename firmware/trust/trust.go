// Package trust owns what a device believes of a release: TUF's rules (https://theupdateframework.github.io/specification/, 5.3) over the
// metadata that a release carries. Keys that are offline sign what releases there are and for which hardware; the cluster chooses
// among them, and cannot make one up. The rules are go-tuf's; here is what a device remembers, and what a target has to say.
package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
)

// State is what a device remembers of what it has believed. It starts with the root that the device was made with.
type State struct {
	Root []byte `json:"root,omitempty"`
	// The versions below which nothing is believed any more, and the keys for which that holds: with other keys, versions start anew, so
	// that a stolen key cannot block a device with a version that is never reached (5.3.11).
	Versions map[string]int64  `json:"versions,omitempty"`
	Keys     map[string]string `json:"keys,omitempty"`
	// Time is the latest time that signed metadata has shown to be past. No clock is needed for it, and a wrong one does not change it.
	Time time.Time `json:"time,omitzero"`
}

// Target is what signed targets say of an artifact, beside its length and hash. Its path is the release's and the artifact's name.
type Target struct {
	Version       string                 `json:"version"`
	Counter       int64                  `json:"counter"`
	SecurityFloor int64                  `json:"securityFloor,omitempty"`
	HardwareIDs   []string               `json:"hardwareIDs"`
	DataSchema    *firmwarev1.DataSchema `json:"dataSchema,omitempty"`
	// IndexSHA256 is that of the artifact's chunks. Empty: it has none.
	IndexSHA256 string `json:"indexSHA256,omitempty"`
}

// Issued is the field of a signed timestamp that says when it was made, as RFC 3339.
const Issued = "x-shoal-issued"

// maxRoots bounds the chain of roots in one release.
const maxRoots = 64

// Errors of Verify, beside go-tuf's own.
var (
	ErrUnsigned = errors.New("the release carries no signed metadata")
	ErrOlder    = errors.New("older metadata than the device has believed before")
	ErrTarget   = errors.New("the signed targets do not say that")
)

// Verify checks that a release's makers have signed what the device is told, for its hardware, and returns what the device
// remembers from now on. now is the device's clock, which may be wrong: in 1970 only what is remembered counts.
func Verify(s State, told *firmwarev1.Assignment, m *firmwarev1.SignedMetadata, hardware string, now time.Time) (State, error) {
	if m == nil {
		return s, ErrUnsigned
	}
	trusted, err := roots(s, m)
	if err != nil {
		return s, fmt.Errorf("root: %w", err)
	}
	if trusted.RefTime = now; s.Time.After(now) {
		trusted.RefTime = s.Time
	}
	timestamp, err := trusted.UpdateTimestamp(m.Timestamp)
	if err != nil {
		return s, fmt.Errorf("timestamp: %w", err)
	}
	snapshot, err := trusted.UpdateSnapshot(m.Snapshot, false)
	if err != nil {
		return s, fmt.Errorf("snapshot: %w", err)
	}
	targets, err := trusted.UpdateTargets(m.Targets)
	if err != nil {
		return s, fmt.Errorf("targets: %w", err)
	}
	next := State{Versions: map[string]int64{}, Keys: map[string]string{}, Time: s.Time}
	if next.Root, err = trusted.Root.ToBytes(false); err != nil {
		return s, err
	}
	for role, version := range map[string]int64{
		metadata.TIMESTAMP: timestamp.Signed.Version, metadata.SNAPSHOT: snapshot.Signed.Version, metadata.TARGETS: targets.Signed.Version,
	} {
		keys := keysOf(trusted.Root, role)
		if keys == s.Keys[role] && version < s.Versions[role] {
			return s, fmt.Errorf("%s version %d, and %d was believed: %w", role, version, s.Versions[role], ErrOlder)
		}
		next.Versions[role], next.Keys[role] = version, keys
	}
	if text, ok := timestamp.Signed.UnrecognizedFields[Issued].(string); ok {
		if issued, err := time.Parse(time.RFC3339, text); err == nil && issued.After(next.Time) {
			next.Time = issued
		}
	}
	if err := matches(targets.Signed.Targets, told, hardware); err != nil {
		return s, err
	}
	return next, nil
}

// roots follows the chain of roots, each signed by the one before.
func roots(s State, m *firmwarev1.SignedMetadata) (*trustedmetadata.TrustedMetadata, error) {
	if len(m.Roots) > maxRoots {
		return nil, fmt.Errorf("%d of them are too many", len(m.Roots))
	}
	trusted, err := trustedmetadata.New(s.Root)
	if err != nil {
		return nil, err
	}
	for _, data := range m.Roots {
		var head struct {
			Signed struct {
				Version int64 `json:"version"`
			} `json:"signed"`
		}
		if err := json.Unmarshal(data, &head); err != nil {
			return nil, err
		}
		if head.Signed.Version <= trusted.Root.Signed.Version {
			continue // the device has come past it
		}
		if _, err := trusted.UpdateRoot(data); err != nil {
			return nil, err
		}
	}
	return trusted, nil
}

// keysOf names the keys that may sign for a role.
func keysOf(root *metadata.Metadata[metadata.RootType], role string) string {
	r := root.Signed.Roles[role]
	if r == nil {
		return ""
	}
	ids := slices.Clone(r.KeyIDs)
	slices.Sort(ids)
	return strings.Join(ids, ",")
}

// matches compares what the device is told with what was signed.
func matches(targets map[string]*metadata.TargetFiles, told *firmwarev1.Assignment, hardware string) error {
	path := told.Release + "/" + told.Artifact.Name
	file := targets[path]
	if file == nil || file.Custom == nil {
		return fmt.Errorf("%q: %w", path, ErrTarget)
	}
	var t Target
	if err := json.Unmarshal(*file.Custom, &t); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	schema, toldSchema := firmwarev1.DataSchema{}, firmwarev1.DataSchema{}
	if t.DataSchema != nil {
		schema = *t.DataSchema
	}
	if told.DataSchema != nil {
		toldSchema = *told.DataSchema
	}
	index := ""
	if told.Artifact.Chunks != nil {
		index = told.Artifact.Chunks.IndexSHA256
	}
	for what, same := range map[string]bool{
		"index of chunks": t.IndexSHA256 == index,
		"length":          file.Length == told.Artifact.Size, "sha256": file.Hashes["sha256"].String() == told.Artifact.SHA256,
		"version": t.Version == told.Version, "counter": t.Counter == told.Counter, "securityFloor": t.SecurityFloor == told.SecurityFloor,
		"dataSchema": schema == toldSchema, "hardware": slices.Contains(t.HardwareIDs, hardware),
	} {
		if !same {
			return fmt.Errorf("%q: its %s: %w", path, what, ErrTarget)
		}
	}
	return nil
}
