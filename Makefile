# Everything that a developer, a newcomer and the continuous integration need. Each target sets up
# what it uses and says what it installs; a fresh Debian 12 with Rust and make is enough.

SHELL := /bin/bash
TEST_FEATURES := perennial/test-clock,agent/test-clock
export CARGO_TERM_PROGRESS_WHEN ?= never

# A desktop without a screen, its keyboard, its screen reader, and programs that are open on it.
DESKTOP := xvfb openbox xdotool imagemagick libgl1 libgl1-mesa-dri libegl1 libxkbcommon-x11-0 \
  libx11-xcb1 libxcursor1 libxi6 fonts-inter dbus at-spi2-core python3-pyatspi xterm dunst wmctrl weston

.PHONY: help
help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: demo
demo: build-tools ## Build, start a site, enroll a client and show its whole life
	@packaging/tools.sh openssl
	cargo build -p perennial -p agent --features $(TEST_FEATURES)
	@KEEP=$(KEEP) packaging/demo.sh target/debug

.PHONY: picture
picture: programs ## Draw the README's picture from a run of the demo
	NO_COLOR=1 packaging/demo.sh target/debug | packaging/picture.sh >docs/demo.svg

.PHONY: test
test: tools lint programs ## Set up everything, lint, and run every test
	cargo test --workspace --exclude wizard --features $(TEST_FEATURES)
	cargo test -p wizard

.PHONY: programs
programs: build-tools ## Build the programs that acceptance tests run
	cargo build -p perennial -p agent
	mkdir -p target/debug/plain
	cp target/debug/perennial target/debug/perennial-agent target/debug/plain/
	cargo build -p perennial -p agent --features $(TEST_FEATURES)
	cargo build -p wizard

.PHONY: lint
lint: build-tools ## Check format, lints, and licences and sources of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --exclude wizard --all-targets --features $(TEST_FEATURES) -- -D warnings
	cargo clippy -p wizard --all-targets -- -D warnings
	@command -v cargo-deny >/dev/null || { echo "installing cargo-deny (cargo)"; cargo install --quiet --locked cargo-deny; }
	cargo deny --log-level error check bans licenses sources

.PHONY: screenshots
screenshots: build-tools ## Paint every page of the windows, light and dark, into target/screenshots
	@packaging/tools.sh fonts-inter
	PERENNIAL_SCREENSHOTS=1 cargo test -p wizard --test wizard pictures

.PHONY: bench
bench: build-tools ## Measure against the field's peers; prints a table, writes target/bench.json
	@packaging/tools.sh golang-cfssl nginx-light sqlite3 openssl zenity $(DESKTOP)
	cargo build --release -p perennial -p bench
	cargo build --release -p wizard
	cargo build --profile agent -p agent
	cp target/agent/perennial-agent target/agent/perennial-session target/release/
	target/release/bench

.PHONY: tools
tools: build-tools ## Install what the tests need: PostgreSQL, openssl, curl, strace, pkilint, a desktop
	@packaging/tools.sh postgresql openssl curl python3-venv bsdutils util-linux strace $(DESKTOP)
	@test -x .venv/bin/lint_pkix_cert || { echo "installing pkilint (pip) into .venv"; \
	  python3 -m venv .venv && .venv/bin/pip install --quiet pkilint; }

.PHONY: build-tools
build-tools:
	@packaging/tools.sh gcc cmake

.PHONY: clean
clean: ## Remove what was built
	cargo clean
	rm -rf .venv
