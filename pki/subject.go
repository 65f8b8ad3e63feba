package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"strings"
)

// Role is what a member of the cluster may be.
type Role string

const (
	// RoleServer is a member of the control plane.
	RoleServer Role = "server"
	// RoleAgent is a device that runs pods.
	RoleAgent Role = "agent"
)

// Groups and name prefixes in certificates. Nodes and administrators are named as in Kubernetes.
const (
	GroupNodes   = "system:nodes"
	GroupServers = "system:shoal:servers"
	GroupMasters = "system:masters"

	nodePrefix   = "system:node:"
	serverPrefix = "system:shoal:server:"
)

// NodeSubject names a device's agent.
func NodeSubject(name string) pkix.Name {
	return pkix.Name{CommonName: nodePrefix + name, Organization: []string{GroupNodes}}
}

// ServerSubject names a member of the control plane.
func ServerSubject(name string) pkix.Name {
	return pkix.Name{CommonName: serverPrefix + name, Organization: []string{GroupServers}}
}

// AdminSubject names the administrator.
func AdminSubject() pkix.Name {
	return pkix.Name{CommonName: "shoal-admin", Organization: []string{GroupMasters}}
}

// NodeName returns the device that a certificate names.
func NodeName(cert *x509.Certificate) (string, bool) {
	name, ok := strings.CutPrefix(cert.Subject.CommonName, nodePrefix)
	return name, ok && name != "" && slices.Contains(cert.Subject.Organization, GroupNodes)
}

// ServerName returns the server that a certificate names.
func ServerName(cert *x509.Certificate) (string, bool) {
	name, ok := strings.CutPrefix(cert.Subject.CommonName, serverPrefix)
	return name, ok && name != "" && slices.Contains(cert.Subject.Organization, GroupServers)
}
