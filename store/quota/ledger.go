package quota

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/store"
)

// ledgers is the resource of the objects that make writes under quotas follow each other. It is served to nobody.
const ledgers = "quotaledgers.internal.shoal.dev"

// Ledger is the key of a namespace's ledger. Every write that uses more of what a quota limits changes it in the same transaction,
// and expects it as it was before the use was counted: of two writes that counted the same, one begins anew.
func Ledger(namespace string) store.Key {
	return store.Key{Resource: ledgers, Namespace: namespace, Name: "quota"}
}

// Turn is the operation that a write under a quota adds to its transaction. It is to be made before anything is counted.
func Turn(r store.Reader, namespace string) (store.Op, error) {
	k := Ledger(namespace)
	page := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: k.Namespace, Name: k.Name}}
	value, err := page.Marshal()
	return store.Op{Key: k, Value: value, Expect: revisionOf(r, k)}, err
}

// Closed is what goes with the last quota of a namespace: its ledger.
func Closed(r store.Reader, gone *corev1.ResourceQuota) []store.Op {
	items, _ := r.List("resourcequotas", gone.Namespace)
	for _, item := range items {
		if item.Key.Name != gone.Name {
			return nil
		}
	}
	k := Ledger(gone.Namespace)
	return []store.Op{{Key: k, Expect: revisionOf(r, k)}}
}

func revisionOf(r store.Reader, k store.Key) uint64 {
	item, ok := r.Get(k)
	if !ok {
		return store.Absent
	}
	return item.Revision
}
