package trust_test

import (
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/firmware/trust"
)

var (
	today = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	epoch = time.Unix(0, 0).UTC()
)

// maker is who makes releases: offline keys for the root (two of three), and one for each other role.
type maker struct {
	t    *testing.T
	keys map[string][]ed25519.PrivateKey
	root *metadata.Metadata[metadata.RootType]
}

func newMaker(t *testing.T) *maker {
	m := &maker{t: t, keys: map[string][]ed25519.PrivateKey{}, root: metadata.Root(today.AddDate(1, 0, 0))}
	for role, n := range map[string]int{metadata.ROOT: 3, metadata.TIMESTAMP: 1, metadata.SNAPSHOT: 1, metadata.TARGETS: 1} {
		for range n {
			m.addKey(role)
		}
	}
	m.root.Signed.Roles[metadata.ROOT].Threshold = 2
	return m
}

func (m *maker) addKey(role string) {
	public, private, err := ed25519.GenerateKey(nil)
	m.must(err)
	key, err := metadata.KeyFromPublicKey(public)
	m.must(err)
	m.must(m.root.Signed.AddKey(key, role))
	m.keys[role] = append(m.keys[role], private)
}

func (m *maker) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func sign[T metadata.Roles](m *maker, md *metadata.Metadata[T], keys []ed25519.PrivateKey) []byte {
	m.t.Helper()
	for _, key := range keys {
		signer, err := signature.LoadSigner(key, crypto.Hash(0))
		m.must(err)
		_, err = md.Sign(signer)
		m.must(err)
	}
	data, err := md.ToBytes(false)
	m.must(err)
	return data
}

func (m *maker) rootBytes() []byte {
	m.root.ClearSignatures()
	return sign(m, m.root, m.keys[metadata.ROOT][:2])
}

// offer is what a device is told and the metadata that comes with it.
type offer struct {
	told     *firmwarev1.Assignment
	metadata *firmwarev1.SignedMetadata
}

// release signs a release as of a version of the metadata, issued at a time and good for a month.
func (m *maker) release(version int64, counter int64, issued time.Time) *offer {
	sum := strings.Repeat(fmt.Sprint(counter%10), 64)
	told := &firmwarev1.Assignment{
		Release: "os", Version: fmt.Sprint("v", counter), Counter: counter,
		Artifact: firmwarev1.Artifact{Name: "image", Size: 100, SHA256: sum},
	}
	custom, err := json.Marshal(trust.Target{Version: told.Version, Counter: counter, HardwareIDs: []string{"board"}})
	m.must(err)
	raw, expires := json.RawMessage(custom), issued.AddDate(0, 1, 0)
	targets := metadata.Targets(expires)
	targets.Signed.Version = version
	file := &metadata.TargetFiles{Length: 100, Hashes: metadata.Hashes{}, Custom: &raw}
	var digest metadata.HexBytes
	m.must(json.Unmarshal([]byte(`"`+sum+`"`), &digest))
	file.Hashes["sha256"] = digest
	targets.Signed.Targets["os/image"] = file
	snapshot := metadata.Snapshot(expires)
	snapshot.Signed.Version = version
	snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(version)
	timestamp := metadata.Timestamp(expires)
	timestamp.Signed.Version = version
	timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(version)
	timestamp.Signed.UnrecognizedFields = map[string]any{trust.Issued: issued.Format(time.RFC3339)}
	return &offer{told: told, metadata: &firmwarev1.SignedMetadata{
		Timestamp: sign(m, timestamp, m.keys[metadata.TIMESTAMP]), Snapshot: sign(m, snapshot, m.keys[metadata.SNAPSHOT]),
		Targets: sign(m, targets, m.keys[metadata.TARGETS]),
	}}
}

func (o *offer) to(s trust.State, clock time.Time) (trust.State, error) {
	return trust.Verify(s, o.told, o.metadata, "board", clock)
}

// TestAttacks: each is refused with a right clock and with one that stands in 1970.
func TestAttacks(t *testing.T) {
	for _, clock := range []time.Time{today, epoch} {
		m := newMaker(t)
		first := trust.State{Root: m.rootBytes()}
		good := m.release(5, 5, today.AddDate(0, 0, -1))
		believed, err := good.to(first, clock)
		if err != nil {
			t.Fatalf("a good release, %s: %v", clock, err)
		}
		if _, err := good.to(believed, clock); err != nil {
			t.Fatalf("the same once more: %v", err)
		}
		newer := m.release(6, 6, today)
		stranger := newMaker(t)
		for name, attack := range map[string]func() error{
			"unsigned": func() error {
				_, err := trust.Verify(believed, newer.told, nil, "board", clock)
				return err
			},
			"arbitrary software": func() error { _, err := stranger.release(9, 9, today).to(believed, clock); return err },
			"a file that was not signed": func() error {
				o := m.release(7, 7, today)
				o.told.Artifact.SHA256 = strings.Repeat("e", 64)
				_, err := o.to(believed, clock)
				return err
			},
			"a counter that was not signed": func() error {
				o := m.release(7, 7, today)
				o.told.Counter = 99
				_, err := o.to(believed, clock)
				return err
			},
			"rollback": func() error { _, err := m.release(4, 4, today).to(believed, clock); return err },
			"freeze": func() error { // what has expired before a time that is known to be past
				later, err := m.release(7, 7, today.AddDate(0, 3, 0)).to(believed, clock)
				if err != nil {
					t.Fatal(err)
				}
				_, err = m.release(8, 8, today).to(later, clock)
				return err
			},
			"mix and match": func() error {
				o := m.release(7, 7, today)
				o.metadata.Targets = newer.metadata.Targets
				_, err := o.to(believed, clock)
				return err
			},
			"wrong device": func() error {
				_, err := trust.Verify(believed, newer.told, newer.metadata, "toaster", clock)
				return err
			},
			"a root that the old one has not signed": func() error {
				stranger.root.Signed.Version = 2
				o := stranger.release(9, 9, today)
				o.metadata.Roots = [][]byte{stranger.rootBytes()}
				_, err := o.to(believed, clock)
				return err
			},
			"a root that too few have signed": func() error {
				m.root.Signed.Version = 2
				defer func() { m.root.Signed.Version = 1 }()
				m.root.ClearSignatures()
				o := m.release(7, 7, today)
				o.metadata.Roots = [][]byte{sign(m, m.root, m.keys[metadata.ROOT][:1])}
				_, err := o.to(believed, clock)
				return err
			},
			"a broken signature": func() error {
				o := m.release(7, 7, today)
				o.metadata.Targets = []byte(strings.Replace(string(o.metadata.Targets), `"v7"`, `"v8"`, 1))
				o.metadata.Targets = []byte(strings.Replace(string(o.metadata.Targets), `\"v7\"`, `\"v8\"`, 1))
				_, err := o.to(believed, clock)
				return err
			},
			"nonsense": func() error {
				o := &offer{told: newer.told, metadata: &firmwarev1.SignedMetadata{Timestamp: []byte("{"), Snapshot: []byte("1")}}
				_, err := o.to(believed, clock)
				return err
			},
		} {
			if err := attack(); err == nil {
				t.Errorf("%s: believed, with the clock at %s", name, clock)
			}
		}
	}
}

// TestFastForward: a stolen key has signed a version that is never reached; new keys make the device listen again.
func TestFastForward(t *testing.T) {
	m := newMaker(t)
	s, err := m.release(1<<40, 5, today).to(trust.State{Root: m.rootBytes()}, today)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.release(6, 6, today).to(s, today); !errors.Is(err, trust.ErrOlder) {
		t.Fatalf("lower versions of the same keys: %v", err)
	}
	m.root.Signed.Version = 2
	for _, role := range []string{metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		m.must(m.root.Signed.RevokeKey(m.root.Signed.Roles[role].KeyIDs[0], role))
		m.keys[role] = nil
		m.addKey(role)
	}
	o := m.release(6, 6, today)
	o.metadata.Roots = [][]byte{m.rootBytes()}
	if s, err = o.to(s, today); err != nil {
		t.Fatal(err)
	}
	if _, err := m.release(5, 5, today).to(s, today); !errors.Is(err, trust.ErrOlder) {
		t.Errorf("the new keys' versions are not kept: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	m := newMaker(&testing.T{})
	o, root := m.release(1, 1, today), m.rootBytes()
	f.Add(o.metadata.Timestamp, o.metadata.Snapshot, o.metadata.Targets, root)
	f.Fuzz(func(t *testing.T, timestamp, snapshot, targets, next []byte) {
		bad := &firmwarev1.SignedMetadata{Timestamp: timestamp, Snapshot: snapshot, Targets: targets, Roots: [][]byte{next}}
		told := *o.told
		told.Counter = 77 // nobody has signed that
		if _, err := trust.Verify(trust.State{Root: root}, &told, bad, "board", today); err == nil {
			t.Fatal("believed")
		}
	})
}
