package hardware

// findGPIO finds GPIO chips with a character device.
func findGPIO(s *scan) {
	s.classDevices("bus/gpio/devices", func(name, at string) {
		s.add(name, s.locate(at), "", "/dev/"+name)
	})
}
