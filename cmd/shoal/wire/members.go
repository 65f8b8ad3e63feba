package wire

import (
	"context"
	"crypto/sha256"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/raft"
	"github.com/shoal-edge/shoal/store"
)

// identitiesName begins the names of the ConfigMaps, in kube-system, that bind node names to the hashes of their public keys. That
// of this very name has the bindings of earlier versions.
const identitiesName = "shoal-identities"

// claimTries is how often a binding is tried again that another one came in the way of.
const claimTries = 8

// members is what the join protocol needs of the cluster's state. It is asked on the leader only.
type members struct {
	client  *store.Client
	node    *raft.Node
	servers func() []string
}

func (s *Server) members() *members {
	return &members{client: s.client, node: s.node, servers: s.servers}
}

func (m *members) Servers() []string { return m.servers() }

func (m *members) Leader() (string, bool) {
	if m.node.IsLeader() {
		return "", true
	}
	_, address, ok := m.node.Leader()
	return address, ok
}

func (m *members) TokenSecret(ctx context.Context, id string) (*corev1.Secret, error) {
	if _, err := m.node.ReadIndex(ctx); err != nil {
		return nil, err
	}
	secret, ok := store.Get[corev1.Secret](m.client.Reader(), metav1.NamespaceSystem, pki.TokenSecretName(id))
	if !ok {
		return nil, pki.ErrTokenUnknown
	}
	return secret, nil
}

// Claim binds a name to a key, first come, first served. A name becomes free for another key when its node is deleted.
func (m *members) Claim(ctx context.Context, name, keyHash string) error {
	return m.claim(ctx, name, keyHash, false)
}

// claim takes the name from whoever has it if it is this server's own: the state may be restored from a cluster where another
// device had it.
func (m *members) claim(ctx context.Context, name, keyHash string, own bool) error {
	old, _ := store.Get[corev1.ConfigMap](m.client.Reader(), metav1.NamespaceSystem, identitiesName)
	bind := func(data map[string]string) error {
		have := data[name]
		if have == "" && old != nil {
			have = old.Data[name]
		}
		if _, exists := store.Get[corev1.Node](m.client.Reader(), "", name); !own && have != "" && have != keyHash && exists {
			return pki.ErrNameTaken
		}
		data[name] = keyHash
		return nil
	}
	for try := 0; ; try++ {
		err := m.bind(ctx, shardOf(name), bind)
		// Others of the same shard join at the same moment.
		if try >= claimTries || (!apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err)) {
			return err
		}
	}
}

func (m *members) bind(ctx context.Context, shard string, bind func(map[string]string) error) error {
	key := store.Key{Resource: "configmaps", Namespace: metav1.NamespaceSystem, Name: shard}
	_, err := m.client.Modify(ctx, key, "", func(obj api.Object) error {
		identities, ok := obj.(*corev1.ConfigMap)
		if !ok {
			return fmt.Errorf("%s is a %T", key, obj)
		}
		if identities.Data == nil {
			identities.Data = map[string]string{}
		}
		return bind(identities.Data)
	})
	if !apierrors.IsNotFound(err) {
		return err
	}
	identities := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: shard},
		Data:       map[string]string{},
	}
	if err := bind(identities.Data); err != nil {
		return err
	}
	_, err = m.client.Create(ctx, identities)
	return err
}

// shardOf is the ConfigMap that a name's binding is in. There are 64, so that a fleet's bindings fit, and a join neither waits
// for all others nor writes theirs again.
func shardOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("%s-%02x", identitiesName, sum[0]&0x3f)
}
