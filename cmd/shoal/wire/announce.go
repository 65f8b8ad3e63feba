package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/raft"
)

// membersPath is where a server tells the leader who and where it is: POST, with a server's certificate.
const membersPath = "/shoal/v1/members"

// announcement is a server's name and address, and its cluster, if it belongs to one already. The name must be the certificate's.
type announcement struct {
	ID      string         `json:"id"`
	Address string         `json:"address"`
	Cluster raft.ClusterID `json:"cluster,omitzero"`
}

// announce tells the leader this server's address until the membership has it. Addresses change (DHCP), names and keys do not.
func (s *Server) announce(ctx context.Context) error {
	me := announcement{ID: s.o.Config.NodeName, Address: s.address}
	client := &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: s.id.server.ClientConfig("http/1.1"), DisableKeepAlives: true},
	}
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 15*time.Second) {
		changed := s.node.LeaderChanges()
		known := slices.ContainsFunc(s.node.Servers(), func(m raft.Server) bool { return m.ID == me.ID && m.Address == me.Address })
		if known && !s.node.Cluster().IsZero() {
			return nil
		}
		tell := s.tellLeader
		if s.node.IsLeader() { // its address has changed while it was off
			tell = func(ctx context.Context, _ *http.Client, me announcement) error {
				return s.node.Join(ctx, me.ID, me.Address, true)
			}
		}
		if err := tell(ctx, client, me); err == nil {
			return nil
		} else if ctx.Err() == nil {
			s.o.Logger.Info("not a member of the control plane yet", "error", err)
		}
		select {
		case <-changed:
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tellLeader asks the leader, or else all the servers that are known, until one takes the announcement.
func (s *Server) tellLeader(ctx context.Context, client *http.Client, me announcement) error {
	candidates := slices.Concat(s.id.servers, s.o.Config.Join.Servers, s.servers(), s.agent.agent.Servers())
	if _, address, ok := s.node.Leader(); ok {
		candidates = append([]string{address}, candidates...)
	}
	err := fmt.Errorf("no other server is known; set join.servers")
	for _, address := range candidates {
		if address == me.Address {
			continue
		}
		var leader string
		if leader, err = s.tell(ctx, client, address, me); err == nil {
			return nil
		}
		if leader != "" && leader != address {
			if _, err = s.tell(ctx, client, leader, me); err == nil {
				return nil
			}
		}
	}
	return err
}

// tell announces this server to another one. A leader first tells a newcomer which cluster this is, so that the newcomer talks to
// no other: its vote may count as soon as it is a member.
func (s *Server) tell(ctx context.Context, client *http.Client, address string, me announcement) (leader string, err error) {
	me.Cluster = s.node.Cluster()
	leader, cluster, err := post(ctx, client, address, me)
	if cluster == "" {
		return leader, err
	}
	if me.Cluster, err = raft.ParseClusterID(cluster); err != nil {
		return "", err
	}
	if err := s.node.Adopt(me.Cluster); err != nil {
		return "", err
	}
	leader, _, err = post(ctx, client, address, me)
	return leader, err
}

// post sends one announcement. The leader is the address that a server that does not lead answers with; the cluster is what a
// leader answers with to somebody who belongs to none.
func post(ctx context.Context, client *http.Client, address string, me announcement) (leader, cluster string, err error) {
	body, err := json.Marshal(me)
	if err != nil {
		return "", "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+membersPath, bytes.NewReader(body))
	if err != nil {
		return "", "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err != nil {
		return "", "", err
	}
	if response.StatusCode == http.StatusMisdirectedRequest {
		return string(text), "", fmt.Errorf("%s does not lead", address)
	}
	if response.StatusCode == http.StatusPreconditionRequired {
		return "", string(text), fmt.Errorf("%s wants to know the cluster", address)
	}
	if response.StatusCode != http.StatusNoContent {
		return "", "", fmt.Errorf("%s: %s: %s", address, response.Status, bytes.TrimSpace(text))
	}
	return "", "", nil
}

// serveMembers takes an announcement of another server.
func (s *Server) serveMembers(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		http.Error(w, "servers announce themselves here, with their certificates", http.StatusForbidden)
		return
	}
	name, ok := pki.ServerName(r.TLS.PeerCertificates[0])
	var from announcement
	if err := json.NewDecoder(io.LimitReader(r.Body, 4<<10)).Decode(&from); err != nil || !ok || from.ID != name {
		http.Error(w, "the announcement does not fit the certificate", http.StatusForbidden)
		return
	}
	if !s.node.IsLeader() {
		_, leader, _ := s.node.Leader()
		w.WriteHeader(http.StatusMisdirectedRequest)
		_, _ = io.WriteString(w, leader)
		return
	}
	switch own := s.node.Cluster(); from.Cluster {
	case own:
	case raft.ClusterID{}:
		w.WriteHeader(http.StatusPreconditionRequired)
		_, _ = io.WriteString(w, own.String())
		return
	default:
		s.o.Logger.Warn("refused a server of another cluster", "server", from.ID, "cluster", from.Cluster, "own", own)
		http.Error(w, fmt.Sprintf("this is the cluster %s, and the server's data is of %s: move its raft folder away and start it again",
			own, from.Cluster), http.StatusConflict)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 8*time.Second)
	defer cancel()
	if err := s.node.Join(ctx, from.ID, from.Address, true); err != nil {
		s.o.Logger.Warn("a server cannot join", "server", from.ID, "error", err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	s.o.Logger.Info("a server is a member", "server", from.ID, "address", from.Address)
	w.WriteHeader(http.StatusNoContent)
}
