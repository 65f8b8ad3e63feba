package chaos

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// cut loses packets on the way from one server to another: all of them at 100.
type cut struct{ from, to, percent int }

// network is what is lost between servers. Every server's namespace has a table that drops what comes in; clients are never
// cut off.
type network struct {
	servers []*Server
	touch   func(*Server)

	mu   sync.Mutex
	next int
	cuts map[int][]cut
}

func newNetwork(servers []*Server, touch func(*Server)) *network {
	return &network{servers: servers, touch: touch, cuts: map[int][]cut{}}
}

// add puts cuts into effect, together as far as that is possible; undo takes them back.
func (n *network) add(ctx context.Context, cuts ...cut) (undo func(context.Context) error, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	id := n.next
	n.next++
	n.cuts[id] = cuts
	undo = func(ctx context.Context) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.cuts, id)
		return n.apply(ctx, cuts)
	}
	return undo, n.apply(ctx, cuts)
}

// heal takes back everything.
func (n *network) heal(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []cut
	for _, cuts := range n.cuts {
		all = append(all, cuts...)
	}
	clear(n.cuts)
	return n.apply(ctx, all)
}

// apply renews the tables of the servers that the changed cuts lead to. Callers hold the lock.
func (n *network) apply(ctx context.Context, changed []cut) error {
	targets := map[int]bool{}
	for _, c := range changed {
		targets[c.to] = true
		n.touch(n.servers[c.from])
		n.touch(n.servers[c.to])
	}
	results := make(chan error, len(targets))
	for to := range targets {
		go func() { results <- n.load(ctx, to, n.table(to)) }()
	}
	var first error
	for range targets {
		if err := <-results; err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (n *network) table(to int) string {
	var rules strings.Builder
	for _, cuts := range n.cuts {
		for _, c := range cuts {
			switch {
			case c.to != to:
			case c.percent >= 100:
				fmt.Fprintf(&rules, "  ip saddr %s drop\n", n.servers[c.from].Address)
			default:
				fmt.Fprintf(&rules, "  ip saddr %s numgen random mod 100 < %d drop\n", n.servers[c.from].Address, c.percent)
			}
		}
	}
	const empty = "add table inet chaos\ndelete table inet chaos\n"
	if rules.Len() == 0 {
		return empty
	}
	return empty + "table inet chaos {\n chain in {\n  type filter hook input priority 0\n" + rules.String() + " }\n}\n"
}

func (n *network) load(ctx context.Context, to int, table string) error {
	cmd := n.servers[to].Command(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(table)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft in %s: %w: %s", n.servers[to].Name, err, out)
	}
	return nil
}

// between cuts both ways between every server of one group and every one of the other.
func between(a, b []int, percent int) []cut {
	var cuts []cut
	for _, i := range a {
		for _, j := range b {
			if i != j {
				cuts = append(cuts, cut{i, j, percent}, cut{j, i, percent})
			}
		}
	}
	return cuts
}
