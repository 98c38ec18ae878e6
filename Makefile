# CI runs the same checks as `make test`, because `.ci/run` calls it.

.DEFAULT_GOAL := help
.PHONY: help tidy setup tools build demo run bench flamegraph test format lints protos dependencies tests citus schema-n-1 instructions python browser helm docs image proto-baseline

BUF := $(shell command -v buf || echo .tern/tools/node_modules/.bin/buf)
# The file with the test runner's output. `make test` shows its closing lines once more at the end.
TEST_LOG := .tern/test.log

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what this machine lacks for building and running (Debian packages); quick when nothing does
	@scripts/setup

tools: ## The same, and what the checks need besides (npm for buf and helm, promtool, valgrind, SeaweedFS)
	@scripts/setup checks

build: setup ## Build the programs tern and tern-dev
	cargo build --locked --bin tern --bin tern-dev

demo: build ## Start the whole platform and play a conversation on it
	target/debug/tern-dev demo

run: build ## Keep the platform up for your own clients, until Ctrl-C
	target/debug/tern-dev dev

bench: setup ## Measure a platform of its own: messages a second and what they cost (7 min, the first time 12)
	cargo build --locked --release --bin tern --bin tern-dev
	target/release/tern-dev bench direct
	target/release/tern-dev bench direct --rate 100
	target/release/tern-dev bench group
	target/release/tern-dev bench offline
	target/release/tern-dev bench idle --plain
	target/release/tern-dev bench mixed
	target/release/tern-dev bench presence
	target/release/tern-dev bench overload
	target/release/tern-dev bench media
	target/release/tern-dev bench push --drain 20000

flamegraph: setup ## Show where a message's processor time goes: target/flamegraphs/*.svg; needs perf and inferno
	scripts/flamegraph

test: tools format tidy protos dependencies lints tests citus schema-n-1 instructions python browser helm docs image ## Format, lints and every test
	@echo
	@echo "make test: all passed. The test runner's closing lines:"
	@tail -n 3 $(TEST_LOG)
	@if [ ! -x "$$(command -v $(BUF))" ]; then echo "Left out: the protos, for want of buf."; fi
	@if ! command -v npm >/dev/null; then echo "Left out: the code of docs/browser.md, for want of npm."; fi
	@if [ -e .tern/citus.left-out ]; then echo "Left out: the store on Citus, which this Postgres does not offer."; fi
	@if ! git rev-parse --verify --quiet "$$(cat .ci/schema-n-1)^{commit}" >/dev/null; then echo "Left out: the version before on this schema, for want of its commit."; fi
	@if [ ! -x .tern/tools/helm/helm ] || [ ! -x .tern/venv/bin/kubernetes-validate ]; then \
		echo "Left out: the chart's templates, for want of helm or kubernetes-validate."; fi
	@if ! command -v promtool >/dev/null; then echo "Left out: the alerts, for want of promtool."; fi
	@if [ ! -x .tern/tools/weed/bin/weed ] && ! command -v weed >/dev/null; then echo "Left out: media on SeaweedFS, for want of it."; fi
	@if ! command -v valgrind >/dev/null; then echo "Left out: instruction counts, for want of valgrind."; fi
	@if ! cargo deny --version >/dev/null 2>&1; then echo "Left out: what only cargo deny knows (yanked and twofold versions)."; fi

format: ## Check the format
	cargo fmt --all --check

tidy: ## Check sizes of files and functions, imports, and what comments and pages name
	scripts/tidy

lints: ## Check the lints
	cargo clippy --locked --workspace --all-targets -- -D warnings

protos: tools ## Check the protos: what languages make of them, style, and that nothing breaks clients of the version before
	scripts/check-generated
	@if [ -x "$$(command -v $(BUF))" ]; then set -x; \
		$(BUF) lint && $(BUF) format --diff --exit-code && $(BUF) breaking --against proto/baseline.binpb; \
	else echo "protos: left out, buf is not here (it comes from npm)"; fi

dependencies: ## Check licences and origins of all dependencies, and that none is banned
	scripts/check-dependencies
	@if cargo deny --version >/dev/null 2>&1; then set -x; cargo deny --offline check licenses bans sources; fi

tests: setup ## Run every Rust test
	@mkdir -p .tern
	@rm -f $(TEST_LOG).failed
	@{ if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --locked --workspace; \
	   else cargo test --locked --workspace; fi || touch $(TEST_LOG).failed; } 2>&1 | tee $(TEST_LOG)
	@test ! -e $(TEST_LOG).failed

citus: setup ## Run the tests of the store on a Citus cluster, where this machine's Postgres offers the extension
	scripts/check-citus

schema-n-1: setup ## Run the version before (the tag schema-n-1) on the schema of now; builds it where migrations changed
	scripts/check-schema-n-1

instructions: tools ## Hold the instruction counts of the hot pure parts to what was recorded (the first time 3 min)
	scripts/check-instructions

python: build ## Run the Python client by the README's own commands: a conversation, what is done to messages, one with gaps
	examples/python/run

browser: tools ## Run the code of docs/browser.md, as it stands there, against a server that sends with gaps
	@if command -v npm >/dev/null; then examples/browser/run; else echo "browser: left out, npm is not here"; fi

helm: tools build ## Check the chart, its alerts and dashboards, and the Containerfile
	scripts/check-helm

docs: build ## Check that docs/configuration.md lists the flags as the program does
	scripts/configuration --check

image: build ## Run what an image would contain, in a root of its own
	scripts/check-image

proto-baseline: tools ## Take the protos as they are as the version that later ones must not break
	$(BUF) build -o proto/baseline.binpb
