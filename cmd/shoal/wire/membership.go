package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/raft"
	"github.com/shoal-edge/shoal/store"
)

// membersPath is also where a member tells a server who and where it is: POST, with its certificate.
const membersPath = apiserver.MembersPath

// announceTimeout bounds the change of the membership that an announcement may need.
const announceTimeout = 8 * time.Second

// serveAnnouncement takes an announcement of another member. A server that does not lead remembers the address.
func (s *Server) serveAnnouncement(w http.ResponseWriter, r *http.Request) {
	from, witness, err := readAnnouncement(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if !s.node.IsLeader() {
		s.node.Hint(from.ID, from.Address)
		_, leader, _ := s.node.Leader()
		w.WriteHeader(http.StatusMisdirectedRequest)
		_, _ = io.WriteString(w, leader)
		return
	}
	switch own := s.node.Cluster(); from.Cluster {
	case own:
		s.takeIn(w, r, from, witness)
	case raft.ClusterID{}:
		w.WriteHeader(http.StatusPreconditionRequired)
		_, _ = io.WriteString(w, own.String())
	default:
		s.o.Logger.Warn("refused a server of another cluster", "server", from.ID, "cluster", from.Cluster, "own", own)
		http.Error(w, fmt.Sprintf("this is the cluster %s, and the server's data is of %s: move its raft folder away and start it again",
			own, from.Cluster), http.StatusConflict)
	}
}

// takeIn answers a member of this cluster. One on probation hears what it must have before it gets a vote.
func (s *Server) takeIn(w http.ResponseWriter, r *http.Request, from announcement, witness bool) {
	ctx, cancel := context.WithTimeout(r.Context(), announceTimeout)
	defer cancel()
	var readmission raft.Readmission
	var err error
	if from.Probation {
		readmission, err = s.node.Readmit(ctx, from.ID, from.Address, witness)
	} else {
		err = s.node.Announce(ctx, from.ID, from.Address, witness)
	}
	if err != nil {
		s.o.Logger.Warn("a member was not taken in", "server", from.ID, "probation", from.Probation, "error", err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	s.o.Logger.Info("a member told where it is", "server", from.ID, "address", from.Address, "witness", witness, "probation", from.Probation)
	if !from.Probation {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(readmission) // who does not hear it asks again
}

// readAnnouncement checks that an announcement is the certificate's.
func readAnnouncement(r *http.Request) (from announcement, witness bool, err error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return from, false, errors.New("members announce themselves here, with their certificates")
	}
	name, ok := pki.ServerName(r.TLS.PeerCertificates[0])
	if !ok {
		name, witness = pki.WitnessName(r.TLS.PeerCertificates[0])
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 4<<10)).Decode(&from); err != nil || (!ok && !witness) || from.ID != name {
		return from, false, errors.New("the announcement does not fit the certificate")
	}
	return from, witness, nil
}

// Member is one member of the control plane as people see it.
type Member struct {
	Name    string `json:"name"`
	Address string `json:"address,omitempty"` // empty while nobody knows it
	// Kind is server or witness, Role leader, voter or spare.
	Kind string `json:"kind"`
	Role string `json:"role"`
	// Healthy says that it follows the log; SilentSeconds is for how long it has not, as far as the leader knows.
	Healthy       bool  `json:"healthy"`
	SilentSeconds int64 `json:"silentSeconds,omitempty"`
	// Behind is how many entries of the log it lacked when it last answered.
	Behind uint64 `json:"behind,omitempty"`
}

// memberList is the consensus as administrators see its members.
type memberList struct{ node *raft.Node }

func (m memberList) List(ctx context.Context) (any, error) {
	healths, err := m.node.Health(ctx)
	if err != nil {
		return nil, memberError(err, "")
	}
	out := make([]Member, 0, len(healths))
	for _, h := range healths {
		member := Member{
			Name: h.ID, Address: h.Address, Kind: string(pki.RoleServer), Role: "spare",
			Healthy: h.Well, SilentSeconds: int64(h.Silent / time.Second), Behind: h.Behind,
		}
		if h.Witness {
			member.Kind = string(pki.RoleWitness)
		}
		switch {
		case h.Leader:
			member.Role = "leader"
		case h.Voter:
			member.Role = "voter"
		}
		out = append(out, member)
	}
	return out, nil
}

func (m memberList) Remove(ctx context.Context, name string) error {
	return memberError(m.node.Dismiss(ctx, name), name)
}

func memberError(err error, name string) error {
	members := schema.GroupResource{Resource: "members"}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNoMember):
		return apierrors.NewNotFound(members, name)
	case errors.Is(err, raft.ErrMemberRuns):
		return apierrors.NewConflict(members, name, err)
	}
	return apierrors.NewServiceUnavailable(err.Error())
}

// deviceGone says that a server's device was deleted from the cluster: it has no node, and no agent there makes it anew.
func (s *Server) deviceGone(name string) bool {
	_, exists := store.Get[corev1.Node](s.client.Reader(), "", name)
	return !exists
}
