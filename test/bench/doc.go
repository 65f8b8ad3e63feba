// Package bench holds benchmarks of the whole control plane: real servers in namespaces, asked over TLS by clients outside, and
// beside them etcd on the same disk. make bench runs them; they need root, and etcd is installed from Debian's package.
package bench
