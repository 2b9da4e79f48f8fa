# make demo           a cluster of three on loopback, to play with; make demo ARGS=--tour runs a scripted one
# make test           everything that is tested, after setting up what the tests need
# make lint           format, clippy and documentation, as CI runs them
# make setup          only the set-up (says what it installs)
.PHONY: demo test lint setup

TARGET := $(or $(CARGO_TARGET_DIR),target)

demo:
	@.ci/setup demo
	cargo build --release --locked
	@$(TARGET)/release/matriarch demo $(ARGS)

test: setup
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace --locked $(ARGS); \
	else \
		cargo test --workspace --locked -- --test-threads=2 $(ARGS); \
	fi

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

setup:
	@.ci/setup test
