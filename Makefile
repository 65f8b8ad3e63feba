# make help lists what there is.
.DEFAULT_GOAL := help
SHELL := /bin/sh

export CGO_ENABLED := 0
comma := ,
# Upstream's types, defaults and validation are a third of the program and run a few times a request: without inlining they are
# 2 MB smaller, and copying an object takes 2 us more. The others run when the process starts, seldom, or for a
# person, and those of our own, 490 KB smaller, wait for containers, disks and the log, or are called once a write.
SMALL := $(addprefix k8s.io/,kubernetes api apiextensions-apiserver kube-openapi cri-api component-base component-helpers pod-security-admission) \
	$(addprefix github.com/,google/gnostic-models go-openapi sigstore theupdateframework secure-systems-lab spf13 prometheus containerd \
	vishvananda google/nftables mdlayher moby mochi-mqtt fxamacker json-iterator golang-jwt eclipse) go.yaml.in/yaml go.opentelemetry.io \
	golang.org/x/text \
	$(addprefix github.com/shoal-edge/shoal/,cmd agent firmware configs network controllers pki \
	api/definition api/bootstrap apiserver/admission apiserver/webhooks apiserver/audit transport durable)
# CEL=1 builds a server that evaluates expressions: rules of definitions, policies and webhooks' conditions, for some more megabytes.
CEL ?=
PLAIN := -trimpath -tags=grpcnotrace$(if $(CEL),$(comma)cel) -buildvcs=false
export GOFLAGS := $(PLAIN) $(SMALL:%=-gcflags=%/...=-l)
# Built with what go.mod names and with what is on this machine: no toolchain of another version is fetched.
export GOTOOLCHAIN := local

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
KUBE_VERSION := v1.37.2
KUBE_LDFLAGS := -s -w -X k8s.io/component-base/version.gitVersion=$(KUBE_VERSION) -X k8s.io/component-base/version.gitMajor=1 \
	-X k8s.io/component-base/version.gitMinor=37 -X k8s.io/component-base/version.gitTreeState=clean \
	-X k8s.io/client-go/pkg/version.gitVersion=$(KUBE_VERSION)
# The promise is 45 MB.
SIZE_LIMIT := 45000000
FUZZTIME ?= 20s
BENCHTIME ?= 1s
BENCH ?= .
COUNT ?= 1
EPISODES ?= 200
CUTS ?= 100
SEED ?= 1
FOCUS ?=
SERVER ?=
TOKEN ?=
# Everything but the end-to-end tests, which want the machine for themselves.
PACKAGES = $$(go list ./... | grep -v '/test/e2e$$')

RUNTIME_DEPS := containerd=containerd runc=runc /usr/lib/cni/bridge=containernetworking-plugins ip=iproute2 nft=nftables \
	catatonit=catatonit busybox=busybox-static
ARM_DEPS := qemu-aarch64-static=qemu-user-static
# The virtual board of firmware-qemu.
BOARD_DEPS := qemu-system-aarch64=qemu-system-arm /usr/lib/u-boot/qemu_arm64/u-boot.bin=u-boot-qemu mkimage=u-boot-tools mke2fs=e2fsprogs cpio=cpio
# What unit tests compare with or meet.
TEST_DEPS := mosquitto=mosquitto fw_printenv=libubootenv-tool mkfs.ext4=e2fsprogs rauc=rauc dbus-daemon=dbus mksquashfs=squashfs-tools

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## ---- build

.PHONY: build
build: ## build bin/shoal, one static binary (CEL=1: with expressions, see docs/access.md)
	@go build -ldflags "$(LDFLAGS)" -o bin/shoal ./cmd/shoal

.PHONY: kubectl
kubectl: ## build bin/kubectl from its Go module
	@cd tools && go build -ldflags "$(KUBE_LDFLAGS)" -o ../bin/kubectl ./kubectl

.PHONY: helm
helm: ## build bin/helm from its Go module
	@cd tools/helm && GOFLAGS="$(PLAIN)" go build -ldflags "-s -w" -o ../../bin/helm helm.sh/helm/v4/cmd/helm

.PHONY: images
images: ## build the demonstration images into .build/images
	@go run ./test/images/cmd/buildimages .build/images

.PHONY: build-arm
build-arm: ## build for linux/arm64 and linux/arm (v7, v6), and start each under qemu-user
	GOARCH=arm64 go build -ldflags "$(LDFLAGS)" -o bin/shoal-linux-arm64 ./cmd/shoal
	GOARCH=arm GOARM=7 go build -ldflags "$(LDFLAGS)" -o bin/shoal-linux-armv7 ./cmd/shoal
	GOARCH=arm GOARM=6 go build -ldflags "$(LDFLAGS)" -o bin/shoal-linux-armv6 ./cmd/shoal
	@tools/deps.sh $(ARM_DEPS)
	SHOAL_ARM=1 go test -count=1 -run TestARM ./test/e2e

.PHONY: release
release: build build-arm ## archives of all architectures with units and examples in .build/release
	@tools/release.sh "$(VERSION)"

.PHONY: generate
generate: ## regenerate generated code (needs protoc)
	@tools/deps.sh protoc=protobuf-compiler
	go generate ./...

## ---- run

.PHONY: deps
deps: ## install what is missing from Debian's packages (as root); starts no service
	@tools/deps.sh $(RUNTIME_DEPS)

.PHONY: demo
demo: deps build kubectl images ## a cluster of five devices on this machine, an app, faults; about a minute (as root)
	@go build -o bin/demo ./test/demo
	@bin/demo

.PHONY: dev
dev: deps build kubectl images ## the same cluster, left running until Ctrl-C (as root)
	@bin/shoal dev --servers 3 --agents 2 --images .build/images

.PHONY: sim
DEVICES ?= 1000
CARRIER ?= grpc
sim: build ## a fleet of DEVICES devices over CARRIER (grpc or mqtt) in two processes: what it costs the leader; 2 minutes
	@bin/shoal sim --devices $(DEVICES) --carrier $(CARRIER) --return

## ---- check

.PHONY: test
test: deps build kubectl helm images bootctl ## all tests: unit, in-process cluster, end to end on real containerd (as root)
	@tools/deps.sh $(TEST_DEPS)
	go test $(PACKAGES)
	$(MAKE) --no-print-directory test-cel CEL=1
	$(MAKE) --no-print-directory clients
	$(MAKE) --no-print-directory board
	bin/board -short
	$(MAKE) --no-print-directory e2e

.PHONY: test-cel
test-cel:
	go test ./api/... ./apiserver/...

.PHONY: test-short
test-short: ## unit and in-process tests only: no root, no containerd
	go test -short $(PACKAGES)

.PHONY: clients
clients: build ## client-go against a server whose pods only look as if they ran
	cd test/clients && GOFLAGS="$(PLAIN)" go test -count=1 ./...

.PHONY: e2e
e2e: deps build kubectl helm images ## end-to-end tests with real kubectl and containerd (as root)
	go test -count=1 -timeout 20m -v ./test/e2e

.PHONY: chaos
chaos: build ## EPISODES=200 of faults on 3 and 5 servers from SEED=1 on, every promise of the store checked (as root)
	@tools/deps.sh ip=iproute2 nft=nftables catatonit=catatonit
	@mkdir -p .build
	@go build -tags grpcnotrace,shoal_failpoints -o .build/shoal-failpoints ./cmd/shoal
	@go build -o bin/chaos ./test/chaos/cmd/chaos
	@bin/chaos -episodes $(EPISODES) -seed $(SEED)

.PHONY: powercut
powercut: build ## cut the power of a server CUTS=100 times from SEED=1 on and check that nothing is lost (as root)
	@tools/deps.sh mkfs.ext4=e2fsprogs
	@go build -o bin/powercut ./test/powercut/cmd
	@bin/powercut -cuts $(CUTS) -seed $(SEED)

# systemd's program for the boot loader, which is unpacked only: the package would install a boot loader.
.PHONY: bootctl
bootctl:
	@tools/unpack.sh .build/bootctl $$(dpkg --print-architecture) systemd-boot libsystemd-shared

# What the board's disk is made of, but for U-Boot.
.PHONY: board
board:
	@tools/deps.sh $(BOARD_DEPS)
	@mkdir -p .build/board
	@tools/unpack.sh .build/board/kernel arm64 linux-image-arm64
	@GOOS=linux GOARCH=arm64 go build -ldflags "$(LDFLAGS)" -o .build/board/shoal ./cmd/shoal
	@GOOS=linux GOARCH=arm64 go build -ldflags "-s -w" -o .build/board/guest ./test/board/guest
	@go build -o bin/board ./test/board/cmd

.PHONY: image
image: board ## .build/board/disk.img, a disk with two slots for QEMU's arm64 board (SERVER=host:port TOKEN=... of its agent)
	@bin/board -image .build/board/disk.img -server '$(SERVER)' -token '$(TOKEN)'
	@echo ".build/board/disk.img: see docs/firmware.md"

.PHONY: firmware-qemu
firmware-qemu: build board ## update a virtual arm64 board CUTS=20 times with power cuts from SEED=1 on, and without (as root)
	@bin/board -cuts $(if $(filter command line environment,$(origin CUTS)),$(CUTS),20) -seed $(SEED)

.PHONY: conformance
conformance: deps kubectl ## FOCUS='regexp' of Kubernetes' own suite; the first build takes 12 minutes of two cores (as root)
	@tools/deps.sh /usr/sbin/nginx=nginx-light bash-static=bash-static
	@$(MAKE) --no-print-directory build CEL=1
	@mkdir -p .build/conformance
	cd test/conformance && GOFLAGS="$(PLAIN)" go test -c -ldflags "$(KUBE_LDFLAGS)" -o ../../.build/conformance/e2e.test k8s.io/kubernetes/test/e2e
	cd test/conformance && GOFLAGS="$(PLAIN)" go build -ldflags "-s -w" -o ../../.build/conformance/agnhost k8s.io/kubernetes/test/images/agnhost
	cd test/conformance && GOFLAGS="$(PLAIN)" go build -ldflags "-s -w" -o ../../.build/conformance/nnp k8s.io/kubernetes/test/images/nonewprivs
	cd test/conformance && GOFLAGS="$(PLAIN)" go build -ldflags "-s -w" -o ../../.build/conformance/ginkgo github.com/onsi/ginkgo/v2/ginkgo
	go run ./test/images/cmd/upstreamimages .build/conformance .build/conformance/images
	cd test/conformance && GOFLAGS="$(PLAIN)" go build -o ../../bin/conformance .
	@bin/conformance -root . -focus '$(FOCUS)'

.PHONY: race
race: bootctl ## unit and in-process tests under the race detector
	@tools/deps.sh gcc=gcc /usr/include/stdlib.h=libc6-dev $(TEST_DEPS)
	CGO_ENABLED=1 go test -race -short -timeout 20m $(PACKAGES)

.PHONY: lint
lint: bin/tools/golangci-lint ## vet, style and import rules
	bin/tools/golangci-lint run ./...

.PHONY: fmt
fmt: bin/tools/golangci-lint ## format all code
	bin/tools/golangci-lint fmt ./...

bin/tools/golangci-lint: tools/lint/go.mod
	cd tools/lint && nice -n 15 go build -o ../../bin/tools/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: bench
bench: ## all benchmarks, in Go's own format (BENCH=regexp BENCHTIME=1s COUNT=1)
	@tools/deps.sh ip=iproute2 nft=nftables catatonit=catatonit etcd=etcd-server casync=casync mkfs.ext4=e2fsprogs
	go test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) -count $(COUNT) -timeout 1h ./...
	cd test/logstore && go test -mod=mod -tags grpcnotrace,shoal_bench -bench '$(BENCH)' -benchtime $(BENCHTIME) -count $(COUNT) -timeout 1h .

.PHONY: upstream
upstream: ## bin/kube-apiserver from its Go module, for BENCH=API and BENCH=Memory; six minutes of a core
	cd test/conformance && GOFLAGS="$(PLAIN)" go build -ldflags "$(KUBE_LDFLAGS)" -o ../../bin/kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver

.PHONY: differential
differential: upstream ## the same 8,200 requests to shoal and to kube-apiserver, answers compared field by field
	@tools/deps.sh etcd=etcd-server
	go test -count=1 -tags grpcnotrace,shoal_differential -run TestDifferential -v ./apiserver

.PHONY: fuzz
fuzz: ## every fuzz test for FUZZTIME
	@tools/fuzz.sh $(FUZZTIME)

.PHONY: size
size: build ## the binary's size against its limit
	@size=$$(stat -c %s bin/shoal); echo "bin/shoal: $$size bytes (limit $(SIZE_LIMIT))"; [ $$size -le $(SIZE_LIMIT) ]

.PHONY: docs
docs: ## check that the links in the documentation lead somewhere
	@tools/doclinks.sh

.PHONY: env
env: ## print what a shell needs to call go as these targets do: eval "$$(make env)"
	@echo 'export CGO_ENABLED=$(CGO_ENABLED) GOTOOLCHAIN=$(GOTOOLCHAIN) GOFLAGS="$(GOFLAGS)"'

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .build
