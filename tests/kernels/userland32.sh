#!/bin/sh
# A 32-bit Debian with the package built in it: makes the root once (debootstrap, i386), installs the package from the
# project's files, and runs pytest there, on the 64-bit kernel that runs. Without arguments for pytest it only prepares,
# for a row of the matrix that boots the root on a 32-bit kernel. Needs root.
# usage: userland32.sh ROOT TOP [PYTEST-ARGUMENT...]
#
# The mounts that the tests need are made in a mount namespace of their own: whatever happens, none stays behind.
set -eu
root=$1 top=$2
shift 2

if [ "$(uname -m)" != x86_64 ] || [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
	echo "SKIP the 32-bit userland: it needs an x86-64 machine, root, and debootstrap (make -C tests/kernels deps-more)"
	exit 77
fi
if ! [ -e "$root/complete" ]; then
	rm -rf "$root"
	debootstrap --arch=i386 --variant=minbase --include=gcc,libc6-dev,ninja-build,python3-dev,python3-numpy,python3-pip,python3-venv \
		bookworm "$root" >"$root.log" 2>&1 || { tail "$root.log"; exit 1; }
	touch "$root/complete"
fi

# The tools that `make` pins, but for what has no 32-bit build or is not needed to build and test.
grep -E '^(meson|meson-python|pyproject-metadata|packaging|pytest|iniconfig|pluggy|hypothesis|sortedcontainers|cachetools|Pygments|pymemcache|redis|async-timeout)==' \
	"$top/requirements/dev.txt" >"$root/requirements"
if ! cmp -s "$root/requirements" "$root/wheels/requirements"; then
	rm -rf "$root/wheels" "$root/venv"
	"$top/.venv/bin/python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --implementation cp --abi none \
		--abi abi3 --abi cp311 --platform any --platform manylinux2014_i686 --platform manylinux_2_28_i686 \
		-d "$root/wheels" -r "$root/requirements"
	cp "$root/requirements" "$root/wheels/requirements"
fi

rm -rf "$root/droppable" && mkdir "$root/droppable"
(cd "$top" && git ls-files -co --exclude-standard -z | tar -c --null -T - --ignore-failed-read) | tar -x -C "$root/droppable"

exec unshare --mount --propagation private setarch i686 sh -eu -c '
	root=$1
	shift
	for tree in proc sys dev; do mount --rbind /$tree "$root/$tree"; done
	mount -t tmpfs tmpfs "$root/tmp"
	exec chroot "$root" /bin/sh -eu -c "
		cd /droppable
		export PIP_DISABLE_PIP_VERSION_CHECK=1 LC_ALL=C.UTF-8 HOME=/tmp
		test -d /venv || { python3 -m venv --system-site-packages /venv
			/venv/bin/pip install --quiet --no-index --find-links /wheels -r /requirements; }
		PATH=/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin
		export PATH
		pip install --quiet --no-index --no-build-isolation --no-deps --config-settings=build-dir=/tmp/build .
		python -c \"import sys, numpy; print(sys.version, \\\"numpy\\\", numpy.__version__, \\\"maxsize\\\", hex(sys.maxsize))\"
		[ \$# = 0 ] || exec python -m pytest -p no:cacheprovider \"\$@\"
	" sh "$@"
' sh "$root" "$@"
