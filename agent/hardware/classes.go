package hardware

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Class is a kind of hardware, and how it is found.
type Class struct {
	// Name is that of the resource, after devices.Domain.
	Name string
	// Default: it is offered when the configuration names no classes. Those that are not can stop or wipe the device itself.
	Default bool
	// About is one line for people.
	About string

	find func(s *scan)
}

// Classes is the table of what is looked for. A new class is one file and one line.
func Classes() []Class {
	return []Class{
		{"camera", true, "V4L2 video capture, with its media controller", findCameras},
		{"disk", false, "whole block devices that nothing uses", findDisks},
		{"gpio", true, "GPIO character devices", findGPIO},
		{"gpu", true, "DRM render nodes", findGPUs},
		{"i2c", true, "I2C adapters", findI2C},
		{"npu", true, "accelerators for neural networks", findNPUs},
		{"serial", true, "UARTs, USB serial adapters and modems", findSerial},
		{"spi", true, "SPI chip selects with spidev", findSPI},
		{"tpm", false, "trusted platform modules", findTPMs},
		{"usb", true, "USB devices that no driver has", findUSB},
		{"watchdog", false, "hardware watchdogs that nothing feeds", findWatchdogs},
	}
}

// scan is one look at the hardware.
type scan struct {
	tree
	c     Config
	class string
	found []Device
}

func discover(c Config) ([]Device, error) {
	root, err := os.OpenRoot(c.Sys)
	if err != nil {
		return nil, err
	}
	s := &scan{tree: tree{root}, c: c}
	for _, class := range Classes() {
		s.class = class.Name
		from := len(s.found)
		class.find(s)
		s.settle(s.found[from:])
	}
	return s.found, root.Close()
}

// classDevices calls f with each entry of a folder of links into devices/: its name and where it is.
func (s *scan) classDevices(dir string, f func(name, at string)) {
	for _, name := range s.list(dir) {
		if at := s.follow(dir + "/" + name); strings.HasPrefix(at, "devices/") {
			f(name, at)
		}
	}
}

// add notes a device. The kernel's name is the last resort: it depends on the order in which drivers start.
func (s *scan) add(kernel string, p place, left string, nodes ...string) *Device {
	if left == "" && p.virtual {
		left = "it is virtual"
	}
	name := p.name
	if name == "" {
		name = kernel
	}
	d := Device{Class: s.class, Name: clean(name), Left: left, Nodes: nodes, Attributes: p.attributes}
	s.found = append(s.found, d)
	return &s.found[len(s.found)-1]
}

// settle makes the names of a class unique, and looks for the device nodes. Cheap adapters share a serial number: those are
// told apart by their port. Several of one parent are numbered in the kernel's order.
func (s *scan) settle(found []Device) {
	count := func() map[string]int {
		n := map[string]int{}
		for _, d := range found {
			n[d.Name]++
		}
		return n
	}
	for before, i := count(), 0; i < len(found); i++ {
		d := &found[i]
		if port := d.Attributes["usb-port"]; before[d.Name] > 1 && port != "" && !strings.Contains(d.Name, "-port-") {
			d.Name = clean(d.Name + "-port-" + port)
		}
	}
	number := map[string]int{}
	for before, i := count(), 0; i < len(found); i++ {
		d := &found[i]
		if before[d.Name] > 1 {
			shared := d.Name
			d.Name = clean(shared + "." + strconv.Itoa(number[shared]))
			number[shared]++
		}
		d.ID = d.Class + "/" + d.Name
		if d.Left == "" && len(d.Nodes) > 0 {
			if _, err := os.Stat(s.c.host(d.Nodes[0])); err != nil {
				d.Left = "there is no " + d.Nodes[0]
			}
		}
	}
}

// lines reads a small file of procfs.
func (s *scan) lines(file string) []string {
	f, err := os.Open(filepath.Join(s.c.Proc, file))
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	var lines []string
	for scanner := bufio.NewScanner(io.LimitReader(f, 256<<10)); scanner.Scan() && len(lines) < maxEntries; {
		lines = append(lines, scanner.Text())
	}
	return slices.Clip(lines)
}
