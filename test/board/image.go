// Package board is a virtual arm64 board for the update of its firmware: QEMU with Debian's U-Boot and kernel, a disk with two slots and
// a volatile cache, and shoal as its agent. What is in the image is made here from source, but for U-Boot and the kernel.
//
// The environment that the board's U-Boot keeps is a sector of the disk, in U-Boot's format. Debian's build has no boot counting, so
// that the script below counts, by the same variables.
package board

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/shoal-edge/shoal/test/powercut/disk"
)

// The disk: a partition table, U-Boot's environment, a partition with its script, the slots and the data.
const (
	mib       = 1 << 20
	slotSize  = 112 * mib
	dataSize  = 64 * mib
	envOffset = 64 * disk.Sector
	bootAt    = 1 * mib
	slotAt    = 8 * mib
	dataAt    = slotAt + 2*slotSize
	diskSize  = dataAt + dataSize
)

// script is U-Boot's: it counts the tries, chooses the slot and starts its kernel. Each change is one sector, so a power cut leaves the old
// environment or the new one.
const script = `
virtio read 0x48000000 0x40 1
env import -c 0x48000000 0x200
setenv slot ${shoal_slot}
if test "${upgrade_available}" = "1"; then
  setexpr bootcount ${bootcount} + 1
  env export -c -s 0x200 0x48000000 shoal_slot shoal_try upgrade_available bootcount bootlimit
  virtio write 0x48000000 0x40 1
  if test ${bootcount} -le ${bootlimit}; then setenv slot ${shoal_try}; fi
fi
if test "${slot}" = "b"; then setenv part 3; else setenv part 2; fi
setenv bootargs console=ttyAMA0 quiet panic=1 shoal.slot=${slot}
echo board: slot ${slot}, try ${bootcount}
load virtio 0:${part} ${kernel_addr_r} /boot/Image && load virtio 0:${part} ${ramdisk_addr_r} /boot/initrd && booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${fdtcontroladdr}
reset
`

// modules are what the kernel needs to find the disk, the network and the watchdog, in the order in which they are loaded.
var modules = []string{ //nolint:gochecknoglobals // a constant that Go has no form for
	"drivers/virtio/virtio_pci_modern_dev.ko", "drivers/virtio/virtio_pci_legacy_dev.ko", "drivers/virtio/virtio_pci.ko",
	"drivers/block/virtio_blk.ko", "net/core/failover.ko", "drivers/net/net_failover.ko", "drivers/net/virtio_net.ko", "lib/crc16.ko",
	"crypto/crc32c_generic.ko", "lib/libcrc32c.ko", "fs/mbcache.ko", "fs/jbd2/jbd2.ko", "fs/ext4/ext4.ko", "drivers/watchdog/i6300esb.ko",
}

// Builder makes images in a folder.
type Builder struct {
	Dir    string // for all that it makes
	Kernel string // the unpacked package of a kernel
	Shoal  string // the binary for arm64
	Guest  string // that of ./guest
}

// Slot makes the image of a slot with a release that does something: good, "a panic", "a hang", "sick", or "a missing root".
func (b *Builder) Slot(ctx context.Context, does string) (path string, err error) {
	path = filepath.Join(b.Dir, strings.ReplaceAll(does, " ", "-")+".img")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	root := filepath.Join(b.Dir, "root")
	if err := os.RemoveAll(root); err != nil {
		return "", err
	}
	for _, dir := range []string{"bin", "boot", "data", "dev", "proc", "run", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return "", err
		}
	}
	kernel, err := filepath.Glob(filepath.Join(b.Kernel, "boot", "vmlinuz-*"))
	if err != nil || len(kernel) != 1 {
		return "", fmt.Errorf("%s has no kernel", b.Kernel)
	}
	if err := b.initrd(ctx, filepath.Join(root, "boot", "initrd")); err != nil {
		return "", err
	}
	files := map[string]string{"boot/Image": kernel[0], "bin/shoal": b.Shoal, "bin/systemctl": b.Guest, "init": b.Guest}
	if does == "a missing root" {
		delete(files, "init")
	}
	for name, from := range files {
		if err := copyFile(filepath.Join(root, name), from); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "behaviour"), []byte(does+"\n"), 0o644); err != nil {
		return "", err
	}
	return path, fileSystem(ctx, path, root, slotSize)
}

// initrd makes the initial RAM disk: the guest and the kernel's modules.
func (b *Builder) initrd(ctx context.Context, path string) error {
	dir := filepath.Join(b.Dir, "initrd")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	for _, name := range []string{"dev", "lib", "proc", "root", "sys"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	trees, err := filepath.Glob(filepath.Join(b.Kernel, "lib", "modules", "*", "kernel"))
	if err != nil || len(trees) != 1 {
		return fmt.Errorf("%s has no modules", b.Kernel)
	}
	var names []string
	for _, module := range modules {
		names = append(names, filepath.Base(module))
		if err := copyFile(filepath.Join(dir, "lib", filepath.Base(module)), filepath.Join(trees[0], module)); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "modules"), []byte(strings.Join(names, "\n")), 0o644); err != nil {
		return err
	}
	if err := copyFile(filepath.Join(dir, "init"), b.Guest); err != nil {
		return err
	}
	var list bytes.Buffer
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(dir, path)
		fmt.Fprintln(&list, rel)
		return errors.Join(err, relErr)
	}); err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "cpio", "-o", "-H", "newc", "--quiet")
	cmd.Dir, cmd.Stdin, cmd.Stdout = dir, &list, out
	return errors.Join(cmd.Run(), out.Close())
}

// Disk is the content of a disk whose slot a runs, with files in its data partition.
func (b *Builder) Disk(ctx context.Context, files map[string]string) ([]byte, error) {
	slot, err := b.Slot(ctx, "good")
	if err != nil {
		return nil, err
	}
	boot, err := b.bootPartition(ctx)
	if err != nil {
		return nil, err
	}
	content := filepath.Join(b.Dir, "data")
	if err := os.RemoveAll(content); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(content, 0o755); err != nil {
		return nil, err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(content, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	data := content + ".img"
	if err := fileSystem(ctx, data, content, dataSize); err != nil {
		return nil, err
	}
	out := make([]byte, diskSize)
	table(out)
	copy(out[envOffset:], environment("bootcount=0", "bootlimit=3", "shoal_slot=a", "upgrade_available=0"))
	for at, path := range map[int]string{bootAt: boot, slotAt: slot, dataAt: data} {
		image, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		copy(out[at:], image)
	}
	return out, nil
}

func (b *Builder) bootPartition(ctx context.Context) (path string, err error) {
	dir := filepath.Join(b.Dir, "boot")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	source := filepath.Join(b.Dir, "boot.cmd")
	if err := os.WriteFile(source, []byte(script), 0o644); err != nil {
		return "", err
	}
	if err := run(ctx, "mkimage", "-A", "arm64", "-T", "script", "-C", "none", "-d", source, filepath.Join(dir, "boot.scr")); err != nil {
		return "", err
	}
	return dir + ".img", fileSystem(ctx, dir+".img", dir, 4*mib)
}

// table writes a partition table: boot, a, b, data.
func table(out []byte) {
	for i, part := range [][2]int{{bootAt, 4 * mib}, {slotAt, slotSize}, {slotAt + slotSize, slotSize}, {dataAt, dataSize}} {
		entry := out[446+16*i:]
		if i == 0 {
			entry[0] = 0x80 // active
		}
		entry[4] = 0x83 // Linux
		binary.LittleEndian.PutUint32(entry[8:], uint32(part[0]/disk.Sector))
		binary.LittleEndian.PutUint32(entry[12:], uint32(part[1]/disk.Sector))
	}
	out[510], out[511] = 0x55, 0xaa
}

// environment is U-Boot's, in one sector.
func environment(variables ...string) []byte {
	out := make([]byte, disk.Sector)
	copy(out[4:], strings.Join(variables, "\x00"))
	binary.LittleEndian.PutUint32(out, crc32.ChecksumIEEE(out[4:]))
	return out
}

// fileSystem makes an ext4 of a size with a folder's content.
func fileSystem(ctx context.Context, path, content string, size int64) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return run(ctx, "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-E", "root_owner=0:0", "-d", content, path, fmt.Sprint(size/4096))
}

func run(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// copyFile copies a program.
func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// FromFolder is a builder with what the Makefile puts into a folder: kernel, shoal and guest.
func FromFolder(dir, images string) *Builder {
	return &Builder{Dir: images, Kernel: filepath.Join(dir, "kernel"), Shoal: filepath.Join(dir, "shoal"), Guest: filepath.Join(dir, "guest")}
}
