package hardware

import "strings"

// findSerial finds the ttys that have hardware: /sys/class/tty/*/device. A tty that the kernel or a login has is left out.
func findSerial(s *scan) {
	consoles := strings.Fields(s.read("class/tty/console/active"))
	s.classDevices("class/tty", func(name, at string) {
		if !s.exists(at + "/device") {
			return // a virtual console, a pty
		}
		p, left := s.locate(at), ""
		for _, console := range consoles {
			if console == name {
				left = "it is the kernel's console"
			}
		}
		if s.read(at+"/type") == "0" {
			left = "it has no UART" // 8250 ports that the kernel keeps room for
		}
		if number := s.read(at + "/device/port_number"); number != "" && number != "0" {
			p.name += "-p" + number
		}
		s.add(name, p, left, "/dev/"+name)
	})
}
