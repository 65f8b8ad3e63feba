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
	// RoleWitness is a member of the control plane that has a vote and nothing else: no objects, no authority.
	RoleWitness Role = "witness"
)

// Groups and name prefixes in certificates. Nodes and administrators are named as in Kubernetes.
const (
	GroupNodes   = "system:nodes"
	GroupServers = "system:shoal:servers"
	GroupMasters = "system:masters"
	// GroupWitnesses may do nothing at the API: witnesses have their names for the other members only.
	GroupWitnesses = "system:shoal:witnesses"

	nodePrefix    = "system:node:"
	serverPrefix  = "system:shoal:server:"
	witnessPrefix = "system:shoal:witness:"
)

// NodeSubject names a device's agent.
func NodeSubject(name string) pkix.Name {
	return pkix.Name{CommonName: nodePrefix + name, Organization: []string{GroupNodes}}
}

// ServerSubject names a member of the control plane.
func ServerSubject(name string) pkix.Name {
	return pkix.Name{CommonName: serverPrefix + name, Organization: []string{GroupServers}}
}

// WitnessSubject names a witness.
func WitnessSubject(name string) pkix.Name {
	return pkix.Name{CommonName: witnessPrefix + name, Organization: []string{GroupWitnesses}}
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

// WitnessName returns the witness that a certificate names.
func WitnessName(cert *x509.Certificate) (string, bool) {
	name, ok := strings.CutPrefix(cert.Subject.CommonName, witnessPrefix)
	return name, ok && name != "" && slices.Contains(cert.Subject.Organization, GroupWitnesses)
}

// NameOf returns the member that a certificate names, if it is one of the role.
func (r Role) NameOf(cert *x509.Certificate) (string, bool) {
	switch r {
	case RoleServer:
		return ServerName(cert)
	case RoleWitness:
		return WitnessName(cert)
	default:
		return NodeName(cert)
	}
}
