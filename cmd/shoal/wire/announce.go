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
	// Probation says that the server has lost what it knew, or has never known anything.
	Probation bool `json:"probation,omitempty"`
}

// announce tells the leader this server's address until the membership has it. Addresses change (DHCP), names and keys do not. A
// server on probation asks to be readmitted first, and announces itself again when it has caught up.
func (s *Server) announce(ctx context.Context) error {
	me := announcement{ID: s.o.Config.NodeName, Address: s.address}
	client := &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: s.id.server.ClientConfig("http/1.1"), DisableKeepAlives: true},
	}
	again := false
	for pause := announceFirst; ; pause = min(2*pause, announceLong) {
		changed := s.node.LeaderChanges()
		me.Probation = s.node.OnProbation()
		known := slices.ContainsFunc(s.node.Servers(), func(m raft.Server) bool { return m.ID == me.ID && m.Address == me.Address })
		if known && !me.Probation && !again && !s.node.Cluster().IsZero() {
			return nil
		}
		tell := s.tellLeader
		if s.node.IsLeader() { // its address has changed while it was off
			tell = func(ctx context.Context, _ *http.Client, me announcement) error {
				return s.node.Join(ctx, me.ID, me.Address, true)
			}
		}
		err := tell(ctx, client, me)
		switch {
		case err == nil && me.Probation:
			s.catchUp(ctx)
			again, pause = true, announceFirst
			continue
		case err == nil:
			return nil
		case ctx.Err() == nil:
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

const (
	announceFirst = 100 * time.Millisecond
	announceLong  = 15 * time.Second
	// catchUpTimeout is how long a server that was readmitted may take to catch up before it asks anew.
	catchUpTimeout = time.Minute
)

// catchUp waits until this server, which was readmitted, has caught up.
func (s *Server) catchUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	for {
		changed := s.node.LeaderChanges()
		if !s.node.OnProbation() {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
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
// no other. An address is returned when the leader is another server.
func (s *Server) tell(ctx context.Context, client *http.Client, address string, me announcement) (leader string, err error) {
	me.Cluster = s.node.Cluster()
	status, text, err := post(ctx, client, address, me)
	if err == nil && status == http.StatusPreconditionRequired {
		if me.Cluster, err = raft.ParseClusterID(string(text)); err != nil {
			return "", err
		}
		if err := s.node.Adopt(me.Cluster); err != nil {
			return "", err
		}
		status, text, err = post(ctx, client, address, me)
	}
	switch {
	case err != nil:
		return "", err
	case status == http.StatusMisdirectedRequest:
		return string(text), fmt.Errorf("%s does not lead", address)
	case status == http.StatusOK && me.Probation:
		var r raft.Readmission
		if err := json.Unmarshal(text, &r); err != nil {
			return "", fmt.Errorf("%s: the readmission: %w", address, err)
		}
		return "", s.node.Readmitted(r)
	case status == http.StatusNoContent && !me.Probation:
		return "", nil
	}
	return "", fmt.Errorf("%s: %d %s: %s", address, status, http.StatusText(status), bytes.TrimSpace(text))
}

// post sends one announcement.
func post(ctx context.Context, client *http.Client, address string, me announcement) (status int, text []byte, err error) {
	body, err := json.Marshal(me)
	if err != nil {
		return 0, nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+membersPath, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err = io.ReadAll(io.LimitReader(response.Body, 4<<10))
	return response.StatusCode, text, err
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
	if from.Probation {
		s.readmit(ctx, w, from)
		return
	}
	if err := s.node.Join(ctx, from.ID, from.Address, true); err != nil {
		s.o.Logger.Warn("a server cannot join", "server", from.ID, "error", err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	s.o.Logger.Info("a server is a member", "server", from.ID, "address", from.Address)
	w.WriteHeader(http.StatusNoContent)
}

// readmit answers a server that has lost what it knew.
func (s *Server) readmit(ctx context.Context, w http.ResponseWriter, from announcement) {
	readmission, err := s.node.Readmit(ctx, from.ID, from.Address)
	if err != nil {
		s.o.Logger.Warn("a server that lacks the state cannot be readmitted", "server", from.ID, "error", err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	s.o.Logger.Info("a server that lacks the state copies it, and votes when it has it", "server", from.ID, "index", readmission.Index)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(readmission) // who does not hear it asks again
}
