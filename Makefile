# The two commands: `make demo` shows kiln from nothing, `make test` runs every test. CONTRIBUTING.md has the loop.

.PHONY: build test demo check bench setup image

build:
	scripts/build

setup:
	scripts/setup

test: setup build
	scripts/test

demo:
	scripts/demo

check:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

bench: build
	benches/run

# kiln's own image, and its variant with a shell, in the local store.
image: build
	scripts/image
