#!/bin/sh
# Builds and runs the C core's tests in build/NAME: tools/c_test.sh NAME [meson options]. Called by `make c-test`.
# What the tests skip or remark is printed at the end.
set -eu
export PATH="$PWD/.venv/bin:$PATH"

name=$1
build=build/$name
shift
log=build/$name.log
echo "== C tests: $name"
mkdir -p build
# Another compiler or other options: from the start. Ninja sees to everything else that changes.
options="${CC:-cc} $*"
[ "$(cat "$build/options" 2>/dev/null)" = "$options" ] || rm -rf "$build"
{ [ -d "$build" ] || { meson setup "$build" -Dpython=false -Dtests=true "$@" && echo "$options" >"$build/options"; }; } \
	>"$log" 2>&1 &&
	ninja -C "$build" >>"$log" 2>&1 || {
	cat "$log"
	exit 1
}

# The sanitizers' shadow memory does not cover every random address layout: without randomness where that is allowed.
fixed=
if setarch -R true 2>/dev/null; then fixed="setarch -R"; fi
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}"
$fixed meson test -C "$build" --no-rebuild --print-errorlogs
grep -hE '^(ok.*# SKIP|# )' "$build/meson-logs/testlog.txt" | sed "s/^/$name: /" || true
