# make demo           a cluster of three on loopback, to play with; make demo ARGS=--tour runs a scripted one
# make test           everything that is tested, after setting up what the tests need
# make lint           format, clippy and documentation, as CI runs them
# make chaos          faults on real processes, as root: MINUTES=10 MODE=async|quorum|quorum-lease|on PEER=patroni ARGS=--help
# make simulate       the real decisions in a simulated world: SEEDS=0..20000 ARGS=--help
# make bench          recovery times, ours and Patroni's, as root: ROUNDS=10 ARGS=--help
# make deb            a Debian package of this machine's release: target/debian/matriarch_VERSION_ARCHITECTURE.deb
# make sbom           what the program is made of, as CycloneDX: target/sbom/matriarch.cdx.json
# make matrix         a choice of tests with other PostgreSQLs and etcds: ARGS="17/3.5 18/3.4"; target/matrix/versions.md
# make setup          only the set-up (says what it installs)
.PHONY: demo test lint simulate simulate-ci chaos bench deb sbom matrix setup

MINUTES ?= 10
MODE ?= async
ROUNDS ?= 10
SEEDS ?= 0..20000
TARGET := $(or $(CARGO_TARGET_DIR),target)

demo:
	@.ci/setup demo
	cargo build --profile demo --locked
	@$(TARGET)/demo/matriarch demo $(ARGS)

test: setup
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace --locked $(ARGS); \
	else \
		cargo test --workspace --locked -- --test-threads=2 $(ARGS); \
	fi
	@$(MAKE) --no-print-directory simulate-ci
	cargo build --workspace --locked
	@$(TARGET)/debug/chaos rig --short --if-possible --ttl 6 --mode quorum

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

simulate:
	cargo build --release --locked -p chaos
	@$(TARGET)/release/chaos simulate --seeds $(SEEDS) $(ARGS)

simulate-ci:
	cargo build --release --locked -p chaos
	@$(TARGET)/release/chaos simulate --seeds 1000..3000

chaos: setup
	cargo build --release --workspace --locked
	@$(TARGET)/release/chaos rig --minutes $(MINUTES) --mode $(MODE) $(if $(PEER),--peer $(PEER)) $(ARGS)

bench: setup
	cargo build --release --workspace --locked
	@$(TARGET)/release/chaos bench --rounds $(ROUNDS) --out $(TARGET)/bench $(ARGS)

deb:
	cargo build --profile dist --locked --package matriarch
	@deploy/debian/build $(TARGET)/dist $(TARGET)/debian

sbom:
	@.ci/sbom $(TARGET)/sbom

matrix: setup
	@.ci/matrix $(ARGS)

setup:
	@.ci/setup test
