package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync/atomic"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Export is a folder in which ports of disks are files, so that loop devices can be put on them.
type Export struct {
	dir    string
	root   *fusefs.Inode
	server *fuse.Server
	count  atomic.Int64
}

// Mount makes an empty folder an Export. It needs root.
func Mount(dir string) (*Export, error) {
	root := &fusefs.Inode{}
	server, err := fusefs.Mount(dir, root, &fusefs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, MaxWrite: 512 << 10, FsName: "shoal-powercut", Name: "shoal-powercut", DisableXAttrs: true,
	}})
	if err != nil {
		return nil, fmt.Errorf("mount the disks: %w", err)
	}
	return &Export{dir: dir, root: root, server: server}, nil
}

// Unmount ends the folder; nobody may use a file in it.
func (e *Export) Unmount() error { return e.server.Unmount() }

// Add makes a port a file and returns its path. Each power-on has a file of its own, so that nothing that the kernel still has to
// write from before a cut can arrive after it.
func (e *Export) Add(p *Port) (string, error) {
	name := fmt.Sprintf("disk%d", e.count.Add(1))
	ino := e.root.NewPersistentInode(context.Background(), &file{port: p}, fusefs.StableAttr{Mode: fuse.S_IFREG})
	if !e.root.AddChild(name, ino, false) {
		return "", fmt.Errorf("%s: %w", name, fs.ErrExist)
	}
	return filepath.Join(e.dir, name), nil
}

// Remove forgets a file.
func (e *Export) Remove(path string) { e.root.RmChild(filepath.Base(path)) }

// file is a port as a file without any cache of the kernel's before it.
type file struct {
	fusefs.Inode
	port *Port
}

var _ interface {
	fusefs.NodeOpener
	fusefs.NodeGetattrer
	fusefs.NodeReader
	fusefs.NodeWriter
	fusefs.NodeFsyncer
	fusefs.NodeAllocater
} = (*file)(nil)

func (f *file) Open(context.Context, uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *file) Getattr(_ context.Context, _ fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = fuse.S_IFREG | 0o600
	out.Size = uint64(f.port.Size())
	out.Blocks = out.Size / Sector
	out.Blksize = Block
	return 0
}

func (f *file) Read(_ context.Context, _ fusefs.FileHandle, b []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if err := f.port.ReadAt(b, off); err != nil {
		return nil, errno(err)
	}
	return fuse.ReadResultData(b), 0
}

func (f *file) Write(_ context.Context, _ fusefs.FileHandle, b []byte, off int64) (uint32, syscall.Errno) {
	if err := f.port.WriteAt(b, off); err != nil {
		return 0, errno(err)
	}
	return uint32(len(b)), 0
}

// Fsync is what a flush of the loop device becomes.
func (f *file) Fsync(context.Context, fusefs.FileHandle, uint32) syscall.Errno {
	return errno(f.port.Flush())
}

// Allocate is what a loop device asks for to discard sectors or to fill them with zeros. To discard may do nothing, but zeros
// must be read afterwards, so that both are zeros here.
func (f *file) Allocate(_ context.Context, _ fusefs.FileHandle, off, length uint64, _ uint32) syscall.Errno {
	return errno(f.port.ZeroAt(int64(off), int64(length)))
}

func errno(err error) syscall.Errno {
	var e syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e
	}
	return syscall.EIO
}
