package cri

import (
	"context"
	"fmt"
	"slices"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// Image implements runtime.Runtime.
func (r *Runtime) Image(ctx context.Context, ref string) (runtime.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := r.images.ImageStatus(ctx, &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: ref}})
	if err != nil {
		return runtime.Image{}, r.failed("image "+ref, err)
	}
	if reply.Image == nil {
		return runtime.Image{}, fmt.Errorf("image %s: %w", ref, runtime.ErrNotFound)
	}
	return imageOf(reply.Image), nil
}

func imageOf(i *criapi.Image) runtime.Image {
	out := runtime.Image{ID: i.Id, Refs: slices.Concat(i.RepoTags, i.RepoDigests), Size: i.Size, User: i.Username, Pinned: i.Pinned}
	if uid := i.Uid; uid != nil {
		out.UID = &uid.Value
	}
	return out
}

// Images implements runtime.Runtime.
func (r *Runtime) Images(ctx context.Context) ([]runtime.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := r.images.ListImages(ctx, &criapi.ListImagesRequest{})
	if err != nil {
		return nil, r.failed("list images", err)
	}
	all := make([]runtime.Image, 0, len(reply.Images))
	for _, i := range reply.Images {
		all = append(all, imageOf(i))
	}
	return all, nil
}

// RemoveImage implements runtime.Runtime.
func (r *Runtime) RemoveImage(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, slowTimeout)
	defer cancel()
	_, err := r.images.RemoveImage(ctx, &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: id}})
	return r.unlessGone("remove image", err)
}

// ImageDir implements runtime.Runtime.
func (r *Runtime) ImageDir(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := r.images.ImageFsInfo(ctx, &criapi.ImageFsInfoRequest{})
	if err != nil {
		return "", r.failed("image file system", err)
	}
	for _, fs := range reply.ImageFilesystems {
		if dir := fs.GetFsId().GetMountpoint(); dir != "" {
			return dir, nil
		}
	}
	return "", fmt.Errorf("image file system: %w", runtime.ErrNotFound)
}

// Usage implements runtime.Runtime.
func (r *Runtime) Usage(ctx context.Context) (map[string]runtime.Usage, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := r.cri.ListContainerStats(ctx, &criapi.ListContainerStatsRequest{})
	if err != nil {
		return nil, r.failed("container stats", err)
	}
	all := make(map[string]runtime.Usage, len(reply.Stats))
	for _, s := range reply.Stats {
		if s.GetCpu() == nil || s.GetMemory() == nil {
			continue // it does not run
		}
		all[s.GetAttributes().GetId()] = runtime.Usage{
			At:     time.Unix(0, s.GetCpu().GetTimestamp()),
			CPU:    time.Duration(s.GetCpu().GetUsageCoreNanoSeconds().GetValue()),
			Memory: int64(s.GetMemory().GetWorkingSetBytes().GetValue()),
			Disk:   int64(s.GetWritableLayer().GetUsedBytes().GetValue()),
		}
	}
	return all, nil
}
