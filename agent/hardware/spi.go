package hardware

import "strings"

// findSPI finds the chip selects that spidev has: /dev/spidev<bus>.<select>.
func findSPI(s *scan) {
	s.classDevices("class/spidev", func(name, at string) {
		p := s.locate(at)
		if _, selected, ok := strings.Cut(name, "."); ok {
			p.attributes["spi-select"] = selected
			if p.name != "" {
				p.name += "-cs" + selected
			}
		}
		s.add(name, p, "", "/dev/"+name)
	})
}
