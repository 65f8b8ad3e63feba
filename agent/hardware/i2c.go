package hardware

import "strings"

// findI2C finds I2C adapters with i2c-dev. Those inside a display connector belong to the display.
func findI2C(s *scan) {
	s.classDevices("class/i2c-dev", func(name, at string) {
		p, left := s.locate(at), ""
		if title := s.read(at + "/name"); title != "" {
			p.attributes["i2c-name"] = title[:min(len(title), maxName)]
		}
		if strings.Contains(at, "/drm/") || strings.Contains(p.attributes["platform"], "hdmi") {
			left = "it is a display's"
		}
		s.add(name, p, left, "/dev/"+name)
	})
}
