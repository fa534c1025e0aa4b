#!/bin/sh
# Looks for tests that fail by luck: each C test that starts threads RUNS times under ThreadSanitizer, beside a load on every
# processor, then the Python tests ORDERS times, each in another random order. Called by `make flaky`; everything is run,
# whatever fails, and the failures are listed at the end. RUNS=50 ORDERS=3 take about two hours on two processors.
#
#   tools/flaky.sh [NAME...]     only these C tests, and no Python: tools/flaky.sh cache forks
set -u
export PATH="$PWD/.venv/bin:$PATH"

runs=${RUNS:-50} orders=${ORDERS:-3}
build=build/tsan
log=build/flaky
failed=
mkdir -p "$log"

# tools/c_test.sh builds; its own run of the tests is not what is looked for here.
tools/c_test.sh tsan -Dbuildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false >"$log/build.log" 2>&1 ||
	{ tail -n 30 "$log/build.log"; failed="$failed tsan-build-or-first-run"; }

load=
stop_load() {
	for pid in $load; do kill "$pid" 2>/dev/null; done
	load=
}
trap stop_load EXIT
trap 'exit 130' INT TERM
for _ in $(seq "$(nproc)"); do
	sh -c 'while :; do :; done' &
	load="$load $!"
done

fixed=
if setarch -R true 2>/dev/null; then fixed="setarch -R"; fi
names="$*"
[ -n "$names" ] || names=$(meson test -C "$build" --list 2>/dev/null | sed -n 's/.*://p') # those that start threads
for name in $names; do
	bad=0
	for run in $(seq "$runs"); do
		timeout 900 $fixed "$build/csrc/tests/test_$name" >"$log/$name.run" 2>&1 </dev/null ||
			{ bad=$((bad + 1)); mv "$log/$name.run" "$log/$name.failed.$run"; }
	done
	rm -f "$log/$name.run"
	echo "C test $name: $bad of $runs runs failed"
	[ "$bad" -eq 0 ] || { failed="$failed $name"; tail -n 15 "$log/$name".failed.*; }
done

if [ $# -eq 0 ]; then
	for order in $(seq "$orders"); do
		seed=$(date +%N)
		echo "== Python tests in random order, seed $seed (again: pytest --random-order --random-order-seed=$seed)"
		python -m pytest -q --random-order --random-order-seed="$seed" || failed="$failed pytest-order-$seed"
	done
fi
if [ -n "$failed" ]; then
	echo "flaky:$failed (logs in $log)"
	exit 1
fi
echo "nothing failed"
