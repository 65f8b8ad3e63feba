package hardware

import (
	"path"
	"strings"
)

// findGPUs finds graphics processors by their render nodes. A card without one only drives displays.
func findGPUs(s *scan) {
	type card struct{ render, primary string }
	var order []string
	cards := map[string]*card{}
	s.classDevices("class/drm", func(name, at string) {
		render := strings.HasPrefix(name, "renderD")
		if !render && (!strings.HasPrefix(name, "card") || strings.Contains(name, "-")) {
			return // a connector: card0-HDMI-A-1
		}
		parent := path.Dir(path.Dir(at)) // PARENT/drm/cardN
		c := cards[parent]
		if c == nil {
			c = &card{}
			cards[parent] = c
			order = append(order, parent)
		}
		if render {
			c.render = name
		} else {
			c.primary = name
		}
	})
	for _, parent := range order {
		c := cards[parent]
		p := s.locate(parent)
		var nodes []string
		for _, name := range []string{c.render, c.primary} {
			if name != "" {
				nodes = append(nodes, "/dev/dri/"+name)
			}
		}
		left := ""
		if c.render == "" {
			left = "it has no render node: it drives displays only"
		}
		s.add(path.Base(nodes[0]), p, left, nodes...)
	}
}
