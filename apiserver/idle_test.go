package apiserver

import (
	"net"
	"net/http"
	"testing"
)

// closable is a connection of which only whom it is from, and that it was closed, matters.
type closable struct {
	net.Conn
	from   string
	closed bool
}

func (c *closable) Close() error {
	c.closed = true
	return nil
}

func (c *closable) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.from), Port: 1} }

// TestIdlers: of too many idle connections those of whom has most are closed that have been idle longest, and never one that is being answered.
func TestIdlers(t *testing.T) {
	i := newIdlers()
	open := func(from string) *closable {
		c := &closable{from: from}
		i.changed(c, http.StateNew)
		return c
	}
	honest := open("192.0.2.1")
	busy := open("192.0.2.2")
	i.changed(busy, http.StateActive)
	first, second := open("192.0.2.2"), open("192.0.2.2")
	i.changed(first, http.StateActive)
	i.changed(first, http.StateIdle) // it has been idle for less time now
	for range maxIdle - 3 {
		open("192.0.2.2")
	}
	if first.closed || second.closed {
		t.Fatal("one is closed, and there is room for all")
	}
	open("192.0.2.3")
	if !second.closed || first.closed {
		t.Errorf("closed: %t (idle longest), %t", second.closed, first.closed)
	}
	i.changed(second, http.StateClosed)
	open("192.0.2.2")
	open("192.0.2.2")
	if !first.closed || busy.closed || honest.closed || len(i.at) != maxIdle {
		t.Errorf("closed: %t, %t (busy), %t (of somebody else); %d are known", first.closed, busy.closed, honest.closed, len(i.at))
	}
	i.changed(honest, http.StateClosed)
	if len(i.hosts) != 2 {
		t.Errorf("%d hosts are known", len(i.hosts))
	}
}
