package tokens

import (
	"github.com/golang-jwt/jwt/v5"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-edge/shoal/apiserver/access"
)

// claims is what a token says. The fields and their names are those of Kubernetes.
type claims struct {
	jwt.RegisteredClaims
	Kubernetes bound `json:"kubernetes.io"`

	key string // whose signature was right
}

// bound is the account of a token and the objects that it is bound to.
type bound struct {
	Namespace string `json:"namespace,omitempty"`
	Account   ref    `json:"serviceaccount"`
	Pod       *ref   `json:"pod,omitempty"`
	Secret    *ref   `json:"secret,omitempty"`
	Node      *ref   `json:"node,omitempty"` // with a pod: where that is, and nothing to be bound to
}

// ref names an object.
type ref struct {
	Name string    `json:"name,omitempty"`
	UID  types.UID `json:"uid,omitempty"`
}

// What the user of a token carries as extra.
const (
	extraPodName    = "authentication.kubernetes.io/pod-name"
	extraPodUID     = "authentication.kubernetes.io/pod-uid"
	extraNodeName   = "authentication.kubernetes.io/node-name"
	extraNodeUID    = "authentication.kubernetes.io/node-uid"
	extraCredential = "authentication.kubernetes.io/credential-id"
)

// user is who shows the token.
func (c *claims) user() *access.User {
	k := &c.Kubernetes
	u := &access.User{
		Name: access.AccountUser(k.Namespace, k.Account.Name), UID: string(k.Account.UID), Groups: access.AccountGroups(k.Namespace),
		Extra: map[string][]string{},
	}
	add := func(key, value string) {
		if value != "" {
			u.Extra[key] = []string{value}
		}
	}
	if c.ID != "" {
		add(extraCredential, "JTI="+c.ID)
	}
	if k.Pod != nil {
		add(extraPodName, k.Pod.Name)
		add(extraPodUID, string(k.Pod.UID))
	}
	if k.Node != nil {
		add(extraNodeName, k.Node.Name)
		add(extraNodeUID, string(k.Node.UID))
	}
	return u
}
