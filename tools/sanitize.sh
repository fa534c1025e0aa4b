#!/bin/sh
# The Python tests on a build with AddressSanitizer and UndefinedBehaviorSanitizer, then a few under valgrind where that is there.
# Called by `make sanitize`; twenty minutes. tools/sanitize.sh ARGS: these tests of pytest, and nothing under valgrind.
#
# PYTHONMALLOC=malloc, or the interpreter would give out memory of its own pools, of which the sanitizer knows nothing. Leaks are
# not looked for: the interpreter leaves much behind. `make c-test` looks for them, and tests/torture counts what malloc gave.
# Nor does valgrind look for values that were never set: the interpreter alone has some.
set -eu
export PATH="$PWD/.venv/bin:$PATH"

site=$PWD/build/sanitized
rm -rf "$site"
python -m pip install --quiet --no-build-isolation --no-deps --target "$site" --config-settings=build-dir=build/python-sanitized \
	--config-settings=setup-args=-Db_sanitize=address,undefined --config-settings=setup-args=-Db_lundef=false \
	--config-settings=setup-args=-Db_lto=false --config-settings=setup-args=-Dbuildtype=debugoptimized .

# Left out: tests of how much memory or address space a process may have, which the sanitizer needs for itself, one that wants
# memory to be used again at once, and one that locks all memory.
without="not figures_of_a_process_that_fills and not small_run_makes_the_table and not commands_run and not locked_memory_is_told \
and not never_stored_takes_no_memory and not test_address_space and not no_number_comes_twice"
# The sanitizers' shadow memory does not cover every random address layout: without randomness where that is allowed.
fixed=
if setarch -R true 2>/dev/null; then fixed="setarch -R"; fi
compiler=${CC:-cc}
LD_PRELOAD="$($compiler -print-file-name=libasan.so) $($compiler -print-file-name=libstdc++.so)" \
	PATH="$site/bin:$PATH" PYTHONPATH=$site PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:handle_sigbus=0:use_sigaltstack=0 \
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	$fixed python -m pytest -q -p no:cacheprovider -k "$without" ${@:-tests/unit tests/property}

[ $# -eq 0 ] || exit 0
if ! command -v valgrind >/dev/null; then
	echo "SKIP valgrind: it is not there (Debian and Ubuntu: apt-get install valgrind)"
	exit 0
fi
PYTHONMALLOC=malloc valgrind --quiet --suppressions=tools/valgrind.supp --undef-value-errors=no --error-exitcode=99 \
	python -m pytest -q -p no:cacheprovider tests/unit/test_update.py
