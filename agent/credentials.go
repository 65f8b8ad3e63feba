package agent

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"os"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime/image"
)

// maxCredentials bounds how many logins are tried for one image.
const maxCredentials = 8

// hub is the registry of images that name none.
const hub = "docker.io"

// login is an entry of a pull secret: who one is at a registry, or in one part of it.
type login struct {
	place string // registry.example.com:5000/team
	auth  *criapi.AuthConfig
}

// dockerConfig is the content of ~/.docker/config.json, as pull secrets have it.
type dockerConfig map[string]struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// credentials are the logins to try for an image, the most fitting first: those of the pod's pull secrets, the device's own, and none.
func (a *Agent) credentials(p *corev1.Pod, image string) []*criapi.AuthConfig {
	var logins []login
	for _, ref := range p.Spec.ImagePullSecrets {
		if s := a.Secret(p.Namespace, ref.Name); s != nil {
			logins = append(logins, secretLogins(s)...)
		}
	}
	slices.SortStableFunc(logins, func(x, y login) int { return cmp.Compare(len(y.place), len(x.place)) })
	for _, r := range a.c.Registries {
		if r.Username == "" {
			continue
		}
		// Read anew each time: who changes the password need not restart anything.
		if password, err := os.ReadFile(r.PasswordFile); err == nil {
			logins = append(logins, login{r.Host, &criapi.AuthConfig{Username: r.Username, Password: strings.TrimSpace(string(password))}})
		}
	}
	var found []*criapi.AuthConfig
	host, repository := splitImage(image)
	for _, l := range logins {
		if covers(l.place, host, repository) && len(found) < maxCredentials-1 {
			found = append(found, l.auth)
		}
	}
	return append(found, nil)
}

// secretLogins reads a pull secret of either kind. What cannot be read is left out: the registry's refusal says more than this would.
func secretLogins(s *corev1.Secret) []login {
	var entries dockerConfig
	if data := s.Data[corev1.DockerConfigJsonKey]; data != nil {
		var file struct {
			Auths dockerConfig `json:"auths"`
		}
		if json.Unmarshal(data, &file) != nil {
			return nil
		}
		entries = file.Auths
	} else if json.Unmarshal(s.Data[corev1.DockerConfigKey], &entries) != nil {
		return nil
	}
	var logins []login
	for server, e := range entries {
		if user, password, ok := decode(e.Auth); ok && e.Username == "" {
			e.Username, e.Password = user, password
		}
		logins = append(logins, login{place(server), &criapi.AuthConfig{
			Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken,
		}})
	}
	slices.SortFunc(logins, func(x, y login) int { return cmp.Compare(x.place, y.place) })
	return logins
}

func decode(auth string) (user, password string, ok bool) {
	data, err := base64.StdEncoding.DecodeString(auth)
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(data), ":")
}

// place is the registry and path that a key of a Docker configuration is about: https://index.docker.io/v1/ is docker.io.
func place(server string) string {
	_, rest, ok := strings.Cut(server, "://")
	if !ok {
		rest = server
	}
	rest = strings.Trim(rest, "/")
	host, where, _ := strings.Cut(rest, "/")
	if where == "v1" || where == "v2" {
		where = ""
	}
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = hub
	}
	return strings.TrimSuffix(host+"/"+where, "/")
}

// covers reports whether a login's place covers a repository. Each part of its host name may have wildcards, as in *.example.com.
func covers(place, host, repository string) bool {
	pattern, where, _ := strings.Cut(place, "/")
	patterns, parts := strings.Split(pattern, "."), strings.Split(host, ".")
	if len(patterns) != len(parts) {
		return false
	}
	for i := range parts {
		if ok, err := path.Match(patterns[i], parts[i]); err != nil || !ok {
			return false
		}
	}
	return where == "" || repository == where || strings.HasPrefix(repository, where+"/")
}

// splitImage splits a reference into its registry and its repository, without tag and digest: busybox:1 is docker.io and
// library/busybox.
func splitImage(name string) (host, repository string) {
	name, _, _ = strings.Cut(name, "@")
	host, repository = image.Split(name)
	if at := strings.LastIndexByte(repository, ':'); at > strings.LastIndexByte(repository, '/') {
		repository = repository[:at]
	}
	return host, repository
}
