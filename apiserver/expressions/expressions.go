// Package expressions owns the expressions in CEL (https://cel.dev) that say which requests a webhook or a policy is about, and what a policy
// has to say of them. They are evaluated by a server that was built with the tag cel, which costs 6 MB of binary; in any other one this
// package knows that there are some, and that is all.
package expressions
