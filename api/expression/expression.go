// Package expression owns what an expression in CEL (https://cel.dev) in an object of the API has to be like: that it compiles, and says what
// it is asked for. Only a build with the tag cel can tell; in any other one Evaluated is false and nothing is wrong with any expression.
//
// The package is pure, as package api is.
package expression

// What an expression is there for.
const (
	Test       Use = iota // to be true or false
	Message               // to say why something is refused
	Annotation            // to be a text for the audit log, or null
	Variable              // to be used by others
	Apply                 // to be merged into an object
	JSONPatch             // to be a list of operations on an object (RFC 6902)
)

// Use is what an expression is there for.
type Use int
