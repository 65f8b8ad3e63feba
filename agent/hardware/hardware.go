// Package hardware owns what a device finds out about its own hardware: it reads sysfs, gives each piece a name that stays the
// same over reboots and re-plugging, and decides by the configuration which extended resource each piece is offered as.
//
// It keeps no state and starts nothing: a scan is a read of some hundred small files. Who has which piece is the agent's business.
package hardware

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoal-edge/shoal/api/devices"
)

// Device is one piece of hardware.
type Device struct {
	// ID is what claims are kept under: the class and the name, or "path:" and the declared path of what sysfs does not know.
	ID string `json:"id"`
	// Class is that of Classes, empty for what sysfs does not know. Name is unique in it, and of the characters [a-z0-9.-].
	Class string `json:"class,omitempty"`
	Name  string `json:"name"`
	// Resource is the extended resource it is offered as, empty when it is not.
	Resource string `json:"resource,omitempty"`
	// Left says why it is left out now; empty: it is offered.
	Left string `json:"left,omitempty"`
	// Nodes are the paths of its device nodes on this device, the most useful one first.
	Nodes []string `json:"nodes"`
	// Target is where a container sees the first node; empty: at the same path.
	Target string `json:"target,omitempty"`
	// Attributes are what it can be chosen by: usb-vendor, usb-product, usb-serial, usb-port, driver, ...
	Attributes map[string]string `json:"attributes,omitempty"`

	declared bool // offered by Config.Declared
}

// Equal reports whether nothing about the device is different.
func (d *Device) Equal(other Device) bool {
	return d.ID == other.ID && d.Resource == other.Resource && d.Left == other.Left && d.Target == other.Target &&
		slices.Equal(d.Nodes, other.Nodes) && maps.Equal(d.Attributes, other.Attributes)
}

// Offered reports whether pods can have it now.
func (d *Device) Offered() bool { return d.Resource != "" && d.Left == "" }

// Matches reports whether a match means the device: by its attributes, class, name and the paths of its nodes.
func (d *Device) Matches(m devices.Match) bool {
	return m.Fits(func(key string) []string {
		switch key {
		case "class":
			return []string{d.Class}
		case "name":
			return []string{d.Name}
		case "path":
			return d.Nodes
		}
		return []string{d.Attributes[key]}
	})
}

// Declared is a device that the configuration offers, whatever its class. It is found by its path or by Match.
type Declared struct {
	Resource, Path, ContainerPath string
	Match                         devices.Match
	// Machine is what it leads to, the attribute devices.Machine; empty for none.
	Machine string
}

// Config says what to read and what to offer.
type Config struct {
	// Sys, Dev and Proc are where sysfs, the device nodes and procfs are. Default: /sys, /dev, /proc.
	Sys, Dev, Proc string
	// Classes are offered as devices.Domain and their name; "all" is all of them, "none" none. Empty: those that can do no harm to
	// the device itself (Class.Default).
	Classes []string
	// Exclude keeps devices back.
	Exclude []devices.Match
	// Declared devices are offered as they say and in no other way.
	Declared []Declared
}

// Scan reads what is there. The order is by class and name, so the same hardware gives the same list. Where there is no
// sysfs, what is declared by a path is found nevertheless.
func Scan(c Config) ([]Device, error) {
	found, err := discover(c.withDefaults())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("hardware: %w", err)
	}
	return c.withDefaults().offer(found), nil
}

func (c Config) withDefaults() Config {
	c.Sys, c.Dev, c.Proc = cmp.Or(c.Sys, "/sys"), cmp.Or(c.Dev, "/dev"), cmp.Or(c.Proc, "/proc")
	return c
}

// offer decides what each device is offered as, and adds what is declared and not found.
func (c Config) offer(found []Device) []Device {
	offered := map[string]bool{}
	for _, class := range Classes() {
		if slices.Contains(c.Classes, class.Name) || slices.Contains(c.Classes, "all") || len(c.Classes) == 0 && class.Default {
			offered[class.Name] = true
		}
	}
	for i := range found {
		d := &found[i]
		excluded := slices.ContainsFunc(c.Exclude, func(m devices.Match) bool { return d.Matches(m) })
		switch {
		case excluded:
			d.Left = "the configuration excludes it"
		case d.Left == "" && !offered[d.Class]:
			d.Left = "its class is not offered (agent.discover.classes)"
		case d.Left == "":
			d.Resource = devices.Domain + d.Class
		}
	}
	for _, want := range c.Declared {
		if want.Path != "" {
			found = c.declarePath(found, want)
			continue
		}
		for i := range found {
			if found[i].Matches(want.Match) && !found[i].declared { // the first declaration counts
				found[i].declare(want)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Device) int { return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Name, b.Name)) })
	return found
}

func (d *Device) declare(want Declared) {
	d.Resource, d.Target, d.Left, d.declared = want.Resource, want.ContainerPath, "", true
	if want.Machine != "" {
		if d.Attributes == nil {
			d.Attributes = map[string]string{}
		}
		d.Attributes[devices.Machine] = want.Machine
	}
}

// declarePath offers the device with that node, or the path itself when sysfs knows no such node: a pty, a plain file.
func (c Config) declarePath(found []Device, want Declared) []Device {
	node := want.Path
	if resolved, err := filepath.EvalSymlinks(c.host(want.Path)); err == nil {
		node = c.logical(resolved)
	}
	for i := range found {
		if at := slices.Index(found[i].Nodes, node); at >= 0 {
			d := &found[i]
			if d.declared {
				return found
			}
			d.declare(want)
			d.Nodes[0], d.Nodes[at] = d.Nodes[at], d.Nodes[0]
			if d.Target == "" {
				d.Target = want.Path // a link such as /dev/serial/by-id/... is seen by its name inside too
			}
			return found
		}
	}
	d := Device{ID: "path:" + want.Path, Name: clean(want.Path), Nodes: []string{want.Path}}
	if slices.ContainsFunc(found, func(other Device) bool { return other.ID == d.ID }) {
		return found
	}
	d.declare(want)
	if _, err := os.Stat(c.host(want.Path)); err != nil {
		d.Left = "it is not plugged in"
	}
	return append(found, d)
}

// host is where a path that begins with /dev is found.
func (c Config) host(path string) string {
	if rest, ok := strings.CutPrefix(path, "/dev/"); ok {
		return filepath.Join(c.Dev, rest)
	}
	return path
}

// logical is the opposite of host.
func (c Config) logical(path string) string {
	if rest, ok := strings.CutPrefix(path, c.Dev+"/"); ok {
		return "/dev/" + rest
	}
	return path
}

// clean makes a name of the characters [a-z0-9.-].
func clean(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			b.WriteRune(r)
		} else {
			b.WriteByte('-')
		}
	}
	name := strings.Trim(b.String(), "-.")
	return name[:min(len(name), maxName)]
}

// maxName bounds a name, in bytes.
const maxName = 100

// natural compares names so that gpiochip2 is before gpiochip10.
func natural(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
				return c
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
