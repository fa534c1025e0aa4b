#!/usr/bin/env python3
"""Stands in for memcached-debug, the program that its own tests start: runs droppable-server instead.

DROPPABLE_SERVER names the program. What has no meaning here (memory sizes, slabs, user names) is left out.
"""

import getopt
import os
import sys

HELP = "memcached 1.6.18\n-s, --unix-socket=<file>\n"  # the tests ask what it can do

options, _ = getopt.getopt(sys.argv[1:], "s:l:p:U:u:m:c:t:o:I:a:Y:f:n:b:P:R:B:D:e:AFhVvdMkrCSLEi")
given = {}
for name, value in options:
    given.setdefault(name, []).append(value)
if "-h" in given or "-V" in given or "-i" in given:
    print(HELP)
    sys.exit(0)

argv = [os.environ["DROPPABLE_SERVER"], "--allow-clock"]
for letter, option in (
    ("-s", "--unix"),
    ("-c", "--connections"),
    ("-I", "--max-value"),
    ("-t", "--threads"),
    ("-Y", "--password-file"),
):
    for value in given.get(letter, []):
        argv += [option, value]
if "-a" in given:
    argv += ["--mode", given["-a"][-1]]
if "-s" not in given:
    argv += ["--listen", f"127.0.0.1:{given.get('-p', ['11211'])[-1]}"]
argv += ["--allow-shutdown"] * ("-A" in given) + ["--no-flush"] * ("-F" in given)
for word in ",".join(given.get("-o", [])).split(","):
    key, _, value = word.partition("=")
    if key == "idle_timeout":
        argv += ["--idle-seconds", value]
os.execv(argv[0], argv)
