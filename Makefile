# Bare `make` lists what there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help up build test check bench fuzz crds

# Where cargo builds.
TARGET := $(or $(CARGO_TARGET_DIR),target)

# Where .ci/prepare puts what it installs.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(CURDIR)/target/tools:$(PATH)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: build ## Build the platform and run it, installing what is missing
	@exec $(TARGET)/release/onex up $(ARGS)

build: ## Build target/release/onex, installing what is missing
	@.ci/prepare
	@cargo build --release --locked -p onex

test: ## Run all tests, installing what they need
	@.ci/prepare tests
	@without=$$(cat target/tools/without-go 2>/dev/null || true); \
	{ failed=0; \
	  cargo test --workspace --locked --no-fail-fast -- $${without:+--skip suites::go} || failed=1; \
	  echo "The apiserver once more, each time over an etcd of its own:"; \
	  ONEX_TEST_STORAGE=etcd cargo test --locked -p onex-apiserver --test it || failed=1; \
	  exit $$failed; } 2>&1 | awk -v without="$$without" ' \
	  { print; fflush() } \
	  /^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } \
	  END { if (without) { ignored += 1; print "NOT RUN: suites::go, as " without } \
	        printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }'

check: ## Look for what is not in order: format, lints, licences and banned crates
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check; \
	  else echo "cargo-deny is not installed: licences and advisories were not looked at"; fi

bench: build ## Measure a platform of its own: creates, gets, lists, watches, memory
	@$(TARGET)/release/onex bench $(ARGS)

# Each branch counts itself, so that what leads further is found. Needs a C++ compiler, and no other toolchain than ours.
SANCOV := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

fuzz: ## Throw bytes at each parser: SECONDS_EACH=600 TARGETS="paths patches"
	@cd fuzz && RUSTFLAGS="$(SANCOV)" cargo build --release --locked --target $(HOST) --target-dir ../$(TARGET)/fuzz
	@for target in $(or $(TARGETS),$(notdir $(wildcard fuzz/corpus/*))); do \
	  mkdir -p $(TARGET)/fuzz/found/$$target; echo "fuzz: $$target"; \
	  ONEX_FUZZ_TARGET=$$target $(TARGET)/fuzz/$(HOST)/release/onex-fuzz -max_total_time=$(or $(SECONDS_EACH),600) \
	    -max_len=8192 -timeout=10 -print_final_stats=1 -verbosity=0 -artifact_prefix=$(TARGET)/fuzz/$$target- \
	    $(TARGET)/fuzz/found/$$target fuzz/corpus/$$target; \
	done

crds: ## Print the kinds of OneX as CRDs into crds/yaml
	@UPDATE=1 cargo test --locked --quiet -p onex-crds --test it yaml
