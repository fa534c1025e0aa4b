#!/bin/sh
# memcached's own black-box tests, against droppable-server: `make memcached-suite`. The tests come from Debian's source package,
# fetched into build/. A file is ok if all of its tests pass; of others it is told which fail, and why. FILES="cas.t ..." chooses files,
# SERVER=path another build of the server.
set -eu
top=$PWD
work=$top/build/memcached-suite
mkdir -p "$work/lists/partial" "$work/cache" "$work/parts"
cd "$work"
if ! ls memcached_*.orig.tar.* >/dev/null 2>&1; then
	. /etc/os-release
	printf 'Types: deb-src\nURIs: http://deb.debian.org/debian\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
		"$VERSION_CODENAME" /usr/share/keyrings/debian-archive-keyring.gpg >parts/source.sources
	set -- -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$work/parts" -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache"
	apt-get "$@" update >fetch.log 2>&1 && apt-get "$@" source --download-only memcached >>fetch.log 2>&1 || {
		echo "SKIP memcached's tests: Debian's source package cannot be fetched (see $work/fetch.log)"
		exit 0
	}
fi
tree=$(echo memcached_*.orig.tar.* | sed 's/^memcached_\(.*\)\.orig.*/memcached-\1/')
[ -d "$tree" ] || tar xf memcached_*.orig.tar.*
cd "$tree"
[ -x timedrun ] || ${CC:-cc} -o timedrun timedrun.c
cp "$top/tools/memcached_shim.py" memcached-debug
chmod +x memcached-debug
export DROPPABLE_SERVER="${SERVER:-$top/.venv/bin/droppable-server}"

# Black-box tests. The others test what is memcached's alone: slabs, the LRU's parts, extstore, TLS, the binary protocol, the proxy;
# or they fill the memory that memcached was given, and here it is given none.
files="${FILES:-ascii-auth.t bogus-commands.t cas.t chunked-items.t conn-limits.t expirations.t flags.t flush-all.t getandtouch.t getset.t
	idle-timeout.t incrdecr.t issue_104.t issue_108.t issue_14.t issue_140.t issue_152.t issue_163.t issue_183.t issue_192.t issue_22.t
	issue_260.t issue_29.t issue_3.t issue_41.t issue_42.t issue_61.t issue_68.t issue_70.t item_size_max.t line-lengths.t
	malicious-commands.t maxconns.t metaget.t multiversioning.t noreply.t quit.t refhang.t shutdown.t stats-conns.t stats-detail.t
	stats.t strtol-testing.t touch.t unixsocket.t whitespace.t}"

# Why a file fails that fails, in a few words. "Likely": by what the file tests; its failure was not traced to the line.
reason() {
	case $1 in
	conn-limits.t) echo "-o read_buf_mem_limit: buffers are bounded otherwise here, and by --buffers" ;;
	flush-all.t) echo "one test: with -C, which takes versions away, a flush is to be inexact; here it is exact" ;;
	issue_14.t | issue_163.t) echo "counts of slab classes and evictions at -m" ;;
	issue_183.t | issue_22.t | issue_29.t | issue_42.t) echo "likely: counts of slab classes and evictions at -m" ;;
	issue_61.t) echo "likely: conn_yields counts connections that asked too much at once; here those that read too slowly" ;;
	item_size_max.t) echo "sizes above 255 MB, and slab sizes" ;;
	metaget.t) echo "the flags h and l, which are always 0 here" ;;
	stats.t) echo "likely: the number and the names of all statistics" ;;
	stats-conns.t) echo "likely: a list of connections is not given" ;;
	strtol-testing.t) echo "verbosity takes any word, and slabs automove is an error" ;;
	stats-detail.t) echo "counts by prefix are not kept" ;;
	*) echo "not known" ;;
	esac
}

for file in $files; do
	result=$(timeout 60 prove -Q -It/lib "t/$file" 2>&1) && { echo "ok      $file"; continue; }
	echo "not ok  $file  $(echo "$result" | grep -oE 'Failed tests?: .*' | head -1)  ($(reason "$file"))"
done
