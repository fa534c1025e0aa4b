# The one entry point, for people and for CI. Each target sets up what it needs by itself: a virtual environment in
# .venv with the pinned tools, the package built and installed in it, C builds under build/. Needed beforehand: make, a C
# compiler, and Python 3.11 or newer with its headers.
#
#   make demo       the main job: three caches under memory pressure, a table and a plot
#   make test       everything CI runs: build, lint, C tests (plain, sanitizers, 32-bit), pytest
#   make flaky      looks for tests that fail by luck: hours
#   make mutants    puts faults into a copy of the source, to see whether the tests notice them; writes docs/mutants.md
#   make models     goes through every order of steps of small models of the core's protocols; docs/models.md
#   make torture SECONDS=600 SEED=7   caches in processes that are stopped, killed and squeezed; every value is compared
#   make coverage   which lines of the C sources the tests run; writes docs/coverage.md
#   make sanitize   the Python tests on a build with AddressSanitizer, and some of them under valgrind
#   make python-t   the Python tests on a CPython without a global lock, which it builds
#   make suites     test suites that others wrote, fetched and run; writes docs/suites.md
#   make adapters   the adapters for other libraries: installs those, tests, their own suites; writes docs/adapters-suites.md
#   make server-suites  tests of memcached, Redis and their clients, against the server; writes docs/server-suites.md
#   tools/fuzz.sh   libFuzzer on the server's parsers, on what reads the log, and on the cache
#   make bench      the benchmarks, peers side by side
#   make kernels    the tests on other kernels, booted in QEMU          make userland32  the Python tests in a 32-bit Debian
#   make docs       the documentation, as a site in build/site          make site    the same, looked at in a browser
#   make dist URL=https://...  what a package index gets: sdist and wheels, each tried alone
#
#   make build      the package, installed in .venv          make lint     ruff, mypy, stubtest
#   make c-test     the C core's tests, in each build        make pytest   the Python tests (ARGS="-k name")
#   make format     what `make lint` would ask of the layout make clean    away with builds and .venv
#
# PYTHON=/path/to/python3 chooses the Python (at the first run), CC the compiler.

SHELL := /bin/sh
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.SUFFIXES:

VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
PYTHON ?=
ARGS ?=
export PATH := $(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Whatever a build reads. A file that comes or goes changes its directory, so directories count too.
SOURCES := pyproject.toml $(wildcard meson.build meson.options README.md LICENSE) \
	$(shell find csrc binding src -name __pycache__ -prune -o -path 'csrc/tests/*' -prune -o -print)
PYTHON_FILES := src tests docs/conf.py $(wildcard benchmarks demo examples tools)

.PHONY: build lint format c-test pytest test flaky mutants models torture coverage sanitize python-t suites adapters demo bench server-suites kernels kernels-ci userland32 docs site dist changelog clean

# Set-up

$(VENV)/requirements.stamp: requirements/dev.txt
	@if ! test -x $(BIN)/pip || ! $(BIN)/python -c '' 2>/dev/null; then \
		python=$$(tools/find_python.sh $(PYTHON)) || exit 1; \
		echo "making $(VENV) with $$python"; \
		rm -rf $(VENV) build && "$$python" -m venv $(VENV); \
	fi
	@echo "installing the pinned tools in $(VENV)"
	@$(BIN)/python -m pip install --quiet -r $<
	@touch $@

$(VENV)/build.stamp: $(VENV)/requirements.stamp $(SOURCES)
	@command -v $${CC:-cc} >/dev/null || { \
		echo "droppable needs a C compiler (Debian and Ubuntu: apt-get install gcc libc6-dev), or name yours: make CC=..." >&2; exit 1; }
	@echo "building and installing droppable in $(VENV)"
	@$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --config-settings=build-dir=build/python \
		--config-settings=setup-args=-Dwerror=true .
	@touch $@

# The peers, without what they would pull in: see the file.
$(VENV)/bench.stamp: requirements/bench.txt $(VENV)/requirements.stamp
	@$(BIN)/python -m pip install --quiet --no-deps -r $<
	@touch $@

$(VENV)/adapters.stamp: requirements/adapters.txt $(VENV)/requirements.stamp
	@$(BIN)/python -m pip install --quiet -r $<
	@touch $@

$(VENV)/release.stamp: requirements/release.txt $(VENV)/requirements.stamp
	@$(BIN)/python -m venv $(VENV)/release
	@$(VENV)/release/bin/pip install --quiet -r $<
	@touch $@

$(VENV)/server-suites.stamp: requirements/server-suites.txt $(VENV)/requirements.stamp
	@$(BIN)/python -m pip install --quiet -r $<
	@touch $@

$(VENV)/site.stamp: requirements/site.txt $(VENV)/docs.stamp
	@$(BIN)/python -m pip install --quiet -r $<
	@touch $@

$(VENV)/docs.stamp: requirements/docs.txt $(VENV)/requirements.stamp
	@$(BIN)/python -m pip install --quiet -r $<
	@touch $@

$(VENV)/coverage.stamp: requirements/coverage.txt $(VENV)/requirements.stamp
	@$(BIN)/python -m pip install --quiet -r $<
	@touch $@

# The package with the core's assertions, beside the one that ships
build/asserting.stamp: $(VENV)/requirements.stamp $(SOURCES)
	@echo "building droppable with assertions in build/asserting"
	@rm -rf build/asserting && $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps \
		--config-settings=build-dir=build/python-asserting --config-settings=setup-args=-Dwerror=true --config-settings=setup-args=-Dc_args=-DDRP_ASSERTIONS \
		--target build/asserting .
	@touch $@

build: $(VENV)/build.stamp
	@:

# Checks

lint: build
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy src tests/typing
	$(BIN)/mypy demo
	$(BIN)/python -m mypy.stubtest droppable._core --allowlist tools/stubtest_allowlist.txt --ignore-unused-allowlist

format: $(VENV)/requirements.stamp
	$(BIN)/ruff check --fix $(PYTHON_FILES)
	$(BIN)/ruff format $(PYTHON_FILES)

# The C core alone: as it ships, under each sanitizer, by the other compiler, and for 32 bits where the compiler can.
# tools/c_test.sh NAME OPTIONS... sets build/NAME up, builds it, runs its tests and prints what they skipped and why.
# A build whose tests fail does not keep the next from running. Long tests do all of their work in core, and a part elsewhere
# (-DCHECK_SLOW says so where no sanitizer does: csrc/tests/check.h); under TSan run those that start threads.
C_TESTS := c-test-core c-test-asan c-test-tsan c-test-clang c-test-m32
.PHONY: $(C_TESTS)
c-test: $(VENV)/requirements.stamp
	@$(MAKE) --no-print-directory -j1 -k $(C_TESTS)

c-test-core:
	tools/c_test.sh core
c-test-asan:
	tools/c_test.sh asan -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false
c-test-tsan:
	tools/c_test.sh tsan -Dbuildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false
c-test-clang:
	@if clang --version >/dev/null 2>&1; then CC=clang tools/c_test.sh clang -Dc_args=-DCHECK_SLOW; \
		else echo "SKIP the build by clang: it is not there (Debian and Ubuntu: apt-get install clang)"; fi
c-test-m32:
	@mkdir -p build; if echo 'int main(void) { return 0; }' | $${CC:-cc} -m32 -x c - -o build/m32.probe 2>/dev/null && build/m32.probe; then \
		tools/c_test.sh m32 "-Dc_args=-m32 -DCHECK_SLOW" -Dc_link_args=-m32; \
		else echo "SKIP the 32-bit build: no 32-bit libraries (Debian and Ubuntu: apt-get install gcc-multilib)"; fi

pytest: build
	$(BIN)/python -m pytest $(ARGS)

# One after the other also under -j: they share the machine. A part that fails does not keep the next from running, so that
# one flaw never hides the others; what failed is told before pytest's summary, and decides the exit status with it.
test:
	@$(MAKE) --no-print-directory build
	@failed=; for part in lint c-test pytest; do \
		$(MAKE) --no-print-directory -k $$part || failed="$$failed $$part"; done; \
	if [ -n "$$failed" ]; then echo "make test: failed:$$failed" >&2; exit 1; fi

# Each C test that starts threads 50 times under ThreadSanitizer beside a load, the Python tests three times in random order.
# make flaky ARGS="cache forks": only these C tests.
flaky: build
	tools/flaky.sh $(ARGS)

# Faults put into a copy of the source, each with the test that has to catch it. make mutants ARGS="pin": those of that word.
mutants: build
	$(BIN)/python tools/mutants.py $(ARGS)

# The models of tests/models, in all configurations: minutes. They need Python and nothing else. make models ARGS="--traces pins"
models: $(VENV)/requirements.stamp
	PYTHONPATH=$(CURDIR)/tests $(BIN)/python -m models $(ARGS)

# Processes that use caches while they are stopped, killed and squeezed, with the core's assertions. docs/torture.md
SECONDS ?= 60
SEED ?= 1
torture: build build/asserting.stamp
	PYTHONPATH=$(CURDIR)/build/asserting:$(CURDIR)/tests $(BIN)/python -m torture.driver --seconds $(SECONDS) --seed $(SEED) $(ARGS)

# Which lines and branches of csrc and binding the C tests and the Python tests run: a quarter of an hour. docs/coverage.md
coverage: build $(VENV)/coverage.stamp
	tools/coverage.sh $(ARGS)

# make sanitize ARGS="tests/unit/test_cache.py": only these, and nothing under valgrind.
sanitize: build
	tools/sanitize.sh $(ARGS)

# The Python tests without a global lock, on a CPython 3.13t that is built once: five minutes, then the tests. Another one:
# make python-t PYTHON_T=/path/to/python3.13t. Some tests alone: make python-t ARGS="tests/torture".
python-t:
	@python=$(or $(PYTHON_T),$$(tools/python_t.sh .python-t)) && \
		{ test -x .python-t/venv/bin/pip || $$python -m venv .python-t/venv; }
	@.python-t/venv/bin/python -m pip install --quiet -r requirements/python-t.txt
	@PATH=$(CURDIR)/.python-t/venv/bin:$$PATH .python-t/venv/bin/python -m pip install --quiet --no-build-isolation --no-deps \
		--config-settings=build-dir=build/python-t --config-settings=setup-args=-Dwerror=true .
	.python-t/venv/bin/python -m pytest -q $(or $(ARGS),tests/unit tests/property tests/torture)

# The suites of functools, cachetools and others: fetched, never part of this tree. make suites ARGS=TestLRU: only this one.
suites: build
	$(BIN)/python tools/suites.py $(ARGS)

# The adapters: with the libraries' types, with the libraries, and with the libraries' own suites.
# make adapters ARGS=BaseCacheTests: only this suite.
adapters: build $(VENV)/adapters.stamp
	$(BIN)/mypy src/droppable/adapters
	$(BIN)/python -m pytest -q tests/adapters
	$(BIN)/python tools/suites.py --adapters $(ARGS)

# Work

demo: build
	$(BIN)/python demo/demo.py $(ARGS)

bench: build $(VENV)/bench.stamp
	$(BIN)/python benchmarks/run.py $(ARGS)

# What others test memcached, Redis and their clients with: fetched, run against the server, and against the real ones.
# make server-suites ARGS=memccapable: only this one.
server-suites: build $(VENV)/server-suites.stamp
	$(BIN)/python tools/server_suites.py $(ARGS)

kernels: build
	$(MAKE) -C tests/kernels $(ARGS)

# The Python tests in a 32-bit userland, on the kernel that runs
userland32: build
	@$(MAKE) -s -C tests/kernels userland32

# The C tests on two kernels, for CI
kernels-ci: build
	$(MAKE) -C tests/kernels ci

docs: build $(VENV)/docs.stamp
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site
	@echo "the documentation is in build/site/index.html"

# The site in a browser, at two widths, with screenshots. Debian: apt-get install chromium chromium-driver
site: docs $(VENV)/site.stamp
	$(BIN)/python tools/site_check.py $(ARGS)

# What a package index gets: an sdist and wheels, repaired, each tried alone. make dist URL=https://where.the.project/lives
dist: $(VENV)/release.stamp
	$(VENV)/release/bin/python tools/release.py $(if $(URL),$(URL),$(error give URL=, where the project lives: README's links begin with it))

# What changes/ holds, as the changelog will have it; with VERSION=0.3.0 it is written there, and the files are removed.
changelog: $(VENV)/release.stamp
	$(VENV)/release/bin/towncrier build $(if $(VERSION),--yes --version $(VERSION),--draft --version next)

clean:
	rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
