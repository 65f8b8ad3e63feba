package apiserver

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/tokens"
	"github.com/shoal-edge/shoal/store"
)

// authenticateBearer takes the identity from the Authorization header.
func (s *Server) authenticateBearer(r *http.Request) (user, error) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); !ok || token == "" || !strings.EqualFold(scheme, "bearer") {
		return user{}, errUnauthorized()
	}
	found, _, err := s.checkToken(r.Context(), token, nil)
	if err != nil {
		s.cfg.Logger.Debug("a token was refused", "peer", r.RemoteAddr, "error", err)
		return user{}, errUnauthorized()
	}
	found.Authenticate()
	return user{User: *found}, nil
}

// checkToken finds out whose a token is, and for which of the audiences it is meant (none: for the API itself). A token of what this
// server has not heard of yet is looked at again once it has.
func (s *Server) checkToken(ctx context.Context, token string, audiences []string) (*access.User, []string, error) {
	if m := bootstrapPattern().FindStringSubmatch(token); m != nil {
		if len(audiences) > 0 && !slices.Contains(audiences, tokens.Issuer) {
			return nil, nil, errBootstrap
		}
		found, err := s.checkBootstrap(m[1], m[2])
		return found, []string{tokens.Issuer}, err
	}
	if s.cfg.Tokens == nil {
		return nil, nil, tokens.ErrUnknown
	}
	found, meant, err := s.cfg.Tokens.Verify(ctx, token, audiences)
	if errors.Is(err, tokens.ErrGone) && !s.cfg.Consensus.IsLeader() {
		ctx, cancel := context.WithTimeout(ctx, denialCheck)
		defer cancel()
		if s.catchUp(ctx) == nil {
			found, meant, err = s.cfg.Tokens.Verify(ctx, token, audiences)
		}
	}
	return found, meant, err
}

// reviewToken answers a TokenReview.
func (s *Server) reviewToken(ctx context.Context, spec *authenticationv1.TokenReviewSpec) authenticationv1.TokenReviewStatus {
	found, meant, err := s.checkToken(ctx, spec.Token, spec.Audiences)
	if err != nil {
		return authenticationv1.TokenReviewStatus{Error: fmt.Sprintf("[invalid bearer token, %v]", err)}
	}
	found.Authenticate()
	return authenticationv1.TokenReviewStatus{Authenticated: true, User: userInfo(found), Audiences: meant}
}

// bootstrapPattern is the form of a bootstrap token, ID.SECRET: Kubernetes' secrets have 16 characters, those of join tokens more.
var bootstrapPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16,26})$`) })

var errBootstrap = errors.New("it is not a bootstrap token of this cluster, or not one for requests")

// checkBootstrap looks a bootstrap token up in its Secret, which must say that it is for requests. A join token's does not.
func (s *Server) checkBootstrap(id, secret string) (*access.User, error) {
	stored, ok := store.Get[corev1.Secret](s.cfg.Durable, metav1.NamespaceSystem, "bootstrap-token-"+id)
	if !ok || stored.DeletionTimestamp != nil || stored.Type != corev1.SecretTypeBootstrapToken || string(stored.Data["token-id"]) != id ||
		string(stored.Data["usage-bootstrap-authentication"]) != "true" {
		return nil, errBootstrap
	}
	sum := sha256.Sum256([]byte(secret))
	plain := subtle.ConstantTimeCompare([]byte(secret), stored.Data["token-secret"])
	hashed := subtle.ConstantTimeCompare([]byte(hex.EncodeToString(sum[:])), stored.Data["token-secret-sha256"])
	if plain|hashed != 1 {
		return nil, errBootstrap
	}
	if text := string(stored.Data["expiration"]); text != "" {
		if at, err := time.Parse(time.RFC3339, text); err != nil || !s.cfg.Now().Before(at) {
			return nil, errBootstrap
		}
	}
	found := &access.User{Name: "system:bootstrap:" + id, Groups: []string{access.Bootstrappers}}
	for group := range strings.SplitSeq(string(stored.Data["auth-extra-groups"]), ",") {
		if strings.HasPrefix(group, access.Bootstrappers+":") {
			found.Groups = append(found.Groups, group)
		}
	}
	return found, nil
}
