"""A memory cgroup that cannot be made: the error names the place, the reason and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from droppable import DroppableError
from droppable._cgroup import CgroupUnavailableError, MemoryCgroup


def test_a_directory_that_is_no_cgroup_is_named_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(CgroupUnavailableError) as caught:
        MemoryCgroup.create(1 << 20, parent=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "not a directory of a cgroup file system" in str(caught.value)
    assert "systemd-run --user --scope" in str(caught.value)
    assert isinstance(caught.value, DroppableError)
    assert isinstance(caught.value, OSError)
    assert list(tmp_path.iterdir()) == []


def test_a_v2_directory_without_the_controller_says_that_it_is_not_delegated(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu pids\n")
    (tmp_path / "cgroup.procs").write_text("")
    with pytest.raises(CgroupUnavailableError, match=r"cgroup v2, .*not delegated: memory is not in "):
        MemoryCgroup.create(1 << 20, parent=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cgroup.controllers", "cgroup.procs"]


def test_a_group_whose_limit_cannot_be_set_is_removed_again(tmp_path: Path) -> None:
    # An ordinary directory that looks like the root of v1: the new group in it has none of the kernel's files.
    (tmp_path / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    with pytest.raises(CgroupUnavailableError, match=r"cgroup v1, .*No such file"):
        MemoryCgroup.create(1 << 20, parent=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["memory.limit_in_bytes"]


@pytest.mark.parametrize("limit_bytes, swap_bytes", [(0, 0), (-1, 0), (1 << 20, -1)])
def test_limits_out_of_range_are_refused(limit_bytes: int, swap_bytes: int) -> None:
    with pytest.raises(ValueError, match="limit_bytes must be positive"):
        MemoryCgroup.create(limit_bytes, swap_bytes)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        MemoryCgroup.create(1 << 20, name=name)
