#!/bin/sh
# Which lines and branches of csrc and binding the tests run: builds both for gcov, runs the C tests and the Python tests, and
# writes docs/coverage.md (tools/coverage.py). Called by `make coverage`; a quarter of an hour.
#
# Threads count with atomic instructions. A child that ends by _exit() writes its counts too (coverage_exit.c). What ends by
# SIGKILL, or by exec, writes nothing.
set -eu
export PATH="$PWD/.venv/bin:$PATH"

with="-Db_coverage=true -Dbuildtype=debug"
site=$PWD/build/coverage-site
mkdir -p build
${CC:-cc} -Wall -Wextra -Werror -O2 -fPIC -c tools/coverage_exit.c -o build/coverage_exit.o
find build/coverage build/python-coverage -name '*.gcda' -delete 2>/dev/null || true

# shellcheck disable=SC2086
tools/c_test.sh coverage $with "-Dc_args=-fprofile-update=atomic -DCHECK_SLOW" \
	"-Dc_link_args=--coverage -Wl,--wrap=_exit,--wrap=__gcov_fork,--wrap=sigaction $PWD/build/coverage_exit.o"

rm -rf "$site"
python -m pip install --quiet --no-build-isolation --no-deps --target "$site" --config-settings=build-dir=build/python-coverage \
	--config-settings=setup-args=-Db_coverage=true --config-settings=setup-args=-Dbuildtype=debug \
	--config-settings=setup-args=-Db_lto=false --config-settings=setup-args=-Dc_args=-fprofile-update=atomic \
	"--config-settings=setup-args=-Dc_link_args=--coverage -Wl,--wrap=_exit,--wrap=__gcov_fork,--wrap=sigaction $PWD/build/coverage_exit.o" .
cp tools/coverage_site/sitecustomize.py "$site"
# Left out: what looks at standard error where no file may be opened, for gcov complains there that it cannot write.
PATH="$site/bin:$PATH" PYTHONPATH=$site python -m pytest -q -p no:cacheprovider tests/unit tests/property tests/torture \
	-k "not without_descriptors and not that_it_may_not_look_into" "$@"

python tools/coverage.py build/coverage/csrc/libdroppable_core.a.p build/coverage/csrc/tests build/coverage/csrc/server \
	build/python-coverage
