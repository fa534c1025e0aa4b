#!/bin/sh
# Builds and runs the C core's tests in build/NAME: tools/c_test.sh NAME [meson options]. Called by `make c-test`.
# Every skip is printed with its reason at the end.
set -eu

name=$1
build=build/$name
shift
echo "== C tests: $name"
if ! [ -f "$build/build.ninja" ]; then
	rm -rf "$build"
	mkdir -p build
	meson setup "$build" -Dpython=false -Dtests=true "$@" >"build/$name.log" || {
		cat "build/$name.log"
		exit 1
	}
fi
ninja -C "$build" --quiet

# The sanitizers' shadow memory does not cover every random address layout: without randomness where that is allowed.
fixed=
if setarch -R true 2>/dev/null; then fixed="setarch -R"; fi
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}"
$fixed meson test -C "$build" --no-rebuild --print-errorlogs
grep -h '# SKIP' "$build/meson-logs/testlog.txt" | sed "s/^/$name: /" || true
