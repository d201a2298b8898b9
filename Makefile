# Cofferdam. Everything that a bare Debian 12 machine lacks is installed by the targets themselves.
.DEFAULT_GOAL := help
.PHONY: help setup build iso demo tui-demo test test-slow bench lint

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup:
	@tests/setup.sh

build: setup ## The cofferdam binary: target/release/cofferdam
	cargo build --release --workspace --bins

iso: setup ## The boot medium with its own operating system: target/cofferdam.iso
	@tests/iso.sh

demo: setup ## The main job: a signed bundle becomes a running cluster, shown for people
	@tests/demo.sh

tui-demo: setup ## Click through the terminal installer: simulated facts, a host in memory, no risk
	@cargo run --quiet --package installer --example tui-demo

test: setup ## All tests that each change must pass (what .ci/run calls)
	@tests/run.sh

test-slow: setup ## What is too long for each run: the virtual machine matrix
	@tests/run.sh --slow

bench: setup ## Bench ours beside its peers, as ratios of one run
	@tests/bench.sh

lint: setup ## Formatting, clippy, banned crates
	@tests/lint.sh
