package wire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/pki"
)

// joinTimeout is how long a first start looks for a server that answers.
const joinTimeout = 10 * time.Minute

// identity is who this process is: a node, and on servers also a server with the cluster's authority.
type identity struct {
	node    *pki.Identity
	server  *pki.Identity // nil for agents
	ca      *pki.CA       // nil for agents
	servers []string      // of the control plane, as the join said; nil on later starts
	found   bool          // the cluster is new: its log is to be begun by this server
	refused chan struct{} // gets a value when a server refuses the node's certificate
}

// loadOrJoin loads the identity from the data folder; on the first start it joins, or, as a server with nobody to join, founds
// a cluster. The key is made before anything is asked for, so that a start that was cut off goes on as the same device.
func loadOrJoin(ctx context.Context, o Options, role pki.Role) (*identity, error) {
	dir := filepath.Join(o.Config.DataDir, "pki")
	id, err := load(dir, role)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	key, err := pki.LoadOrMakeKey(dir, "node")
	if err != nil {
		return nil, err
	}
	request := joinRequest(o.Config, role)
	request.Key = key
	if len(request.Servers) == 0 {
		if role != pki.RoleServer {
			return nil, fmt.Errorf("this %s has not joined a cluster yet: set join.servers and join.token in its configuration file", role)
		}
		if err := checkContainerd(ctx, o); err != nil {
			return nil, err
		}
		return found(dir, o, request)
	}
	text, err := tokenText(o.Config.Join)
	if err != nil {
		return nil, err
	}
	if request.Token, err = pki.ParseToken(text); err != nil {
		return nil, fmt.Errorf("join.token: %w", err)
	}
	if role != pki.RoleWitness {
		if err := checkContainerd(ctx, o); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	o.Logger.Info("joining", "servers", request.Servers, "role", role)
	grant, err := pki.Join(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("join %s: %w", strings.Join(request.Servers, ", "), err)
	}
	if err := save(dir, o, request, grant); err != nil {
		return nil, err
	}
	if id, err = load(dir, role); err != nil {
		return nil, err
	}
	id.servers = grant.Servers
	return id, nil
}

func joinRequest(c configs.Config, role pki.Role) pki.JoinRequest {
	return pki.JoinRequest{
		Servers: c.Join.Servers, Role: role, Name: c.NodeName, Address: c.AdvertiseAddress, SANs: c.Server.SANs,
	}
}

func tokenText(j configs.Join) (string, error) {
	if j.TokenFile == "" {
		return j.Token, nil
	}
	data, err := os.ReadFile(j.TokenFile)
	if err != nil {
		return "", fmt.Errorf("join.tokenFile: %w", err)
	}
	return string(data), nil
}

// load reads what an earlier start saved. node.crt is written last, so that it stands for the whole.
func load(dir string, role pki.Role) (*identity, error) {
	node, err := pki.Load(dir, "node")
	if err != nil {
		return nil, unreadable(dir, err)
	}
	id := &identity{node: node, refused: make(chan struct{}, 1)}
	if _, isWitness := pki.WitnessName(node.Leaf()); isWitness != (role == pki.RoleWitness) {
		return nil, fmt.Errorf("data folder %s is not that of a %s; name another with dataDir", filepath.Dir(dir), role)
	}
	if role != pki.RoleServer {
		return id, nil
	}
	if id.server, err = pki.Load(dir, "server"); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("data folder %s belongs to an agent; start it with 'shoal agent', or join as a server with an empty one",
			filepath.Dir(dir))
	} else if err != nil {
		return nil, unreadable(dir, err)
	}
	if id.ca, err = pki.LoadCA(dir); err != nil {
		return nil, unreadable(dir, err)
	}
	_, err = os.Stat(filepath.Join(dir, foundingMark))
	id.found = err == nil
	return id, nil
}

// unreadable says what to do with keys that are there and cannot be read. Those that are not there mean a first start.
func unreadable(dir string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf("%w; bring back the folder %s from a copy, or move it away and join again with a token", err, dir)
}

// found makes a new cluster: an authority, and this server's certificates from it.
func found(dir string, o Options, request pki.JoinRequest) (*identity, error) {
	// The mark stays until the log has begun. A server that loses its log later must get it from the others, not begin anew.
	if err := pki.Write(dir, foundingMark, nil, 0o600); err != nil {
		return nil, err
	}
	ca, err := pki.LoadCA(dir) // of a founding that was cut off
	if errors.Is(err, fs.ErrNotExist) {
		if ca, err = pki.NewCA(); err == nil {
			err = ca.Save(dir)
		}
	}
	if err != nil {
		return nil, err
	}
	grant, err := ca.Grant(request)
	if err != nil {
		return nil, err
	}
	if err := save(dir, o, request, grant); err != nil {
		return nil, err
	}
	return load(dir, pki.RoleServer)
}

// foundingMark is the file that says that this server begins the cluster's log.
const foundingMark = "founding"

// begun removes the mark.
func begun(dataDir string) error {
	return os.Remove(filepath.Join(dataDir, "pki", foundingMark))
}

// save writes a grant into the folder, and for servers an administrator's kubeconfig beside it.
func save(dir string, o Options, request pki.JoinRequest, grant *pki.Grant) error {
	if len(grant.Server) > 0 {
		ca, err := pki.ParseCA(grant.CA, grant.CAKey)
		if err != nil {
			return err
		}
		if err := ca.Save(dir); err != nil {
			return err
		}
		if err := pki.SavePair(dir, "server", grant.Server, request.Key); err != nil {
			return err
		}
		if err := saveKubeconfig(o.Config, ca); err != nil {
			return err
		}
		if err := saveGrantedKeys(o.Config, grant.SecretsKeys); err != nil {
			return err
		}
	}
	if err := pki.Write(dir, "ca.crt", grant.CA, 0o644); err != nil {
		return err
	}
	return pki.Write(dir, "node.crt", grant.Node, 0o644)
}

// KubeconfigPath is where a server writes the kubeconfig of an administrator.
func KubeconfigPath(c configs.Config) string { return filepath.Join(c.DataDir, "admin.kubeconfig") }

// apiURL is where others reach a server's API.
func apiURL(c configs.Config) (string, error) {
	_, port, err := net.SplitHostPort(c.Server.Listen)
	return "https://" + net.JoinHostPort(c.AdvertiseAddress, port), err
}

func saveKubeconfig(c configs.Config, ca *pki.CA) error {
	at, err := apiURL(c)
	if err != nil {
		return err
	}
	text, err := ca.IssueAdmin(at)
	if err != nil {
		return err
	}
	return pki.Write(c.DataDir, filepath.Base(KubeconfigPath(c)), text, 0o600)
}
