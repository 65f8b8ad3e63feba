// Package bench holds benchmarks of the whole control plane: real server processes asked over TLS, and beside them etcd on the same
// disk. make bench runs them; they need root for a network of their own, and etcd is installed from Debian's package.
package bench
