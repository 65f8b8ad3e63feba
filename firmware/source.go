package firmware

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// stall is how long a body may give no byte before it is given up.
const stall = time.Minute

// toEnd stands for the end of what is read.
const toEnd = -1

// Neighbours are the devices of the same network, of which one fetches a release from outside and the others get it from there.
// *share.Sharer is one. None of it has to be believed: everything is compared with its hash.
type Neighbours interface {
	// Turn returns when no neighbour fetches what the name stands for. Until end is called, neighbours that want it wait for this device.
	// Waiting is called with the name of the neighbour that is waited for.
	Turn(ctx context.Context, name string, waiting func(neighbour string)) (end func(ok bool))
	// Fetch opens what has the digest, sha256:..., from one offset up to another, or to its end (-1).
	Fetch(ctx context.Context, digest string, from, to int64) (io.ReadCloser, error)
}

// Name is what devices call an artifact among each other. No image has such a name, with which it could be taken for one.
func Name(sha256 string) string { return "firmware sha256:" + sha256 }

// source is a place that may have the artifact as it is.
type source struct {
	name string
	open func(ctx context.Context, from, to int64) (io.ReadCloser, error)
}

// nearby are the sources that cost nothing: this device's own disk, and the neighbours.
func (d *Device) nearby() []source {
	sum := d.record.Assignment.Artifact.SHA256
	var all []source
	if d.cfg.Artifacts != "" {
		all = append(all, source{"the folder of artifacts", func(_ context.Context, from, to int64) (io.ReadCloser, error) {
			return d.cfg.Artifacts.part(sum, from, to)
		}})
	}
	if n := d.cfg.Neighbours; n != nil {
		all = append(all, source{"neighbours", func(ctx context.Context, from, to int64) (io.ReadCloser, error) {
			return n.Fetch(ctx, "sha256:"+sum, from, to)
		}})
	}
	return all
}

// NewClient bounds every wait but that for the body, which may take days on a slow link.
func NewClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   30 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		IdleConnTimeout:       time.Second,
	}}
}

// get asks for a file from an offset up to another, or to its end (RFC 9110, section 14), at the rate that the device may use. whole says
// that the server knows no ranges and sends all of it; what comes before the offset is thrown away then.
func (d *Device) get(ctx context.Context, url string, from, to int64) (body io.ReadCloser, whole bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, false, err
	}
	offset := strconv.FormatInt(from, 10)
	if to != toEnd {
		request.Header.Set("Range", "bytes="+offset+"-"+strconv.FormatInt(to-1, 10))
	} else if from > 0 {
		request.Header.Set("Range", "bytes="+offset+"-")
	}
	response, err := d.cfg.HTTP.Do(request)
	if err != nil {
		return nil, false, err
	}
	w := &watched{ctx: ctx, body: response.Body, cancel: cancel, limit: d.limit, stalled: time.AfterFunc(stall, cancel)}
	switch {
	case response.StatusCode == http.StatusPartialContent && strings.HasPrefix(response.Header.Get("Content-Range"), "bytes "+offset+"-"):
		return w, false, nil
	case response.StatusCode == http.StatusOK:
		if _, err := io.CopyN(io.Discard, w, from); err != nil {
			return nil, true, errors.Join(err, w.Close())
		}
		return w, true, nil
	}
	return nil, false, errors.Join(fmt.Errorf("%s: %s", url, response.Status), w.Close())
}

// watched is a body that is read no faster than it may be, and given up when it stands still.
type watched struct {
	ctx     context.Context
	body    io.ReadCloser
	cancel  func()
	limit   *rate.Limiter // nil: none
	stalled *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	if w.limit != nil {
		p = p[:min(len(p), w.limit.Burst())]
	}
	n, err := w.body.Read(p)
	if n > 0 {
		w.stalled.Reset(stall)
		if w.limit != nil {
			if late := w.limit.WaitN(w.ctx, n); late != nil && err == nil {
				err = late
			}
			w.stalled.Reset(stall)
		}
	}
	return n, err
}

func (w *watched) Close() error {
	w.stalled.Stop()
	w.cancel()
	return w.body.Close()
}

// Has reports whether a slot of this device has the artifact with a SHA-256 whole, so that neighbours can be given it.
func (d *Device) Has(ctx context.Context, sha256 string) bool {
	_, err := d.Size(ctx, "sha256:"+sha256)
	return err == nil
}

// Size is the length of such an artifact. The digest is sha256:...
func (d *Device) Size(_ context.Context, digest string) (int64, error) {
	slot, err := d.held(digest)
	return slot.size, err
}

// Copy writes such an artifact, from an offset on.
func (d *Device) Copy(ctx context.Context, w io.Writer, digest string, offset int64) error {
	slot, err := d.held(digest)
	if err != nil {
		return err
	}
	file, err := d.cfg.Backend.Read(ctx, slot.name)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, io.NewSectionReader(file, offset, slot.size-offset))
	return errors.Join(err, file.Close())
}

func (d *Device) held(digest string) (holding, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	slot, has := d.holds[strings.TrimPrefix(digest, "sha256:")]
	if !has {
		return slot, fs.ErrNotExist
	}
	return slot, nil
}

// holding is a slot that is whole, for neighbours to be given.
type holding struct {
	name string
	size int64
}

// publish notes which slots neighbours can be given. It is called before anything is written into one.
func (d *Device) publish() {
	holds := map[string]holding{}
	for name, what := range d.record.Slots {
		if what.Whole && what.Size > 0 {
			holds[what.SHA256] = holding{name, what.Size}
		}
	}
	d.mu.Lock()
	d.holds = holds
	d.mu.Unlock()
}
