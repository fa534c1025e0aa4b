#!/bin/sh
# libFuzzer on the server's parsers: tools/fuzz_server.sh [SECONDS]. Needs clang. What it learned is kept in build/fuzz-server.
set -eu
mkdir -p build/fuzz-server
clang --version >/dev/null 2>&1 || { echo "SKIP: clang is not there (Debian and Ubuntu: apt-get install clang)"; exit 0; }
sources=$(ls csrc/*/*.c | grep -v -e '/main\.c$' -e '^csrc/tests/')
# shellcheck disable=SC2086
clang -g -O1 -std=gnu11 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -Icsrc -Icsrc/include '-DSERVICE_VERSION="fuzzed"' \
	csrc/tests/fuzz_server.c $sources -pthread -o build/fuzz-server/fuzz
mkdir -p build/fuzz-server/corpus
[ -n "$(ls build/fuzz-server/corpus)" ] || {
	printf '\007set a 0 0 3\r\nabc\r\nget a\r\ngets a b\r\nincr a 1\r\nms a 3 T5 F1 I\r\nabc\r\nmg a v t c k Ox\r\n' >build/fuzz-server/corpus/text
	printf '\037*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n*1\r\n$5\r\nMULTI\r\n*1\r\n$4\r\nEXEC\r\n' >build/fuzz-server/corpus/resp
}
build/fuzz-server/fuzz -max_total_time="${1:-60}" -max_len=16384 -print_final_stats=1 build/fuzz-server/corpus
