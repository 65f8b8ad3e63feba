package agent

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/pod"
	"github.com/shoal-edge/shoal/agent/runtime"
)

// imageKey, with an image's id, is where the database has the record of an image that this device has fetched.
const imageKey = "image/"

// fetched is the record of an image that this device has fetched, and so could fetch again. The order is that in which images were
// last started; it is a count, for a device's clock may be wrong.
type fetched struct {
	id, repository string
	order          uint64
}

func (f fetched) value() []byte {
	return append(binary.BigEndian.AppendUint64(nil, f.order), f.repository...)
}

func (a *Agent) fetchedImages() []fetched {
	var all []fetched
	a.db.each(bucketMeta, imageKey, func(key string, value []byte) {
		if len(value) >= 8 {
			all = append(all, fetched{key[len(imageKey):], string(value[8:]), binary.BigEndian.Uint64(value)})
		}
	})
	slices.SortFunc(all, func(x, y fetched) int { return cmp.Compare(x.order, y.order) })
	return all
}

// noteImage records that an image was fetched, or that one that was fetched before is started. What starts again and again is
// written once.
func (a *Agent) noteImage(id, ref string, fresh bool) {
	host, repository := splitImage(ref)
	record := fetched{id: id, repository: host + "/" + repository}
	all := a.fetchedImages()
	known := slices.ContainsFunc(all, func(f fetched) bool { return f.id == id })
	if !known && !fresh {
		return // it was imported or made here: nobody knows where to get it again
	}
	if newestOf(all, record.repository) == id {
		return
	}
	if len(all) > 0 {
		record.order = all[len(all)-1].order
	}
	record.order++
	if err := a.db.put(bucketMeta, map[string][]byte{imageKey + id: record.value()}); err != nil {
		a.c.Logger.Warn("an image is not recorded, so it will not be removed when the disk is short", "image", ref, "err", err)
	}
}

// newestOf is the image of a repository that was started last.
func newestOf(all []fetched, repository string) string {
	id := ""
	for _, f := range all {
		if f.repository == repository {
			id = f.id
		}
	}
	return id
}

// collectImages removes images until enough says so, those first that were not started for longest. It never removes what cannot be
// fetched again (what this device did not fetch), what a pod of this device uses or will use, and the image before it, which a
// rollback wants.
func (a *Agent) collectImages(ctx context.Context, enough func() bool) (removed int, err error) {
	all, err := a.c.Runtime.Images(ctx)
	if err != nil {
		return 0, err
	}
	records := a.fetchedImages()
	present := map[string]runtime.Image{}
	for _, img := range all {
		present[img.ID] = img
	}
	a.forgetImages(records, present)
	pinned, err := a.pinnedImages(ctx, all)
	if err != nil {
		return 0, err
	}
	keepPrevious(records, pinned)
	for _, f := range records {
		img, ok := present[f.id]
		if !ok || img.Pinned || pinned[f.id] {
			continue
		}
		if enough() {
			break
		}
		if err := a.c.Runtime.RemoveImage(ctx, f.id); err != nil {
			return removed, fmt.Errorf("image garbage collection: %w", err)
		}
		removed++
		a.c.Logger.Info("image removed, for the disk is short", "image", strings.Join(img.Refs, " "), "id", f.id)
	}
	return removed, nil
}

// forgetImages drops the records of images that are gone.
func (a *Agent) forgetImages(records []fetched, present map[string]runtime.Image) {
	gone := map[string][]byte{}
	for _, f := range records {
		if _, ok := present[f.id]; !ok {
			gone[imageKey+f.id] = nil
		}
	}
	if len(gone) > 0 {
		if err := a.db.put(bucketMeta, gone); err != nil {
			a.c.Logger.Warn("records of images", "err", err)
		}
	}
}

// pinnedImages are the ids of the images that containers run, or that pods of this device name.
func (a *Agent) pinnedImages(ctx context.Context, all []runtime.Image) (map[string]bool, error) {
	named := map[string]bool{}
	pods, err := a.c.Runtime.Pods(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range pods {
		for _, c := range p.Containers {
			if c.State != runtime.Exited {
				named[c.Image], named[c.ImageID] = true, true
			}
		}
	}
	pinned := map[string]bool{}
	for _, img := range all {
		if named[img.ID] || slices.ContainsFunc(img.Refs, func(ref string) bool { return named[ref] }) {
			pinned[img.ID] = true
		}
	}
	a.mu.Lock()
	var wanted []*corev1.Pod
	for _, w := range a.pods {
		if _, last := w.wanted(); last != nil {
			wanted = append(wanted, last)
		}
	}
	a.mu.Unlock()
	for _, p := range wanted {
		for c := range pod.All(p) {
			// The runtime knows best which of its images a name means.
			img, err := a.c.Runtime.Image(ctx, c.Image)
			if err != nil && !errors.Is(err, runtime.ErrNotFound) {
				return nil, err
			}
			pinned[img.ID] = true
		}
	}
	return pinned, nil
}

// keepPrevious pins, for each repository with a pinned image, the one that was started last of its others.
func keepPrevious(records []fetched, pinned map[string]bool) {
	used, previous := map[string]bool{}, map[string]string{}
	for _, f := range records {
		if pinned[f.id] {
			used[f.repository] = true
		} else {
			previous[f.repository] = f.id
		}
	}
	for repository, id := range previous {
		if used[repository] {
			pinned[id] = true
		}
	}
}
