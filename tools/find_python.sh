#!/bin/sh
# Prints the Python that builds .venv: the first of the arguments (default: python3, then python3.14 down to python3.11)
# that is 3.11 or newer and has venv, ensurepip and its C headers. Where there is none it says why for each, and what to
# install. Called by the Makefile; `make PYTHON=/path/to/python3` passes one candidate.
set -u

check='
import os, sys, sysconfig
if sys.version_info < (3, 11):
    sys.exit("is Python %d.%d, older than 3.11" % sys.version_info[:2])
try:
    import ensurepip, venv
except ImportError as missing:
    sys.exit("has no module %s (Debian and Ubuntu: apt-get install python3-venv)" % missing.name)
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    sys.exit("has no C headers (Debian and Ubuntu: apt-get install python3-dev; Fedora: dnf install python3-devel)")
print(sys.executable)
'

[ $# -gt 0 ] || set -- python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3
reasons=
for candidate in "$@"; do
	if ! command -v "$candidate" >/dev/null 2>&1; then
		reasons="$reasons
  $candidate is not there"
	elif found=$("$candidate" -c "$check" 2>&1); then
		echo "$found"
		exit 0
	else
		reasons="$reasons
  $candidate $(echo "$found" | tail -n 1)"
	fi
done
cat >&2 <<END
droppable needs Python 3.11 or newer with venv and its C headers, and found none:$reasons
Install one (Debian and Ubuntu: apt-get install python3 python3-venv python3-dev), or name yours: make PYTHON=/path/to/python3
END
exit 1
