# What CI runs is what is here: `.ci/run` calls `make test`.

.DEFAULT_GOAL := help
.PHONY: help setup build demo run bench test format lints protos licences tests python proto-baseline

BUF := $(shell command -v buf || echo .tern/tools/node_modules/.bin/buf)
# The test runner's own output, for who reads only the end.
TEST_LOG := .tern/test.log

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what this machine lacks (Debian packages, buf); quick when nothing does
	@scripts/setup

build: setup ## Build the tern program
	cargo build --locked --bin tern

demo: build ## Start the whole platform and play a conversation on it
	target/debug/tern demo

run: build ## Keep the platform up for your own clients, until Ctrl-C
	target/debug/tern dev

bench: setup ## Measure a platform of its own: messages a second and what they cost (5 min, the first time 10)
	cargo build --locked --release --bin tern
	target/release/tern bench direct
	target/release/tern bench direct --rate 100
	target/release/tern bench group
	target/release/tern bench offline
	target/release/tern bench idle --plain
	target/release/tern bench mixed

test: setup format protos licences lints tests python ## Format, lints and every test
	@echo
	@echo "make test: all passed. The test runner's closing lines:"
	@tail -n 3 $(TEST_LOG)

format: ## Check the format
	cargo fmt --all --check

lints: ## Check the lints
	cargo clippy --locked --workspace --all-targets -- -D warnings

protos: setup ## Check the protos: style, and that nothing breaks clients of the version before
	@if [ -x "$$(command -v $(BUF))" ]; then set -x; \
		$(BUF) lint && $(BUF) format --diff --exit-code && $(BUF) breaking --against proto/baseline.binpb; \
	else echo "protos: left out, buf is not here (it comes from npm)"; fi

licences: ## Check the licences of all dependencies
	scripts/check-licenses
	@if cargo deny --version >/dev/null 2>&1; then set -x; cargo deny --offline check licenses bans sources; \
	else echo "licences: cargo deny is not here; only the licences were checked"; fi

tests: setup ## Run every Rust test
	@mkdir -p .tern
	@rm -f $(TEST_LOG).failed
	@{ if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --locked --workspace; \
	   else cargo test --locked --workspace; fi || touch $(TEST_LOG).failed; } 2>&1 | tee $(TEST_LOG)
	@test ! -e $(TEST_LOG).failed

python: build ## Hold a conversation with the Python client, by the README's own commands
	examples/python/run

proto-baseline: setup ## Take the protos as they are as the version that later ones must not break
	$(BUF) build -o proto/baseline.binpb
