# Everything a developer does, in one place. `make help` lists it.
# Needs: Python >= 3.10 with venv, a Rust toolchain, a C compiler, make. The rest is fetched into .venv and target/.

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV  := .venv
BIN   := $(VENV)/bin
# How many pytest processes: three per core suit tests that mostly wait.
PYTEST_JOBS ?= $(shell expr 3 \* $$(getconf _NPROCESSORS_ONLN))
PYTEST_ARGS ?=
# `make fuzz`: which targets, for how long each.
FUZZ_TARGETS ?= head chunked exchange proxy proxy_tls forwarded control ciphers certificate http2_frames uwsgi
FUZZ_SECONDS ?= 60
BENCH_ARGS ?=

MADE  := $(VENV)/.made
TOOLS := $(VENV)/.tools
BUILT := $(VENV)/.built
TESTS := $(VENV)/.tests

SOURCES := $(shell find src -name '*.rs' -o -name '*.py' -o -name '*.pyi' -o -name 'py.typed') \
           Cargo.toml Cargo.lock pyproject.toml
PYTHON_FILES := src/ferricorn tests/python tests/deploy tests/fuzz examples benches release

# Linting, documenting and testing Rust wants an interpreter to look at, never one to link.
RUST_ENV := PYO3_PYTHON="$(CURDIR)/$(BIN)/python"
# The model explores every interleaving: minutes without optimisation.
# In the profile of the other tests, so that what it shares with them, the TLS library above all, is built once.
OPTIMISED := $(foreach crate,ferricorn loom generator,--config profile.dev.package.$(crate).opt-level=3) \
             --config profile.dev.package.ferricorn.debug=false
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 $(BIN)/python -m pip install --quiet

.PHONY: help run build quick test check-rust check-rust-slow check-python pytest test-slow test-agents test-airflow test-mlflow test-services test-deploy docs site bench fuzz fuzz-smoke base peers instructions walk \
        clean test-python test-matrix test-free-threaded test-musl test-tsan wheels sdist run-wheels roots audit lint-release changelog release

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

run: $(BUILT)  ## serve examples/flask_app on port 5000
	@cd examples/flask_app && exec ../../$(BIN)/ferricorn app:app -w 4 --threads 2 -b 0.0.0.0:5000

build: $(BUILT)  ## build the release extension into .venv

# The release build is one long step on one core, so it runs beside the Rust tests, and the site is built by whichever
# core is free first; what measures time runs after both.
test: $(MADE)  ## the whole check but for slow cases, pytest last
	@$(MAKE) --no-print-directory -j2 check-rust $(TESTS) site
	@$(MAKE) --no-print-directory FUZZ_SMOKE_SECONDS=3 fuzz-smoke check-python pytest PYTEST_ARGS='-m "not slow"'

test-slow: $(TESTS)  ## the Rust checks that take a minute each, the cases of tests/python that take seconds each, and matrices
	@$(MAKE) --no-print-directory check-rust-slow
	@$(MAKE) --no-print-directory pytest PYTEST_ARGS='-m slow'

# The newest interpreter that is at least 3.10 and can make virtual environments; PYTHON= overrides.
$(MADE):
	@set -eu; \
	for python in $${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3.10 python3}; do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then \
	    echo "making $(VENV) with $$python ($$("$$python" -V))"; \
	    rm -rf $(VENV); "$$python" -m venv $(VENV); touch $@; exit 0; \
	  fi; \
	done; \
	echo "No usable Python: ferricorn needs python3 >= 3.10 with the venv module (tried: $${PYTHON:-python3.14 ... python3})." >&2; \
	exit 1

$(TOOLS): $(MADE) examples/flask_app/requirements.txt
	@echo "installing maturin and Flask"
	@$(PIP) 'maturin>=1.9.4,<2' -r examples/flask_app/requirements.txt
	@touch $@

$(BUILT): $(TOOLS) $(SOURCES)
	@command -v cargo >/dev/null 2>&1 || { echo "No cargo on PATH: install a Rust toolchain (1.86 or newer)." >&2; exit 1; }
	@echo "building the release extension"
	@VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(BIN)/maturin develop --release --locked --quiet
	@touch $@

quick: $(TOOLS)  ## build for trying things: quick to build, not quick to run
	@VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(BIN)/maturin develop --profile quick --locked --quiet

REQUIREMENTS ?= tests/python/requirements.txt
$(TESTS): $(BUILT) $(REQUIREMENTS)
	@echo "installing the test requirements"
	@$(PIP) -r $(REQUIREMENTS)
	@touch $@

# Where the interpreter's shared library is; empty where Python was built without one.
LIBPYTHON_DIR = $$($(BIN)/python -c 'import os, sysconfig; get = sysconfig.get_config_var; \
  print(get("LIBDIR") if os.path.exists(os.path.join(get("LIBDIR"), get("INSTSONAME"))) else "")')

check-rust: $(MADE)  ## rustfmt, clippy, cargo test
	@if cargo fmt --version >/dev/null 2>&1; then echo "cargo fmt --check"; cargo fmt --check; \
	 else echo "SKIPPED cargo fmt: the rustfmt component is not installed (rustup component add rustfmt)"; fi
	@if cargo clippy --version >/dev/null 2>&1; then echo "cargo clippy"; \
	 $(RUST_ENV) cargo clippy --locked --all-targets --quiet -- -D warnings; \
	 else echo "SKIPPED cargo clippy: the clippy component is not installed (rustup component add clippy)"; fi
	@echo "cargo test (unit, integration, documentation)"
	@cargo test --locked --no-default-features --quiet --lib --test integration
	@MAKEFLAGS= cargo test --locked --no-default-features --quiet --doc
	@echo "cargo test (src/python and src/launcher, with an embedded interpreter)"
	@libdir="$(LIBPYTHON_DIR)"; \
	 if [ -n "$$libdir" ]; then $(RUST_ENV) LD_LIBRARY_PATH="$$libdir" cargo test --locked --quiet --lib -- python:: launcher::; \
	 else echo "SKIPPED: this Python has no shared library to link with"; fi

check-rust-slow: $(MADE)  ## the model of the wake-up protocols, a request's walk, benches once each, rustdoc
	@echo "cargo test (a request's walk through the sources)"
	@$(RUST_ENV) cargo test --locked --no-default-features --quiet --test walk
	@echo "cargo test (model of the wake-up protocols: every interleaving, about a minute)"
	@cargo test --locked --no-default-features --quiet $(OPTIMISED) --test model
	@echo "criterion benches, once each"
	@cargo test --locked --no-default-features --benches --quiet
	@echo "cargo doc"
	@$(RUST_ENV) RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet

check-python: $(TESTS)  ## ruff on every Python file, mypy on the package, its stub against the built module
	@echo "ruff"
	@$(BIN)/ruff check --quiet --config tests/python/ruff.toml $(PYTHON_FILES)
	@$(BIN)/ruff format --check --quiet --config tests/python/ruff.toml $(PYTHON_FILES)
	@echo "mypy (types of the package; _core.pyi against the module)"
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python -m mypy.stubtest --concise ferricorn._core

pytest: $(TESTS)  ## all of tests/python, real processes: PEP 3333, HTTP, signals, frameworks, parity with gunicorn
	@$(BIN)/python -m pytest tests/python -n $(PYTEST_JOBS) --dist worksteal -q $(PYTEST_ARGS)

# One interpreter after another, each with an environment and a build of its own under target/matrix.
MATRIX_PYTHONS ?= 3.10 3.11 3.12 3.13 3.14
test-python:  ## tests/python on another interpreter: PYTHON=python3.13 (or a path)
	@[ -n "$(PYTHON)" ] || { echo "Name the interpreter: make test-python PYTHON=python3.13" >&2; exit 2; }
	@version=$$("$(PYTHON)" -c 'import sys, sysconfig; \
	  print("%d.%d%s" % (*sys.version_info[:2], "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""))'); \
	  $(MAKE) --no-print-directory VENV="target/matrix/$$version" PYTHON="$(PYTHON)" pytest

test-matrix:  ## test-python on every CPython of MATRIX_PYTHONS that is on PATH or that pyenv has
	@set -eu; tested=; missing=; \
	for version in $(MATRIX_PYTHONS); do found=; \
	  for python in python$$version "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python; do \
	    if "$$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then missing="$$missing $$version"; continue; fi; \
	  echo "CPython $$version ($$found)"; \
	  $(MAKE) --no-print-directory test-python PYTHON="$$found"; tested="$$tested $$version"; \
	done; \
	echo "tested:$$tested$${missing:+; not on this machine:$$missing}"

# What has no builds without a GIL is left out: greenlets, which are not safe there, and cryptography.
FREE := target/free-threaded
test-free-threaded: $(MADE)  ## tests/python without a GIL, on python3.14t or a 3.13t that is built from Debian's source
	@set -eu; python=$$($(BIN)/python release/free_threaded.py $(FREE)/python); \
	grep -Ev '^(gevent|eventlet|psycogreen|mypy|trustme)' tests/python/requirements.txt >$(FREE)/requirements.txt; \
	case $$python in *3.13t) export UNSAFE_PYO3_SKIP_VERSION_CHECK=1;; esac; \
	PYTHON_GIL=0 $(MAKE) --no-print-directory VENV=$(FREE)/venv PYTHON="$$python" REQUIREMENTS=$(FREE)/requirements.txt pytest

# The sanitizer must see the standard library too, which is therefore built with it: that takes a nightly toolchain and its
# sources. It does not model fences. No plain data is published by one here, so nothing has to be suppressed.
TSAN_TESTS ?= pool:: scoreboard worker:: tls::published tls::tickets --skip simulation
test-tsan:  ## ThreadSanitizer over the pool and the event loop; wants a nightly Rust with rust-src
	@set -eu; library=$$(rustc +nightly --print sysroot 2>/dev/null || true)/lib/rustlib/src/rust/library; \
	[ -d "$$library" ] || { echo "No nightly Rust with its sources: rustup toolchain install nightly --component rust-src" >&2; exit 1; }; \
	test="cargo +nightly test --locked --quiet -Zbuild-std --no-default-features \
	  --target $$(rustc +nightly -vV | sed -n 's/^host: //p')"; \
	export CARGO_TARGET_DIR="$(CURDIR)/target/tsan" RUSTFLAGS=-Zsanitizer=thread TSAN_OPTIONS=history_size=7; \
	echo "unit tests under ThreadSanitizer"; $$test --lib -- $(TSAN_TESTS); \
	echo "integration tests under ThreadSanitizer"; \
	$$test --test integration -- --test-threads 2 --skip tidy:: --skip fuzz:: --skip documents::

# Their own environment: agents patch what they find.
AGENTS := target/agents
$(AGENTS)/.made: $(MADE) tests/python/requirements-agents.txt
	@echo "installing monitoring agents"
	@rm -rf $(AGENTS); $(BIN)/python -m venv $(AGENTS)
	@PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 $(AGENTS)/bin/python -m pip install --quiet -r tests/python/requirements-agents.txt
	@touch $@

test-agents: $(BUILT) $(AGENTS)/.made  ## monitoring agents of the field: what they have seen arrives
	@PYTHONPATH="$(CURDIR)/src" $(AGENTS)/bin/python -m pytest tests/python/test_agents.py -n $(PYTEST_JOBS) -q $(PYTEST_ARGS)

# Programs that bring gunicorn along have environments of their own: they are large, and want old releases.
OVER_GUNICORN := target/airflow/.made target/mlflow/.made
$(OVER_GUNICORN): target/%/.made: $(BUILT) tests/python/requirements-%.txt
	@echo "installing $*"
	@rm -rf target/$*; $(BIN)/python -m venv target/$*
	@PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 target/$*/bin/python -m pip install --quiet -r tests/python/requirements-$*.txt
	@PYTHONPATH="$(CURDIR)/src" target/$*/bin/python -m ferricorn.alias --over-gunicorn
	@touch $@

test-airflow: $(BUILT) target/airflow/.made  ## Airflow 2's web server and its monitor, which renews workers
	@PYTHONPATH="$(CURDIR)/src" target/airflow/bin/python -m pytest tests/python/test_airflow.py -q $(PYTEST_ARGS)

test-mlflow: $(BUILT) target/mlflow/.made  ## MLflow's tracking server, which brings gunicorn along
	@PYTHONPATH="$(CURDIR)/src" target/mlflow/bin/python -m pytest tests/python/test_mlflow.py -q $(PYTEST_ARGS)

$(VENV)/.services: $(TESTS) tests/python/requirements-services.txt
	@$(PIP) -r tests/python/requirements-services.txt
	@touch $@

# A server that is not installed (Debian: postgresql, redis-server) skips its tests, by name.
test-services: $(VENV)/.services  ## 500 greenlets at once that wait for PostgreSQL, Redis and a slow web server
	@$(BIN)/python -m pytest tests/python/test_green_services.py -q -rP $(PYTEST_ARGS)

$(VENV)/.deploy: $(TESTS) tests/deploy/requirements.txt
	@$(PIP) -r tests/deploy/requirements.txt
	@touch $@

# Programs that are not installed, proxies or Chromium, skip their tests, by name. UPDATE_DOCS=1 makes docs/pictures anew.
test-deploy: $(VENV)/.deploy  ## examples/deploy with the real programs, and the dashboard in a browser
	@$(BIN)/python -m pytest -c tests/python/pytest.ini tests/deploy -n 2 -q $(PYTEST_ARGS)

docs:  ## write docs/settings.md from the table of settings
	@UPDATE_DOCS=1 cargo test --locked --no-default-features --quiet --lib config::document

# Its own environment: the documentation's tools are none of the server's.
SITE := target/site-tools
$(SITE)/.made: $(MADE) docs/_site/requirements.txt
	@echo "installing MkDocs"
	@rm -rf $(SITE); $(BIN)/python -m venv $(SITE)
	@PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 $(SITE)/bin/python -m pip install --quiet -r docs/_site/requirements.txt
	@touch $@

site: $(SITE)/.made  ## build docs/ as a site into target/site; warnings and broken links fail
	@echo "mkdocs build"
	@NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict >target/site.log 2>&1 || { cat target/site.log >&2; exit 1; }

bench: $(MADE)  ## criterion benches; BENCH_ARGS="--bench http head" for one
	@$(RUST_ENV) LD_LIBRARY_PATH="$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')" \
	 cargo bench --locked --benches $(BENCH_ARGS)

walk: $(MADE)  ## which files a request enters, from a trace of an instrumented copy
	@$(RUST_ENV) cargo test --locked --no-default-features --quiet --test walk -- --nocapture a_request

# Where valgrind is not installed it says so and passes.
instructions: $(BUILT)  ## the server's own instructions per request, within 3 % of those recorded
	@$(BIN)/python benches/instructions.py

# Any stable toolchain can run this; what libFuzzer finds beyond it is kept as a case of the corpus.
FUZZ_SMOKE_SECONDS ?= 10
fuzz-smoke:  ## the fuzz targets over mutated corpus files, 10 s each; 3 s in `make test`
	@echo "fuzz targets, $(FUZZ_SMOKE_SECONDS) s each"
	@FUZZ_SECONDS=$(FUZZ_SMOKE_SECONDS) cargo test --locked --no-default-features --quiet --test integration fuzz::

CARGO_FUZZ := target/tools/bin/cargo-fuzz
$(CARGO_FUZZ):
	cargo install --locked --quiet --root target/tools cargo-fuzz

# With the address sanitizer where there is a nightly toolchain, else without a sanitizer.
fuzz: $(MADE) $(CARGO_FUZZ)  ## libFuzzer: FUZZ_TARGETS="head" FUZZ_SECONDS=3600
	@$(BIN)/python tests/fuzz/seed.py target/fuzz/seeds
	@set -eu; export CARGO_TARGET_DIR="$(CURDIR)/target/fuzz" PATH="$(CURDIR)/target/tools/bin:$$PATH"; \
	if cargo +nightly --version >/dev/null 2>&1; then with="+nightly fuzz"; sanitizer=address; \
	else with=fuzz; sanitizer=none; export RUSTC_BOOTSTRAP=1; fi; \
	for target in $(FUZZ_TARGETS); do \
	  mkdir -p target/fuzz/found/$$target target/fuzz/artifacts; echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
	  cargo $$with run --fuzz-dir tests/fuzz -s $$sanitizer $$target target/fuzz/found/$$target target/fuzz/seeds/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -dict=tests/fuzz/http.dict -timeout=10 -max_len=4096 \
	    -artifact_prefix=target/fuzz/artifacts/$$target- -print_final_stats=1 -verbosity=0; \
	done

# An older build for `make peers BASE=<git revision>`: that revision, made by its own Makefile.
BASE ?=
PEERS_ARGS ?=
BASE_CHECKOUT = target/base/$(shell git rev-parse --short=12 '$(BASE)')

base:
	@git rev-parse --quiet --verify '$(BASE)^{commit}' >/dev/null || { echo "BASE=$(BASE) is not a revision" >&2; exit 1; }
	@if [ ! -e $(BASE_CHECKOUT)/.venv/.built ]; then echo "building $(BASE)"; mkdir -p $(BASE_CHECKOUT); \
	  git archive '$(BASE)' | tar -x -C $(BASE_CHECKOUT); fi
	@$(MAKE) --no-print-directory -C $(BASE_CHECKOUT) build
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BASE_CHECKOUT)/.venv/bin/python -m pip install --quiet -r benches/peers/requirements.txt

peers: $(BUILT) $(if $(BASE),base)  ## compare with other servers; BASE=<revision> adds an older build, PEERS_ARGS=... chooses
	@$(PIP) -r benches/peers/requirements.txt
	@$(BIN)/python benches/peers/run.py $(if $(BASE),--base $(BASE_CHECKOUT)) $(PEERS_ARGS)

# Releases. The tools, zig among them, have an environment of their own: 500 MB that nothing else needs.
RELEASE := target/release-tools
DIST    ?= dist
WHEEL_TARGETS ?= x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-unknown-linux-musl
WHEEL_PYTHONS ?= 3.10 3.11 3.12 3.13 3.14 3.14t

$(RELEASE)/.made: $(MADE) release/requirements.txt
	@echo "installing the tools of releases"
	@$(BIN)/python -m venv $(RELEASE)
	@PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 $(RELEASE)/bin/python -m pip install --quiet -r release/requirements.txt
	@touch $@

# What is tested is linked whole, so that it runs beside another libc.
MUSL := $(shell uname -m)-unknown-linux-musl
test-musl: $(RELEASE)/.made  ## unit and integration tests without Python, built for musl
	@rustup target list --installed | grep -qx $(MUSL) || rustup target add $(MUSL)
	@env RELEASE_TOOLS="$(CURDIR)/$(RELEASE)" "CC_$(subst -,_,$(MUSL))=$(CURDIR)/release/musl_cc" \
	 cargo test --locked --no-default-features --quiet --target $(MUSL) --lib --test integration

# zig is the C compiler and the linker for each target, and links with the oldest glibc of a manylinux tag. maturin knows
# the layout of each CPython, so that none needs to be installed.
wheels: $(RELEASE)/.made  ## wheels of every platform and CPython into dist/; WHEEL_TARGETS=... WHEEL_PYTHONS=... choose
	@set -eu; export PATH="$(CURDIR)/$(RELEASE)/bin:$$PATH"; \
	export RELEASE_TOOLS="$(CURDIR)/$(RELEASE)" CARGO_ZIGBUILD_PYTHON_PATH="$(CURDIR)/release/zig"; \
	for target in $(WHEEL_TARGETS); do \
	  rustup target list --installed | grep -qx "$$target" || rustup target add "$$target"; \
	  case $$target in *-musl) tag=musllinux_1_2;; *) tag=manylinux_2_17;; esac; \
	  for python in $(WHEEL_PYTHONS); do echo "building for CPython $$python on $$target"; \
	    maturin build --release --locked --quiet --zig --target "$$target" --compatibility $$tag -i "$$python" \
	      --compression-level 9 --out "$(DIST)"; \
	  done; \
	done
	@$(RELEASE)/bin/python release/check.py wheels "$(DIST)" --targets $(WHEEL_TARGETS) --pythons $(WHEEL_PYTHONS)

sdist: $(RELEASE)/.made  ## the source archive into dist/, its contents and its metadata checked
	@$(RELEASE)/bin/maturin sdist --out "$(DIST)"
	@$(RELEASE)/bin/python release/check.py sdist "$(DIST)"/ferricorn-*.tar.gz
	@$(RELEASE)/bin/pyroma --min=10 "$(DIST)"/ferricorn-*.tar.gz

# Needs mmdebstrap, and qemu-user-static for what is not this machine's.
ROOTS ?= bookworm trixie sid
roots: $(RELEASE)/.made  ## Debian's CPythons and one for musl, for x86_64 and aarch64, into target/roots, for run-wheels
	@sh release/roots.sh target/roots $(ROOTS)
	@$(RELEASE)/bin/python release/musl_roots.py target/roots

run-wheels: $(RELEASE)/.made  ## install each wheel of dist/ without Rust and serve the Flask example with it
	@$(RELEASE)/bin/python release/run_wheels.py "$(DIST)" $(RUN_ARGS)

CARGO_DENY := target/tools/bin/cargo-deny
$(CARGO_DENY):
	cargo install --locked --quiet --root target/tools cargo-deny

# Both ask a database of advisories. Where it is not reached, a line says what was not checked, and the exit code is 2.
audit: $(RELEASE)/.made $(CARGO_DENY)  ## licences, sources and known vulnerabilities of what the product and the tests depend on
	@$(RELEASE)/bin/python release/audit.py $(CARGO_DENY) $(RELEASE)/bin/pip-audit \
	 tests/python/requirements.txt examples/flask_app/requirements.txt

lint-release: $(RELEASE)/.made  ## the Dockerfile of the examples
	@$(RELEASE)/bin/hadolint examples/docker/Dockerfile

BASE_BRANCH ?= origin/main
changelog: $(MADE)  ## fails where src/ has changed since BASE_BRANCH and CHANGELOG.md has not
	@$(BIN)/python release/check.py changelog $(BASE_BRANCH)

release: $(MADE)  ## checks that VERSION=1.2.3 can be released, and tags it; pushing the tag publishes
	@$(BIN)/python release/check.py version "$(VERSION)"
	@git tag --annotate "v$(VERSION)" --message "ferricorn $(VERSION)"
	@echo "tagged v$(VERSION); git push origin v$(VERSION) publishes it"

clean:  ## remove .venv, target and caches
	rm -rf $(VENV) target .pytest_cache .mypy_cache .ruff_cache
	find src tests examples benches -name __pycache__ -prune -exec rm -rf {} +
	rm -f src/ferricorn/*.so
