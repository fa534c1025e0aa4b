#!/bin/sh
# Builds CPython 3.13 without its global lock, from Debian's source package, and prints where it is: `make python-t`.
# It is kept in build/python-t, so that the second call only prints. Needed: Debian or Ubuntu with apt, a C compiler, and
# the libraries that Python's modules want, which are installed if this runs as root. Apt's own lists stay as they are.
#
#   python_t.sh FOLDER      FOLDER/bin/python3.13t is there afterwards
set -eu

folder=$(realpath -m "$1")
suite=trixie
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
libraries="libssl-dev zlib1g-dev libffi-dev libbz2-dev liblzma-dev libsqlite3-dev libreadline-dev"

if [ -x "$folder/bin/python3.13t" ]; then
	echo "$folder/bin/python3.13t"
	exit 0
fi
command -v apt-get >/dev/null || {
	echo "this needs apt, for Debian's source of Python 3.13; with another CPython 3.13t: make python-t PYTHON_T=/path/to/python3.13t" >&2
	exit 1
}
missing=$(for library in $libraries; do dpkg -s "$library" >/dev/null 2>&1 || echo "$library"; done)
if [ -n "$missing" ] && [ "$(id -u)" = 0 ]; then
	apt-get install -y -q $missing >&2
elif [ -n "$missing" ]; then
	echo "as root: apt-get install" $missing >&2
	exit 1
fi

work=$folder/source
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
apt() {
	apt-get -q -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root "$@" >&2
}
apt update
(cd "$work" && apt source --download-only python3.13)
tar -C "$work" -xf "$work"/python3.13_*.orig.tar.xz
cd "$work"/Python-3.13.* || cd "$work"/python3.13-*
./configure --quiet --disable-gil --prefix="$folder" >&2
make -s -j"$(nproc)" >&2
make -s install >&2
cd /
rm -rf "$work"
echo "$folder/bin/python3.13t"
