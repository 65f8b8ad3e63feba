// Package cri owns the talk with containerd: the Container Runtime Interface for pods, containerd's event service for exits
// (CRI has no events before containerd 1.7), and its content store for images that are made on the device.
package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/content"
	"github.com/shoal-edge/shoal/agent/runtime/image"
)

const (
	maxMessage = 16 << 20
	// callTimeout bounds what should take milliseconds; slowTimeout what sets up or tears down namespaces and networks.
	callTimeout = 10 * time.Second
	slowTimeout = 2 * time.Minute
)

// Config of a Runtime.
type Config struct {
	// Socket is containerd's socket, a path.
	Socket string
	// Catatonit is the program the sandbox image is made from, should it be missing. Default: image.Catatonit.
	Catatonit string
	Logger    *slog.Logger
}

// Runtime is a runtime.Runtime on containerd.
type Runtime struct {
	c       Config
	conn    *grpc.ClientConn
	cri     criapi.RuntimeServiceClient
	images  criapi.ImageServiceClient
	content *content.Store
}

// New returns a Runtime. Nothing is dialled before the first call: containerd may start later than the agent.
func New(c Config) (*Runtime, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Catatonit == "" {
		c.Catatonit = image.Catatonit
	}
	conn, err := grpc.NewClient("unix://"+c.Socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 2 * time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("containerd socket %s: %w", c.Socket, err)
	}
	return &Runtime{
		c: c, conn: conn, cri: criapi.NewRuntimeServiceClient(conn), images: criapi.NewImageServiceClient(conn),
		content: content.New(conn, c.Socket),
	}, nil
}

// Close ends the connection; containers go on.
func (r *Runtime) Close() error { return r.conn.Close() }

// Info implements runtime.Runtime.
func (r *Runtime) Info(ctx context.Context) (runtime.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	v, err := r.cri.Version(ctx, &criapi.VersionRequest{})
	if err != nil {
		return runtime.Info{}, r.failed("version", err)
	}
	s, err := r.cri.Status(ctx, &criapi.StatusRequest{})
	if err != nil {
		return runtime.Info{}, r.failed("status", err)
	}
	info := runtime.Info{Name: v.RuntimeName, Version: strings.TrimPrefix(v.RuntimeVersion, "v")}
	for _, c := range s.GetStatus().GetConditions() {
		switch c.Type {
		case "RuntimeReady":
			info.Ready = c.Status
		case "NetworkReady":
			info.NetworkReady = c.Status
		}
		if !c.Status && info.Message == "" {
			info.Message = c.Message
		}
	}
	return info, nil
}

// EnsureSandboxImage makes the sandbox image when containerd has none under the name it is configured with, so that the
// first pod needs no registry.
func (r *Runtime) EnsureSandboxImage(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, slowTimeout)
	defer cancel()
	s, err := r.cri.Status(ctx, &criapi.StatusRequest{Verbose: true})
	if err != nil {
		return r.failed("status", err)
	}
	var config struct{ SandboxImage string }
	if err := json.Unmarshal([]byte(s.Info["config"]), &config); err != nil || config.SandboxImage == "" {
		return fmt.Errorf("containerd does not say which sandbox image it uses: %w", errors.Join(err, runtime.ErrUnsupported))
	}
	if _, err := r.Image(ctx, config.SandboxImage); !errors.Is(err, runtime.ErrNotFound) {
		return err
	}
	img, err := image.Pause(config.SandboxImage, r.c.Catatonit)
	if err != nil {
		return err
	}
	r.c.Logger.Info("making the sandbox image", "image", config.SandboxImage, "from", r.c.Catatonit)
	return r.Import(ctx, img)
}

// failed wraps an error of containerd in the kind the agent knows.
func (r *Runtime) failed(what string, err error) error { return r.content.Failed(what, err) }
