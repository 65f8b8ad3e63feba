package hardware

import "strings"

// findTPMs finds trusted platform modules. The node is that of the kernel's resource manager, where there is one, so that the
// holder cannot disturb what else talks to the chip.
func findTPMs(s *scan) {
	s.classDevices("class/tpm", func(name, at string) {
		p := s.locate(at)
		if version := s.read(at + "/tpm_version_major"); version != "" {
			p.attributes["tpm-version"] = version
		}
		node := "/dev/" + name
		if managed := strings.Replace(name, "tpm", "tpmrm", 1); s.exists("class/tpmrm/" + managed) {
			node = "/dev/" + managed
		}
		s.add(name, p, "", node)
	})
}
