"""Sizes in bytes as people write them, both ways."""

import argparse
import re

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_size(text: str) -> int:
    """Bytes, from a number that K, M, G or T may follow (powers of 1024; "MB" and "MiB" mean M).

    Raises:
        argparse.ArgumentTypeError: it is none; the message says what to write.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?\s*", text, flags=re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size: write bytes, or a number with K, M, G or T (powers of 1024), as in 256M"
        )
    size_bytes = float(match[1]) * 1024 ** _POWERS[match[2].upper()]
    if size_bytes >= 1 << 62:
        raise argparse.ArgumentTypeError(f"{text!r} is more than any machine has")
    return int(size_bytes)


def format_size(size_bytes: int) -> str:
    """The other way, rounded to one decimal: "255.9M"."""
    size, unit = float(size_bytes), ""
    for unit in _POWERS:
        if size < 1000 or unit == "T":
            break
        size /= 1024
    return f"{size:.1f}".removesuffix(".0") + unit
