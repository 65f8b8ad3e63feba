package hardware

import (
	"path"
	"strings"
)

// findCameras finds V4L2 capture devices. One camera has several nodes: video, metadata, subdevices and a media controller; they
// hang on one parent and are one device. Codecs and image processors have video nodes too and are no cameras.
func findCameras(s *scan) {
	type camera struct {
		first, title string
		place        place
		nodes        []string
	}
	var order []string
	cameras := map[string]*camera{}
	s.classDevices("class/video4linux", func(name, at string) {
		parent := path.Dir(path.Dir(at)) // PARENT/video4linux/videoN
		c := cameras[parent]
		if c == nil {
			c = &camera{place: s.locate(at)}
			cameras[parent] = c
			order = append(order, parent)
		}
		if c.first == "" && strings.HasPrefix(name, "video") {
			c.first, c.title = name, s.read(at+"/name")
		}
		c.nodes = append(c.nodes, "/dev/"+name)
	})
	for _, parent := range order {
		c := cameras[parent]
		if c.first == "" {
			continue // subdevices only: a sensor, a lens
		}
		nodes := []string{"/dev/" + c.first}
		for _, node := range c.nodes {
			if node != nodes[0] {
				nodes = append(nodes, node)
			}
		}
		for _, name := range s.list(parent) {
			if strings.HasPrefix(name, "media") && s.exists(path.Join(parent, name, "dev")) {
				nodes = append(nodes, "/dev/"+name)
			}
		}
		left := ""
		if what := processor(c.title + " " + c.place.attributes["driver"]); what != "" {
			left = what
		}
		if c.title != "" {
			c.place.attributes["camera-name"] = c.title[:min(len(c.title), maxName)]
		}
		s.add(c.first, c.place, left, nodes...)
	}
}

// processor says what a video node is if it takes pictures from memory and not from a sensor. sysfs does not say; these are
// the words in the names of drivers.
func processor(name string) string {
	name = strings.ToLower(name)
	for _, word := range []string{"codec", "-dec", "-enc", "_dec", "_enc", "hevc", "hantro", "vpu", "rkvdec", "cedrus", "jpeg"} {
		if strings.Contains(name, word) {
			return "it is a codec, not a camera"
		}
	}
	for _, word := range []string{"-isp", "pispbe", "pisp_be"} {
		if strings.Contains(name, word) {
			return "it is an image processor, not a camera"
		}
	}
	return ""
}
