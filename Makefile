# `make run` builds Pintle, starts a cluster, deploys the sample and shows it answering; `make test` runs every test.
# Both set up what they need on Debian or Ubuntu: see `scripts/setup`, which says what it installs.

CARGO ?= cargo
TARGET := target/$(shell rustc -vV | sed -n 's/^host: //p')
BIN := $(TARGET)/release/pintle

.PHONY: run test test-vm build check setup bench clean

run: build
	$(BIN) up --demo

build: ; $(CARGO) build --release --locked -p pintle

setup: ; scripts/setup

check:
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --locked -- -D warnings
	# Tests and benchmarks may fail by panicking.
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings \
		-A clippy::unwrap_used -A clippy::expect_used -A clippy::panic

test: setup
	# Programs and tests in one go, so that shared crates are compiled once.
	$(CARGO) build --workspace --bins --tests --locked
	PINTLE_BIN=$(abspath $(TARGET)/debug/pintle) $(CARGO) test --workspace --locked

# Control groups of version 2, in a virtual machine.
test-vm: build ; tests/vm/run $(BIN)

bench: setup build
	PINTLE_BIN=$(abspath $(BIN)) $(CARGO) bench --workspace --locked

clean: ; $(CARGO) clean
