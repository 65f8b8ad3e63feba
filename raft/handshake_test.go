package raft

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// TestOlderGreetingIsRefused greets as servers did before greetings had a name: the connection ends, and nothing is answered.
func TestOlderGreetingIsRefused(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.write("a", "v")
	conn, err := net.Dial("tcp", c.addresses[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	cluster := c.members[0].Cluster()
	if _, err := conn.Write(append(append([]byte("shoalrf1"), cluster[:]...), 0)); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	n, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	if n > 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("an older server got an answer: %d bytes, %v (%v is fine)", n, err, io.EOF)
	}
}
