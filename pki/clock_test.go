package pki

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// TestClocks has a device whose clock stands long before anything was issued, and later one that is ten years ahead.
func TestClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where it is the year 2000
		ca := must[*CA](t)(NewCA())
		key, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		server := must[[]byte](t)(ca.IssueServer("s1", key.Public(), nil))
		device := must[[]byte](t)(ca.Issue(NodeSubject("n1"), key.Public(), nil, nil))
		id := must[*Identity](t)(NewIdentity(ca.CertPEM(), device, key))
		if time.Now().After(Floor) {
			t.Fatal("the test has no clock that is behind")
		}
		if err := expired(id.Leaf()); err != nil {
			t.Errorf("with a clock in %d: %v", time.Now().Year(), err)
		}
		if left := id.RenewAt().Sub(Now()); left < 30*24*time.Hour {
			t.Errorf("a clock that is behind has the certificate renewed in %v", left)
		}

		time.Sleep(time.Until(Floor.AddDate(0, 6, 0))) // the clock is set
		if err := expired(id.Leaf()); err != nil {
			t.Errorf("when the clock is set: %v", err)
		}

		time.Sleep(10 * 365 * 24 * time.Hour)
		if err := expired(id.Leaf()); err == nil {
			t.Error("ten years ahead a device's certificate of one year is believed")
		}
		if id, err = NewIdentity(ca.CertPEM(), device, key); err != nil {
			t.Errorf("ten years ahead a device does not start: %v", err)
		}
		if leaf := must[*Identity](t)(NewIdentity(ca.CertPEM(), server, key)).Leaf(); expired(leaf) != nil || id.verify(leaf) != nil {
			t.Errorf("ten years ahead a server is not believed: %v, %v", expired(leaf), id.verify(leaf))
		}
		renewed := must[[]byte](t)(ca.Issue(NodeSubject("n1"), key.Public(), nil, nil)) // by a server with such a clock
		if err := id.Replace(renewed, key); err != nil {
			t.Fatal(err)
		}
		if err := expired(id.Leaf()); err != nil {
			t.Errorf("renewed ten years ahead: %v", err)
		}
		if begins := id.Leaf().NotBefore; begins.After(Floor) {
			t.Errorf("others, whose clocks are right, refuse what begins in %v", begins)
		}
	})
}

// TestEnded has a device come back whose certificate has ended: it gets no link, but the next certificate for its key.
func TestEnded(t *testing.T) {
	ca := must[*CA](t)(NewCA())
	s := newSite(t, ca)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req := s.request(t, s.token(t, RoleAgent, time.Time{}), RoleAgent, "n1")
	grant := must[*Grant](t)(Join(ctx, req))
	ended := must[[]byte](t)(ca.issue(NodeSubject("n1"), req.Key.Public(), nil, nil, time.Now().Add(-time.Hour)))
	id := must[*Identity](t)(NewIdentity(grant.CA, ended, req.Key))
	go func() { // ends with the site
		for {
			c, err := s.mux.Link().Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte{1})
			_ = c.Close()
		}
	}()
	if err := s.greet(ctx, id); err == nil {
		t.Fatal("a certificate that has ended was let in")
	}
	renewal, err := Renew(ctx, id, req)
	if err != nil {
		t.Fatalf("no new certificate for the same key: %v", err)
	}
	if err := id.Replace(renewal.Node, req.Key); err != nil {
		t.Fatal(err)
	}
	if err := s.greet(ctx, id); err != nil {
		t.Errorf("after the renewal: %v", err)
	}
}

// greet opens a link, at whose other end a byte is written.
func (s *site) greet(ctx context.Context, id *Identity) error {
	conn, err := id.Dial(ctx, s.address, ProtoLink)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}
