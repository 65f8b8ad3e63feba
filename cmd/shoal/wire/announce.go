package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/raft"
)

// announcement is a member's name and address, and its cluster, if it belongs to one already. The name must be the certificate's.
type announcement struct {
	ID      string         `json:"id"`
	Address string         `json:"address"`
	Cluster raft.ClusterID `json:"cluster,omitzero"`
	// Probation says that the member has lost what it knew, or has never known anything.
	Probation bool `json:"probation,omitempty"`
}

// announcer tells the leader where this member is: at the start, and whenever the list of members says otherwise. Addresses change
// (DHCP), names and keys do not. While there is no leader it tells every server that it can find: after all of them have moved,
// that is how they find each other. A member on probation asks to be readmitted first.
type announcer struct {
	node    *raft.Node
	id      *pki.Identity
	me      announcement
	witness bool
	// candidates are addresses of servers, as far as this member knows.
	candidates func() []string
	logger     *slog.Logger
}

// Pauses between two announcements, and before the first when a leader is lost: elections take less.
const (
	announceFirst = 100 * time.Millisecond
	announceCalm  = 3 * time.Second
	announceLong  = 15 * time.Second
	// catchUpTimeout is how long a member that was readmitted may take to catch up before it asks anew.
	catchUpTimeout = time.Minute
	// requestTimeout bounds one announcement.
	requestTimeout = 10 * time.Second
)

func (a *announcer) run(ctx context.Context) error {
	client := &http.Client{
		Timeout:   requestTimeout,
		Transport: &http.Transport{TLSClientConfig: a.id.ClientConfig("http/1.1"), DisableKeepAlives: true},
	}
	told, pause := false, announceFirst
	var readmitted time.Time
	for {
		changed := a.node.LeaderChanges()
		wait := time.Duration(-1)
		switch {
		case told && a.listed() && a.led() && !a.node.OnProbation():
			pause = announceCalm
		case told && a.node.OnProbation():
			wait = max(0, catchUpTimeout-time.Since(readmitted))
			told = wait > 0
		case told && a.listed():
			wait, told = pause, false // if it lasts
		default:
			if err := a.announce(ctx, client); err == nil {
				told, readmitted = true, time.Now()
			} else if ctx.Err() == nil {
				a.logger.Info("not a member of the control plane yet", "error", err)
			}
			wait, pause = pause, min(2*pause, announceLong)
		}
		if err := pauseOrChange(ctx, changed, wait); err != nil {
			return err
		}
	}
}

// pauseOrChange waits for a change, and no longer than a time that is not negative.
func pauseOrChange(ctx context.Context, changed <-chan struct{}, wait time.Duration) error {
	var late <-chan time.Time
	if wait >= 0 {
		late = time.After(wait)
	}
	select {
	case <-changed:
	case <-late:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (a *announcer) listed() bool {
	return !a.node.Cluster().IsZero() && slices.ContainsFunc(a.node.Servers(), func(m raft.Server) bool {
		return m.ID == a.me.ID && m.Address == a.me.Address
	})
}

func (a *announcer) led() bool {
	_, _, ok := a.node.Leader()
	return ok
}

// announce asks the leader, or else all the servers that are known, until one takes the announcement.
func (a *announcer) announce(ctx context.Context, client *http.Client) error {
	if a.node.IsLeader() {
		return a.node.Announce(ctx, a.me.ID, a.me.Address, a.witness)
	}
	var candidates []string
	if _, address, ok := a.node.Leader(); ok {
		candidates = append(candidates, address)
	}
	if address := a.node.Caller(); address != "" {
		candidates = append(candidates, address)
	}
	err := errors.New("no other server is known; set join.servers")
	seen := map[string]bool{a.me.Address: true}
	for _, address := range append(candidates, a.candidates()...) {
		if seen[address] {
			continue
		}
		seen[address] = true
		var leader string
		if leader, err = a.tell(ctx, client, address); err == nil {
			return nil
		}
		if leader != "" && !seen[leader] {
			seen[leader] = true
			if _, err = a.tell(ctx, client, leader); err == nil {
				return nil
			}
		}
	}
	return err
}

// tell announces this member to a server. A leader first tells a newcomer which cluster this is, so that the newcomer talks to no
// other. An address is returned when the leader is another server.
func (a *announcer) tell(ctx context.Context, client *http.Client, address string) (leader string, err error) {
	me := a.me
	me.Cluster, me.Probation = a.node.Cluster(), a.node.OnProbation()
	status, text, err := post(ctx, client, address, me)
	if err == nil && status == http.StatusPreconditionRequired {
		if me.Cluster, err = raft.ParseClusterID(string(text)); err != nil {
			return "", err
		}
		if err := a.node.Adopt(me.Cluster); err != nil {
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
		return "", a.node.Readmitted(r)
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
