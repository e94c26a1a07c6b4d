# `make demo` and `make test` work on a fresh Debian or Ubuntu machine with Rust; they install the
# packages they need (apt, by name; as root or through sudo).

CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
RELEASE := $(TARGET)/release/memobuild-ci
DEBUG := $(TARGET)/debug/memobuild-ci

.PHONY: help demo test test-cargo e2e differential record record-bake bench bench-caches bench-plan fuzz lint fmt rust

help:
	@echo 'make demo          build examples/layered-python three times and show what ran and what was a hit'
	@echo 'make test          all tests: cargo and end to end'
	@echo 'make e2e           only the end-to-end tests (K=pattern selects)'
	@echo 'make differential  compare root file systems and configs with buildah and BuildKit (K=pattern selects)'
	@echo 'make fuzz          fuzz what parses foreign bytes, each target for a minute (TIME=seconds)'
	@echo 'make bench         timings against buildah and BuildKit, as a Markdown table'
	@echo 'make bench-caches  timings of shared caches and of the cache server'
	@echo 'make bench-plan    timings of plan and of simulate --history, on a large repository'
	@echo 'make lint          rustfmt, clippy, rustdoc, licences'

rust:
	@command -v $(CARGO) >/dev/null || { \
	  echo 'Rust is missing. Get it from https://rustup.rs:'; \
	  echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . ~/.cargo/env"; exit 1; }

demo: rust
	scripts/setup-test demo
	$(CARGO) build --release --locked
	scripts/demo $(RELEASE)

test: rust
	scripts/setup-test
	$(MAKE) --no-print-directory test-cargo e2e

test-cargo: rust
	$(CARGO) test --locked

e2e: rust
	scripts/setup-test
	$(CARGO) build --locked
	MEMOBUILD_CI_BIN=$(DEBUG) python3 tests/e2e/run.py $(if $(K),-k $(K))

differential: rust
	scripts/setup-test
	-scripts/setup-oracle >/dev/null
	$(CARGO) build --locked
	MEMOBUILD_CI_BIN=$(DEBUG) python3 tests/e2e/differential.py $(if $(K),-k $(K))
	$(if $(K),,if command -v go >/dev/null; then python3 tests/e2e/language.py; fi)
	MEMOBUILD_CI_BIN=$(DEBUG) python3 tests/e2e/refused.py $(if $(K),-k $(K))

# Writes BuildKit's results to tests/e2e/cases/*/expected.json, and what both builders say of
# Dockerfiles that must be refused to tests/e2e/refused/expected/.
record: rust
	scripts/setup-test
	scripts/setup-oracle >/dev/null
	$(CARGO) build --locked
	python3 tests/e2e/differential.py --record $(if $(K),-k $(K))
	MEMOBUILD_CI_BIN=$(DEBUG) python3 tests/e2e/refused.py --record $(if $(K),-k $(K))

# The same for the plans of bake files, from buildx: tests/e2e/bake/*/expected.json.
record-bake: rust
	scripts/setup-oracle buildx >/dev/null
	$(CARGO) build --locked
	MEMOBUILD_CI_BIN=$(DEBUG) python3 tests/e2e/bakes.py --record $(if $(K),-k $(K))

bench: rust
	scripts/setup-test
	-scripts/setup-oracle >/dev/null
	$(CARGO) build --release --locked
	MEMOBUILD_CI_BIN=$(RELEASE) python3 benches/run.py $(BENCH)

# About ten minutes, three of them a soak of the server.
bench-caches: rust
	scripts/setup-test
	-scripts/setup-oracle >/dev/null
	$(CARGO) build --release --locked
	$(CARGO) bench --locked --bench server --no-run
	MEMOBUILD_CI_BIN=$(RELEASE) python3 benches/run.py --builder memobuild-ci --builder BuildKit -k shared -k restore -k packages -k save -k soak $(BENCH)
	$(CARGO) bench --locked --bench server

bench-plan: rust
	$(CARGO) build --release --locked
	MEMOBUILD_CI_BIN=$(RELEASE) python3 benches/plan.py $(BENCH)

# libFuzzer, on the stable toolchain; a finding is written to fuzz/findings/ and fails.
fuzz: rust
	CARGO=$(CARGO) fuzz/run --time $(or $(TIME),60)

lint: rust
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items
	scripts/check-licences

fmt: rust
	$(CARGO) fmt
