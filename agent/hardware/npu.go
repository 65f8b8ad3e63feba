package hardware

// findNPUs finds accelerators: those of the kernel's accel subsystem, and the drivers that came before it.
func findNPUs(s *scan) {
	for _, kind := range []struct{ class, dev string }{
		{"accel", "/dev/accel/"},      // the kernel's subsystem for accelerators
		{"apex", "/dev/"},             // Coral Edge TPU on PCIe
		{"hailo_chardev", "/dev/"},    // Hailo-8
		{"habanalabs", "/dev/accel/"}, // before it moved to accel
	} {
		s.classDevices("class/"+kind.class, func(name, at string) {
			if s.exists(at + "/dev") {
				s.add(name, s.locate(at), "", kind.dev+name)
			}
		})
	}
}
