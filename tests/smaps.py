"""What the kernel says of one mapping of this process."""

from __future__ import annotations

import re
from pathlib import Path


def smaps_of(address: int) -> dict[str, str]:
    """The fields of the mapping that the address lies in: the kernel makes one of neighbours with the same flags."""
    fields: dict[str, str] = {}
    found = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            found = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif found:
            key, _, value = line.partition(":")
            fields[key] = value.strip()
    assert fields, f"{address:#x} is not mapped"
    return fields
