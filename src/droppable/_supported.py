"""Where droppable runs. Imported before anything else: an import elsewhere ends with one sentence that says so."""

import sys


def unsupported(reason: str = "") -> ImportError:
    """The error of an import where droppable does not run. reason: what failed, if that is known."""
    here = f"{sys.implementation.name} {'.'.join(map(str, sys.version_info[:3]))} on {sys.platform}"
    return ImportError(
        "droppable runs on Linux with CPython 3.11 or newer, in the main interpreter and in those that share its GIL; "
        f"this is {here}" + (f" ({reason})" if reason else "")
    )


if sys.platform != "linux" or sys.implementation.name != "cpython" or sys.version_info < (3, 11):
    raise unsupported()
