package configs

import "go.yaml.in/yaml/v3"

// Render writes a configuration as a file that says only what is set.
func Render(c Config) ([]byte, error) {
	data, err := yaml.Marshal(c)
	if err != nil {
		return nil, err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, err
	}
	prune(root.Content[0])
	return yaml.Marshal(&root)
}

// prune removes the keys with empty values and reports whether anything is left.
func prune(n *yaml.Node) bool {
	switch n.Kind {
	case yaml.MappingNode:
		var kept []*yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if prune(n.Content[i+1]) {
				kept = append(kept, n.Content[i], n.Content[i+1])
			}
		}
		n.Content = kept
		return len(kept) > 0
	case yaml.SequenceNode:
		for _, item := range n.Content {
			prune(item)
		}
		return len(n.Content) > 0
	default:
		return n.Value != "" && n.Value != "0" && n.Value != "0s" && n.Value != "null"
	}
}
