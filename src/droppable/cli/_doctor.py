"""`droppable doctor`: what this system gives, as a table for people or as JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version

from droppable import Feature, features
from droppable._arguments import format_size
from droppable._cgroup import CgroupUnavailableError, MemoryCgroup
from droppable.cli._doctor_connect import connect_feature

TRIAL_LIMIT_BYTES = 64 << 20
_BACKINGS = ("lazyfree", "map_droppable")


def doctor(as_json: bool) -> int:
    """Prints all features, and whether `droppable run` and `droppable.connect` work here.

    A memory cgroup is made and removed for it, and a server started and ended.
    """
    rows = [*features(), _run(), connect_feature()]
    if as_json:
        print(json.dumps({"version": version("droppable"), "features": [asdict(row) for row in rows]}, indent=2))
        return 0
    width = max(len(row.name) for row in rows)
    print(f"droppable {version('droppable')}")
    for row in rows:
        words = [word for word in (_value(row), row.reason) if word]
        text = "; ".join(words).replace("\n", f"\n{'':{width + 7}}")  # below the third column
        print(f"{row.name:<{width}}  {'yes' if row.available else 'no':<3}  {text}".rstrip())
    print(f"\n{_verdict(rows)}")
    return 0


def _verdict(rows: Sequence[Feature]) -> str:
    if any(row.available for row in rows if row.name in _BACKINGS):
        return 'Caches work here. Where a line says "no", they work without it.'
    return f"Caches do not work here: they need {' or '.join(_BACKINGS)}. The lines of these say what is missing."


def _run() -> Feature:
    try:
        with MemoryCgroup.create(TRIAL_LIMIT_BYTES) as group:
            return Feature("run", True, f"cgroup v{group.version} in {group.path.parent}")
    except CgroupUnavailableError as error:
        return Feature("run", False, None, str(error))
    except OSError as error:
        return Feature("run", False, None, f"a cgroup could be made, but not removed: {error}")


def _value(feature: Feature) -> str:
    if feature.value is None:
        return ""
    if feature.name.endswith("_bytes") and isinstance(feature.value, int):
        return format_size(feature.value)
    return str(feature.value)
