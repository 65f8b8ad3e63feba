package hardware

// findWatchdogs finds hardware watchdogs. One that something feeds already (systemd, as a rule) can be opened by nobody else.
func findWatchdogs(s *scan) {
	s.classDevices("class/watchdog", func(name, at string) {
		p, left := s.locate(at), ""
		if identity := s.read(at + "/identity"); identity != "" {
			p.attributes["watchdog-identity"] = identity[:min(len(identity), maxName)]
		}
		if s.read(at+"/state") == "active" {
			left = "something feeds it already"
		}
		s.add(name, p, left, "/dev/"+name)
	})
}
