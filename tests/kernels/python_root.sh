#!/bin/sh
# Fills a directory with a root file system that can run the Python tests: the interpreter behind a virtual environment,
# that environment (the built package is installed in it), the libraries of both, busybox for sh, and the project's
# files, all at the paths they have here. usage: python_root.sh ROOT VENV TOP
set -eu
root=$1 venv=$2 top=$3
python=$("$venv/bin/python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
stdlib=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["stdlib"])')
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["platlib"])')

copy() { (cd / && tar -c "$@" | tar -x -C "$root"); }

copy --exclude=site-packages --exclude=dist-packages --exclude=test --exclude=tests --exclude=ensurepip --exclude='config-*' \
	--exclude=idlelib --exclude=lib2to3 --exclude=tkinter --exclude=turtledemo "${stdlib#/}" "${python#/}"
copy "${venv#/}/bin" "${venv#/}/pyvenv.cfg"
# Tools that build and check are not needed there, nor what only the demo draws with or one test of values takes.
copy --exclude='mypy*' --exclude='*mypyc*' --exclude='ruff*' --exclude='meson*' --exclude='ninja*' --exclude='pip*' --exclude=PIL \
	--exclude='pillow*' --exclude='pyarrow*' --exclude='pandas*' --exclude='torch*' --exclude='matplotlib*' --exclude='fontTools*' --exclude='fonttools*' --exclude=tests "${site#/}"
(cd "$top" && git ls-files -co --exclude-standard) | sed "s#^#${top#/}/#" >"$root/files"
(cd / && tar -c -T "$root/files" --ignore-failed-read 2>/dev/null | tar -x -C "$root")
rm "$root/files"

# Shared libraries of all that, as the loader resolves them here.
find "$root" -type f \( -name '*.so' -o -name '*.so.*' -o -path "*$python" \) | while read -r file; do
	ldd "$file" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }'
done | sort -u | grep -v "^$root" | while read -r library; do
	mkdir -p "$root$(dirname "$library")"
	[ -e "$root$library" ] || cp -L "$library" "$root$library"
done

ln -sf "$python" "$root$venv/bin/python"
mkdir -p "$root/bin" "$root/etc"
cp "$(command -v busybox)" "$root/bin/busybox"
for name in $("$root/bin/busybox" --list); do
	[ "$name" = busybox ] || ln -s busybox "$root/bin/$name"
done
echo 'root:x:0:0:root:/tmp:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"

cat >"$root/tests/pytest" <<PYTEST
#!/bin/sh
cd $top && exec $venv/bin/python -m pytest $PYTEST_FLAGS $PYTHON_TESTS
PYTEST
chmod +x "$root/tests/pytest"
