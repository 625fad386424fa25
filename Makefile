# make            static binaries bin/iad, bin/iadms, bin/iadsim, bin/iadlab, bin/iadmsd
# make demo       a simulated device is upgraded over SNMP, TFTP and FTP on loopback
# make fleet-demo the fleet service upgrades 200 virtual devices in two campaigns; KEEP=1 leaves it running for a browser
# make test       all tests with the race detector; unpacks the programs they talk to first
# make test32     all tests as on a 32-bit board
# make cover      statements that the tests reach, by package
# make check      format, vet, staticcheck, smilint, generated files, import table
# make cross      iad for boards, with sizes; for one board: deploy/build
# make sizes      the same, with what a compressed file system stores and what the program consists of
# make bench      one table: our times side by side with SWUpdate, curl, atftp and snmpd; ONLY='TFTP' selects rows; 10 minutes
# make microbench the benchmarks of the packages
# make fuzz       every fuzz target for FUZZTIME (1m)
# make crash      power cut at every write, all pairs of cuts; "make test" has a sample
# make kill       kill -9 of the real process, KILLS (500) times
# make flood      upgrade of a device under 10,000 hostile datagrams a second
# make memory     peak memory of iad while it downloads
# make fleet      10 and 100 simulated devices with faults upgraded by one command: time, memory, processor
# make chaos      2,000 devices upgraded by three nodes and two workers that are killed in turn, and stopped for a minute; then the
#                 test without the fence, which must fail; CHAOS (2000) devices, SEED (1)
# make scale      an inventory of SCALE (1,000,000) devices in iadmsd: import, start, memory, filters, pages, a campaign for all; 10 minutes
# make density    1,000, 5,000 and 10,000 simulated devices in one process: memory, time to start; then 1,000 and 10,000 are upgraded
# make lab        iadlab judges iad 20 times, embedded and behind snmpd; every planted defect; 200 power cuts
# make board      a virtual board in QEMU that iadms upgrades from another terminal; ^C ends it; KIND=files, raw, mips or orangepi
# make board-test upgrades one, also to software that does not start, and checks power cuts at its writes; 5 minutes
# make board-cuts CUTS (5000) power cuts, planted errors that must be found, QEMU killed KILLS (20) times; 2 hours
# make board-hang a kernel and an agent that hang: the watchdog resets the board
# make board-memory memory of iad on a board with 31 MB, during a download of 64 MiB
# make board-raw  a board whose kernels are FIT images on raw partitions: upgrades, damaged images, CUTS (300) power cuts
# make board-mips a MIPS board whose boot loader knows nothing of banks
# make board-orangepi an Orange Pi that starts from its SD card, in a newer QEMU
# make platforms  the same upgrades on the three boards and in a container, and a table of what they took
# make nightly    everything full, one after the other; logs in bin/nightly, a summary at the end
# make peers      unpacks net-snmp, TFTP and FTP servers ... into .peers/; installs nothing
# make man        manual pages of iad, iadms, iadsim, iadlab and iadmsd, in bin/man; dated as the commit, or SOURCE_DATE_EPOCH
# make licenses   licence texts of everything linked into the programs, in bin/LICENSES.txt
# make packages   deb, rpm, apk and ipk (OpenWrt) in bin/packages, with sizes; ARCHS="amd64" FORMATS="deb" selects some
# make packages-test installs, upgrades and removes the deb on a fresh Debian in a container, and checks the ipk
# make images     container images in bin/images, with sizes; needs no container engine; PROCESSORS="amd64" selects some
# make images-test loads the amd64 images into Docker and upgrades a device in a container
# make lab-test   a laboratory of LAB_DEVICES (4) containers with docker-compose: upgrade, cut cables, killed containers, IPv6
# make kubernetes-test checks deploy/kubernetes against the types of Kubernetes' API; needs no cluster
# make release    VERSION=1.2.0 KEY=release.key: archives, packages, images, SBOMs, recipes and signed checksums in bin/release
# make release-test builds two equal releases in two directories, and checks signature, SBOMs, packages and recipes
# make clean

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 1m
export VERSION LDFLAGS FUZZTIME

.PHONY: board board-test build demo test test32 cover check cross sizes bench microbench fuzz crash chaos density scale fleet kill lab memory peers man licenses packages packages-test images images-test lab-test kubernetes-test release release-test clean

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/iad ./cmd/iadms ./cmd/iadsim ./cmd/iadlab ./cmd/iadmsd

demo: build
	./testdata/demo/run

.PHONY: fleet-demo
fleet-demo: build
	KEEP=$(KEEP) ./testdata/fleet-demo/run

# Without the peers the tests that need them are skipped, except where CI=true.
peers:
	@.ci/peers || [ "$$CI" != true ]

# Many tests wait for programs, so more packages than processors are tested at a time. The
# race detector slows power cuts and encoders down, so they are run without it, too.
test: peers
	go test -race -p $(shell n=$$(nproc 2>/dev/null || echo 4); echo $$((n > 4 ? n : 4))) -timeout 20m ./...
	go test -timeout 20m -run 'Crash|ManyChunks' ./sim ./bank/image/encode/lzma
	go test -timeout 20m -run Chaos ./cmd/iadmsd

test32: peers
	GOARCH=386 go test -timeout 20m ./...

cover: peers
	go test -timeout 20m -cover ./...

check: peers
	.ci/check

cross: peers
	.ci/cross

sizes: peers
	.ci/cross sizes

bench: peers
	go run ./testdata/bench --only '$(ONLY)' --rounds $(or $(ROUNDS),9)

microbench: peers
	go test -run '^$$' -bench . -benchmem ./...

fuzz:
	.ci/fuzz

crash:
	IAD_CRASH=full go test -count=1 -timeout 30m -v -run 'Crash|BrokenWriters|Killed$$' ./bank ./bank/partition ./agent/... ./internal/durable ./sim ./cmd/iadms/command

kill: peers
	IAD_KILLS=$(or $(KILLS),500) go test -count=1 -timeout 60m -v -run TestKills ./cmd/iad

board:
	testdata/boards/unpack
	case "$(KIND)" in mips | orangepi) testdata/boards/unpack $(KIND) ;; esac
	go build -o bin/boards ./testdata/boards
	exec bin/boards -kind $(or $(KIND),files)

.PHONY: board-cuts board-hang board-memory board-mips board-orangepi board-raw platforms nightly
# SHORT=-short leaves out the software whose self-test fails, and the start without a choice of the bank.
BOARDS = go test -count=1 -v $(SHORT)
board-test:
	testdata/boards/unpack
	$(BOARDS) -timeout 20m -run '$(or $(TESTS),.)' ./testdata/boards -args -cuts $(or $(CUTS),60)

board-cuts:
	testdata/boards/unpack
	$(BOARDS) -timeout 12h -run 'TestBoard|TestPlantedErrors|TestKills' ./testdata/boards -args -cuts $(or $(CUTS),5000) -planted -kills $(or $(KILLS),20)

board-hang:
	testdata/boards/unpack
	$(BOARDS) -timeout 60m -run TestHang ./testdata/boards -args -hang

board-memory:
	testdata/boards/unpack
	$(BOARDS) -timeout 60m -run TestSmall ./testdata/boards -args -small

board-raw:
	testdata/boards/unpack
	$(BOARDS) -timeout 12h -run 'TestRaw' ./testdata/boards -args -raw -cuts $(or $(CUTS),300)

board-mips:
	testdata/boards/unpack
	testdata/boards/unpack mips
	$(BOARDS) -timeout 60m -run TestMIPS ./testdata/boards -args -mips

board-orangepi:
	testdata/boards/unpack
	testdata/boards/unpack orangepi
	$(BOARDS) -timeout 90m -run TestOrangePi ./testdata/boards -args -orangepi

platforms: images
	testdata/boards/unpack
	testdata/boards/unpack mips
	IAD_IMAGES=$(CURDIR)/bin/images $(BOARDS) -timeout 60m -run TestPlatforms ./testdata/boards -args -platforms

nightly:
	.ci/nightly

flood: build
	.ci/flood

memory: build
	IAD_BINARY=$(CURDIR)/bin/iad go test -count=1 -v -run TestPeakMemory ./cmd/iad

fleet: build
	IADMS_FLEET="10 100" IADSIM_BINARY="$$PWD/bin/iadsim" IADMS_BINARY="$$PWD/bin/iadms" go test -count=1 -v -run TestFleet ./cmd/iadms/command

density: build
	.ci/density

chaos:
	.ci/chaos

scale: build
	.ci/scale

lab: peers
	IAD_LAB=full go test -count=1 -timeout 120m -v ./conformance

man: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
man:
	rm -rf bin/man && mkdir -p bin/man
	IAD_MAN=$(CURDIR)/bin/man go test -count=1 -run TestManPages ./cmd/iad ./cmd/iadms/command ./cmd/iadsim ./cmd/iadlab ./cmd/iadmsd

licenses:
	.ci/licenses

packages:
	.ci/packages

images:
	.ci/images

images-test: images
	IAD_IMAGES=$(CURDIR)/bin/images go test -count=1 -timeout 10m ./deploy/images

LAB_TESTS ?= .
lab-test: images
	IAD_IMAGES=$(CURDIR)/bin/images go test -count=1 -timeout 20m -v -run '$(LAB_TESTS)' ./deploy/compose

kubernetes-test:
	cd deploy/kubernetes/check && go vet ./... && go test -count=1 ./...

packages-test: packages
	.ci/testroot
	IAD_PACKAGES=$(CURDIR)/bin/packages go test -count=1 -timeout 10m ./deploy/packages

# VERSION has to be on the command line.
release:
	@.ci/release/make "$(if $(filter command,$(origin VERSION)),$(VERSION))"

release-test: peers
	IAD_RELEASE=full go test -count=1 -timeout 90m -v ./deploy/release

clean:
	rm -rf bin .peers
