package hardware

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// findUSB finds the USB devices that no driver of the kernel has: what has one is offered as that, if at all, and raw access
// to it would take the driver's device away (the network of a board, its keyboard).
func findUSB(s *scan) {
	s.classDevices("bus/usb/devices", func(name, at string) {
		if strings.Contains(name, ":") || strings.HasPrefix(name, "usb") || !s.exists(at+"/idVendor") {
			return // an interface, or a root hub
		}
		p := s.locate(at)
		delete(p.attributes, "driver") // every device has the driver "usb"
		left := ""
		if s.read(at+"/bDeviceClass") == "09" {
			left = "it is a hub"
		}
		for _, child := range s.list(at) {
			if !strings.HasPrefix(child, name+":") {
				continue
			}
			if driver := s.driver(path.Join(at, child)); left == "" && driver != "" && driver != "usbfs" {
				left = "the kernel's driver " + driver + " has it"
			}
		}
		bus, _ := strconv.Atoi(s.read(at + "/busnum"))
		number, _ := strconv.Atoi(s.read(at + "/devnum"))
		s.add(name, p, left, fmt.Sprintf("/dev/bus/usb/%03d/%03d", bus, number))
	})
}
