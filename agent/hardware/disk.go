package hardware

import (
	"path"
	"strconv"
	"strings"
)

// findDisks finds whole block devices that are hardware. One that is mounted, swapped to, or part of another device is left out.
func findDisks(s *scan) {
	used := s.usedBlocks()
	s.classDevices("class/block", func(name, at string) {
		if s.exists(at+"/partition") || strings.HasPrefix(at, "devices/virtual/") {
			return // a partition is its disk's; loop, ram, dm and md are no hardware
		}
		sectors, _ := strconv.ParseInt(s.read(at+"/size"), 10, 64)
		p, left := s.locate(at), ""
		nodes := []string{"/dev/" + name}
		check := func(dir string) {
			if why := used[s.read(dir+"/dev")]; why != "" && left == "" {
				left = why
			}
			if holders := s.list(dir + "/holders"); len(holders) > 0 && left == "" {
				left = "it is part of " + holders[0]
			}
		}
		check(at)
		for _, part := range s.list(at) {
			if strings.HasPrefix(part, name) && s.exists(path.Join(at, part, "partition")) {
				check(path.Join(at, part))
				nodes = append(nodes, "/dev/"+part)
			}
		}
		switch {
		case sectors == 0:
			left = "it is empty"
		case strings.Contains(name, "boot") && strings.HasPrefix(name, "mmcblk"):
			left = "it is a boot area"
		}
		s.describeDisk(name, at, sectors, &p)
		s.add(name, p, left, nodes...)
	})
}

func (s *scan) describeDisk(name, at string, sectors int64, p *place) {
	set := func(key, value string) {
		if value != "" {
			p.attributes[key] = value[:min(len(value), maxName)]
		}
	}
	set("disk-bytes", strconv.FormatInt(sectors*512, 10)) // sysfs counts in sectors of 512 bytes, whatever the disk's are
	set("disk-model", s.read(at+"/device/model"))
	if s.read(at+"/removable") == "1" {
		set("disk-removable", "true")
	}
	for _, file := range []string{"/wwid", "/device/wwid", "/device/cid", "/device/serial"} {
		if id := s.read(at + file); id != "" {
			set("disk-id", id)
			break
		}
	}
	if id := p.attributes["disk-id"]; id != "" && p.usb == "" {
		p.name = id
	}
}

// usedBlocks is why block devices are in use, by their numbers as in "8:1".
func (s *scan) usedBlocks() map[string]string {
	used := map[string]string{}
	for _, line := range s.lines("self/mountinfo") { // proc(5): id parent major:minor root mountpoint ...
		if f := strings.Fields(line); len(f) > 4 {
			used[f[2]] = "it is mounted at " + f[4]
		}
	}
	for _, line := range s.lines("swaps") {
		f := strings.Fields(line)
		if name, ok := strings.CutPrefix(first(f), "/dev/"); ok {
			if number := s.read("class/block/" + path.Base(name) + "/dev"); number != "" {
				used[number] = "it is swapped to"
			}
		}
	}
	return used
}

func first(f []string) string {
	if len(f) == 0 {
		return ""
	}
	return f[0]
}
