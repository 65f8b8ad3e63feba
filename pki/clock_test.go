package pki

import (
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
		issue := func() []byte { return must[[]byte](t)(ca.IssueServer("s1", key.Public(), nil)) }
		id := must[*Identity](t)(NewIdentity(ca.CertPEM(), issue(), key))
		if time.Now().After(Floor) {
			t.Fatal("the test has no clock that is behind")
		}
		if err := id.verify(id.Leaf()); err != nil {
			t.Errorf("with a clock in %d: %v", time.Now().Year(), err)
		}
		if left := id.RenewAt().Sub(Now()); left < 30*24*time.Hour {
			t.Errorf("a clock that is behind has the certificate renewed in %v", left)
		}

		time.Sleep(time.Until(Floor.AddDate(0, 6, 0))) // the clock is set
		if err := id.verify(id.Leaf()); err != nil {
			t.Errorf("when the clock is set: %v", err)
		}

		time.Sleep(10 * 365 * 24 * time.Hour)
		if err := id.verify(id.Leaf()); err == nil {
			t.Error("ten years ahead a certificate of one year is believed")
		}
		if err := id.Replace(issue(), key); err != nil { // what a server with such a clock does
			t.Fatal(err)
		}
		if err := id.verify(id.Leaf()); err != nil {
			t.Errorf("renewed ten years ahead: %v", err)
		}
		if begins := id.Leaf().NotBefore; begins.After(Floor) {
			t.Errorf("others, whose clocks are right, refuse what begins in %v", begins)
		}
	})
}
