package apiserver

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// maxIdle is how many connections may be open without a request. Each costs some 50 KB, whoever has opened it, and opening them takes no
// certificate; clients open another one without noticing.
const maxIdle = 512

// idlers closes idle connections when there are too many: of those from the address that has most, the one that has been idle longest. So
// one host that opens thousands closes its own.
type idlers struct {
	mu    sync.Mutex
	hosts map[string]*list.List // of net.Conn, those that are idle longest first
	at    map[net.Conn]*list.Element
}

func newIdlers() *idlers {
	return &idlers{hosts: map[string]*list.List{}, at: map[net.Conn]*list.Element{}}
}

// changed is an http.Server's ConnState.
func (i *idlers) changed(c net.Conn, state http.ConnState) {
	if surplus := i.note(c, state == http.StateNew || state == http.StateIdle); surplus != nil {
		_ = surplus.Close() // its own goroutine does the rest
	}
}

// note returns a connection that is one too many.
func (i *idlers) note(c net.Conn, idle bool) (surplus net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.remove(c)
	if !idle {
		return nil
	}
	host := hostOf(c)
	if i.hosts[host] == nil {
		i.hosts[host] = list.New()
	}
	i.at[c] = i.hosts[host].PushBack(c)
	if len(i.at) <= maxIdle {
		return nil
	}
	var most *list.List
	for _, conns := range i.hosts {
		if most == nil || conns.Len() > most.Len() {
			most = conns
		}
	}
	surplus = most.Front().Value.(net.Conn)
	i.remove(surplus)
	return surplus
}

func (i *idlers) remove(c net.Conn) {
	e := i.at[c]
	if e == nil {
		return
	}
	delete(i.at, c)
	host := hostOf(c)
	i.hosts[host].Remove(e)
	if i.hosts[host].Len() == 0 {
		delete(i.hosts, host)
	}
}

func hostOf(c net.Conn) string {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return host
}
