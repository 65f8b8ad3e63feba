package hardware

import (
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// Bounds of what is read. A board has some dozens of devices in a class; sysfs attributes are at most a page.
const (
	maxEntries = 4096
	maxRead    = 4096 // bytes
	maxDepth   = 64
)

// tree reads sysfs below a folder and never leaves it: links are followed inside only.
type tree struct{ root *os.Root }

// read is the first line of a file, without spaces around it; "" when it cannot be read.
func (t tree) read(file string) string {
	f, err := t.root.Open(file)
	if err != nil {
		return ""
	}
	data, _ := io.ReadAll(io.LimitReader(f, maxRead)) // what was read before an error is as good as nothing
	_ = f.Close()
	line, _, _ := strings.Cut(strings.TrimLeft(string(data), "\n"), "\n")
	return strings.TrimSpace(strings.Trim(line, "\x00"))
}

func (t tree) exists(file string) bool {
	_, err := t.root.Stat(file)
	return err == nil
}

// list is the names in a folder in natural order.
func (t tree) list(dir string) []string {
	f, err := t.root.Open(dir)
	if err != nil {
		return nil
	}
	names, _ := f.Readdirnames(maxEntries)
	_ = f.Close()
	slices.SortFunc(names, natural)
	return names
}

// follow resolves one link to a folder of the tree, relative to its root; "" when it is none.
func (t tree) follow(link string) string {
	target, err := t.root.Readlink(link)
	if err != nil || path.IsAbs(target) {
		return ""
	}
	to := path.Join(path.Dir(link), target)
	if to == ".." || strings.HasPrefix(to, "../") {
		return ""
	}
	return to
}

// subsystem is the bus or class of a folder of /sys/devices.
func (t tree) subsystem(dir string) string { return base(t.follow(dir + "/subsystem")) }

func (t tree) driver(dir string) string { return base(t.follow(dir + "/driver")) }

func base(p string) string {
	if p == "" {
		return ""
	}
	return path.Base(p)
}

// place is where on the board something is.
type place struct {
	// name is the most stable one that the bus has for it.
	name       string
	usb        string // folder of the USB device, if it is one
	virtual    bool
	attributes map[string]string
}

// locate walks up from a folder below devices/ to the bus that it is on.
func (t tree) locate(dir string) place {
	p := place{attributes: map[string]string{}, virtual: strings.HasPrefix(dir, "devices/virtual/")}
	set := func(key, value string) {
		if value != "" {
			p.attributes[key] = value[:min(len(value), maxName)]
		}
	}
	iface := ""
	for depth := 0; strings.Contains(dir, "/") && depth < maxDepth; dir, depth = path.Dir(dir), depth+1 {
		bus := t.subsystem(dir)
		if driver := t.driver(dir); driver != "" && p.attributes["driver"] == "" && bus != "serial-base" && bus != "gpio" {
			set("driver", driver)
		}
		switch bus {
		case "usb":
			if number := t.read(dir + "/bInterfaceNumber"); number != "" {
				iface = number
				set("usb-interface", number)
				continue
			}
			if !t.exists(dir + "/idVendor") {
				continue
			}
			t.usb(dir, set)
			p.usb, p.name = dir, usbName(p.attributes, iface)
			return p
		case "pci":
			set("pci-vendor", strings.TrimPrefix(t.read(dir+"/vendor"), "0x"))
			set("pci-device", strings.TrimPrefix(t.read(dir+"/device"), "0x"))
			set("pci-slot", path.Base(dir))
			p.name = "pci-" + path.Base(dir)
			return p
		case "platform", "amba", "pnp":
			set("of-compatible", compatible(t.read(dir+"/of_node/compatible")))
			set("platform", path.Base(dir))
			p.name = path.Base(dir)
			return p
		}
	}
	return p
}

// usb reads a USB device's descriptors.
func (t tree) usb(dir string, set func(key, value string)) {
	set("usb-vendor", t.read(dir+"/idVendor"))
	set("usb-product", t.read(dir+"/idProduct"))
	set("usb-serial", t.read(dir+"/serial"))
	set("usb-port", path.Base(dir))
	set("usb-model", t.read(dir+"/product"))
	set("usb-maker", t.read(dir+"/manufacturer"))
}

// usbName is by vendor, product and serial number; a device without a serial number is known by its port.
func usbName(a map[string]string, iface string) string {
	name := "usb-" + a["usb-vendor"] + "-" + a["usb-product"] + "-"
	if serial := a["usb-serial"]; serial != "" {
		name += serial
	} else {
		name += "port-" + a["usb-port"]
	}
	if iface != "" {
		name += "-if" + iface
	}
	return name
}

// compatible is the first, most specific string of a device tree's list.
func compatible(list string) string {
	first, _, _ := strings.Cut(list, "\x00")
	return first
}
