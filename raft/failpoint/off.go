//go:build !shoal_failpoints

// Package failpoint owns the places where a test lets a server die. In the product they are nothing: Hit is empty and inlined.
package failpoint

// Hit marks a place that a test can name.
func Hit(string) {}
