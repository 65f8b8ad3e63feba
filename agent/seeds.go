package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-edge/shoal/agent/incoming"
	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/archive"
)

// seedKey, with a file's name, is where the database has which version of an archive was imported.
const seedKey = "seed/"

// keepSeeds imports the images of the archives in the folder, each once, when one comes and when the runtime does.
func (a *Agent) keepSeeds(ctx context.Context) {
	g, ctx := errgroup.WithContext(ctx)
	defer func() { _ = g.Wait() }() // none of them returns an error
	g.Go(func() error {
		err := incoming.Watch(ctx, a.c.Seeds, func() { wake(a.seeding) })
		if ctx.Err() == nil {
			a.c.Logger.Warn("archives of images that come from here on are imported at the next start", "err", err)
		}
		return nil
	})
	told := map[string]string{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.seeding:
			if a.ready.Load() {
				a.importSeeds(ctx, told)
			}
		}
	}
}

// importSeeds looks at all files. Told is what was said to be wrong with which version of one: it is said once, and the file tried again
// when it changes, for it may not have been whole yet, or at the next start.
func (a *Agent) importSeeds(ctx context.Context, told map[string]string) {
	entries, err := os.ReadDir(a.c.Seeds)
	if err != nil {
		a.c.Logger.Warn("archives of images", "err", err)
		return
	}
	for _, e := range entries {
		stat, err := e.Info()
		if err != nil || !stat.Mode().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		version := fmt.Sprintf("%d %d", stat.Size(), stat.ModTime().UnixNano())
		if told[e.Name()] == version || string(a.db.get(bucketMeta, seedKey+e.Name())) == version {
			continue
		}
		path := filepath.Join(a.c.Seeds, e.Name())
		all, err := a.importSeed(ctx, path)
		switch {
		case ctx.Err() != nil, errors.Is(err, runtime.ErrUnavailable): // it will be back
			return
		case err != nil:
			a.c.Logger.Error("images are not imported", "archive", path, "err", err)
			told[e.Name()] = version
			continue
		}
		for _, img := range all {
			a.c.Logger.Info("image imported", "archive", path, "image", img.Name)
		}
		if err := a.db.put(bucketMeta, map[string][]byte{seedKey + e.Name(): []byte(version)}); err != nil {
			a.c.Logger.Warn("an archive of images will be imported again at the next start", "archive", path, "err", err)
			told[e.Name()] = version
		}
		a.mu.Lock()
		a.wakeWaiting()
		a.mu.Unlock()
	}
}

func (a *Agent) importSeed(ctx context.Context, path string) ([]archive.Named, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return a.c.Import(ctx, file)
}
