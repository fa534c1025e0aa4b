#!/bin/sh
# libFuzzer: tools/fuzz.sh TARGET [SECONDS]. Needs clang. What it learned is kept in build/fuzz/TARGET.
#
#   server    the server's parsers, any bytes in pieces of any length          csrc/tests/fuzz_server.c
#   entries   what reads the log, over any bytes and pages that go             csrc/tests/fuzz_entries.c
#   cache     programs of a small cache's calls, pages that go at any step     csrc/tests/fuzz_cache.c
set -eu
target=${1:-}
seconds=${2:-60}
folder=build/fuzz/$target
clang --version >/dev/null 2>&1 || { echo "SKIP: clang is not there (Debian and Ubuntu: apt-get install clang)"; exit 0; }
core=$(ls csrc/*/*.c | grep -v -e '^csrc/tests/' -e '^csrc/server/' -e '/prim_linux' -e '/random/')
options=
case $target in
server) sources=$(ls csrc/*/*.c | grep -v -e '/main\.c$' -e '^csrc/tests/') options='-DSERVICE_VERSION="fuzzed"' bytes=16384 ;;
entries) sources=csrc/log/entry.c options='-DPRIM_FAKE' bytes=8200 ;;
cache) sources="$core csrc/os/prim_linux_self.c csrc/tests/prim_fake.c" options='-DPRIM_FAKE -DDRP_ASSERTIONS' bytes=1601 ;;
*) echo "usage: tools/fuzz.sh server|entries|cache [SECONDS]" >&2; exit 2 ;;
esac
mkdir -p "$folder/corpus"
# shellcheck disable=SC2086
clang -g -O1 -std=gnu11 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
	-Icsrc -Icsrc/include $options "csrc/tests/fuzz_$target.c" $sources -pthread -o "$folder/fuzz"
[ -n "$(ls "$folder/corpus")" ] || case $target in
server)
	printf '\007set a 0 0 3\r\nabc\r\nget a\r\ngets a b\r\nincr a 1\r\nms a 3 T5 F1 I\r\nabc\r\nmg a v t c k Ox\r\n' >"$folder/corpus/text"
	printf '\037*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n*1\r\n$5\r\nMULTI\r\n*1\r\n$4\r\nEXEC\r\n' >"$folder/corpus/resp"
	;;
entries) # stamp 1, an end of 200 units, no drop; a small entry, and one with lengths of its own
	printf '\001\0\0\0\310\0\0\0\001\0\0\0\020\0\101\005\003\002keymmvaluevalue\001\0\0\0\017\0\001\005\003\0\002\0\002\0\0\0keymmva' >"$folder/corpus/two"
	;;
esac
"$folder/fuzz" -max_total_time="$seconds" -max_len="$bytes" -artifact_prefix="$folder/" -print_final_stats=1 "$folder/corpus"
