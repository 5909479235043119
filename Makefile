# make run      a cluster of three nodes on this machine, from nothing but Rust
# make test     the whole test suite, the same way
# make verify   reads only: formatting, lints, licences, the tree's own rules (CI runs this)
# make sim      the simulator: one seed twice, every kept seed, 200 of this commit's, all mutants
# make fix      rewrites: formatting and what clippy can mend
# make fuzz     the fuzzer over each target in turn; TARGET=layer SECONDS=600 for one, for longer
# make bench    criterion benches, and the races against peers; see benches/RESULTS.md

# RocksDB's C++ is built once per machine, outside the checkout; see .ci/rocksdb.
CARGO = ROCKSDB_STATIC=1 ROCKSDB_LIB_DIR="$$(.ci/rocksdb)" cargo

.PHONY: run test verify sim fuzz fix bench build needs test-needs bench-needs

run: needs
	$(CARGO) build --locked --release -p gavel
	$${CARGO_TARGET_DIR:-target}/release/gavel dev

build: needs
	$(CARGO) build --locked --release -p gavel

test: test-needs
	$(CARGO) test --locked --workspace --no-fail-fast

verify: needs
	cargo fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	.ci/deny

# The simulator builds no C++ and needs nothing of Debian. With the mutants in it, which sleep.
SIM = cargo run --quiet --locked --profile sim -p gavel-sim --features mutants --

sim:
	$(SIM) meta 7
	$(SIM) meta 7 --replicas
	$(SIM) replay --drawn 200
	$(SIM) mutants

# Not part of the tests, which replay the corpus: see tests/fuzz/README.md.
TARGET =
SECONDS = 60

fuzz: needs
	tests/fuzz/run "$(SECONDS)" $(TARGET)

fix: needs
	cargo fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

bench: bench-needs build
	$(CARGO) bench --locked -p gavel-benches

# What the build and a node need of Debian: a C++ compiler, cmake for zlib-ng (docs/adr/0011),
# libclang for bindgen, mkfs.ext4.
needs:
	@.ci/install build-essential cmake pkg-config libclang-dev e2fsprogs

# What the tests run besides: a real registry, standard tools to make images, a NATS server, and
# OpenSSH's client and server.
test-needs: needs
	@.ci/install nats-server openssh-client openssh-server curl docker-registry skopeo umoci busybox-static iproute2 nftables

# What the benches race against.
bench-needs: needs
	@.ci/install etcd-server etcd-client iproute2 busybox-static crun runc podman nginx-light wrk
