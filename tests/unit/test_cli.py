"""The command line where no cgroup is needed: sizes, wrong arguments, the doctor."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import droppable
from droppable._arguments import format_size, parse_size
from droppable.cli import _doctor, _doctor_connect, _run, main
from droppable.cli._doctor_connect import connect_feature
from droppable.cli._serve import server_program


@pytest.mark.parametrize(
    "text, size_bytes",
    [
        ("0", 0),
        ("4096", 4096),
        ("1k", 1024),
        ("256M", 256 << 20),
        ("256MB", 256 << 20),
        ("256 MiB", 256 << 20),
        ("1.5G", 3 << 29),
        ("2T", 2 << 40),
    ],
)
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "1e6", "256X", "256MM", "0x10", "1,5G", "1_000", "٣M", "inf", "5\u212a"]
)
def test_what_is_no_size_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size: write bytes.*as in 256M"):
        parse_size(text)


@pytest.mark.parametrize("text", ["9999999999T", "9" * 400 + ".5", "9" * 5000, "4194304T"])
def test_sizes_beyond_all_machines_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="more than any machine"):
        parse_size(text)


@pytest.mark.parametrize(
    "size_bytes, text",
    [(0, "0"), (999, "999"), (1024, "1K"), (1 << 20, "1M"), (256 << 20, "256M"), (1000 << 20, "1G"), (3 << 29, "1.5G")],
)
def test_sizes_are_written(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], "COMMAND"),
        (["frobnicate"], "invalid choice"),
        (["run", "true"], "--memory"),
        (["run", "--memory", "64M"], "a command to run is missing"),
        (["run", "--memory", "64M", "--"], "a command to run is missing"),
        (["run", "--memory", "0", "true"], "more than 0"),
        (["run", "--memory", "1", "true"], "at least one page"),
        (["run", "--swap"], "expected one argument"),
        (["run", "--memory", "64Q", "true"], "is not a size"),
        (["run", "--memory", "64M", "--frobnicate", "true"], "unrecognized arguments: --frobnicate"),
        (["doctor", "--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_wrong_arguments(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """2, as usual, but 125 for `run`, whose command may end with any other status."""
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == (125 if argv[:1] == ["run"] else 2)
    assert words in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"droppable {version('droppable')}\n"


def test_a_command_that_is_not_there_exits_127(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--memory", "64M", "--", "no-such-program-here"]) == 127
    assert "no-such-program-here: there is no such program" in capsys.readouterr().err


def test_only_the_path_is_searched_for_a_bare_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").write_text("")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "there").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name, status in (("here", 127), ("there", 126), ("./here", 126), ("bin", 127), ("./bin", 126), ("", 127)):
        assert main(["run", "--memory", "64M", "--", name]) == status, name
        assert capsys.readouterr().err


def test_a_command_that_is_no_program_exits_126(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["run", "--memory", "64M", str(tmp_path / "file")]) == 126
    assert "not a program" in capsys.readouterr().err


def test_doctor_prints_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.keys() == {"version", "features"}
    assert report["version"] == version("droppable")
    assert [row["name"] for row in report["features"]] == [item.name for item in droppable.features()] + [
        "run",
        "connect",
    ]
    for row in report["features"]:
        assert row.keys() == {"name", "available", "value", "reason"}
        assert isinstance(row["available"], bool)
        assert row["value"] is None or isinstance(row["value"], int | str)
        assert isinstance(row["reason"], str)
        assert row["available"] or row["reason"]


def test_doctor_prints_one_line_a_feature_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    first, *lines, empty, last = capsys.readouterr().out.splitlines()
    assert first == f"droppable {version('droppable')}"
    assert (empty, last) == ("", 'Caches work here. Where a line says "no", they work without it.')
    rows = [line.split() for line in lines if not line.startswith(" ")]
    assert [row[0] for row in rows] == [item.name for item in droppable.features()] + ["run", "connect"]
    assert {row[1] for row in rows} <= {"yes", "no"}


def test_doctor_tells_whether_a_servers_memory_can_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert connect_feature() == droppable.Feature("connect", True, "clients read the server's memory")
    program = server_program()
    servers = {
        "no-attach": f'#!/bin/sh\nexec {program} "$@" --no-attach\n',
        "ends": "#!/bin/sh\necho no room >&2\nexit 1\n",
    }
    for name, text in servers.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o700)
    for path, reason in (
        (tmp_path / "no-attach", "clients ask the server: ERR the server was started with --no-attach"),
        (tmp_path / "ends", "the server does not start: no room"),
        (tmp_path / "absent", "a server could not be tried: "),
        (None, "droppable-server was not installed with this package"),
    ):
        monkeypatch.setattr(_doctor_connect, "server_program", lambda path=path: path)
        feature = connect_feature()
        assert (feature.name, feature.available) == ("connect", False)
        assert feature.reason.startswith(reason)


def test_doctor_says_where_caches_do_not_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = [droppable.Feature(name, False, None, "missing") for name in ("lazyfree", "map_droppable", "swap_bytes")]
    monkeypatch.setattr(_doctor, "features", lambda: nothing)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "Caches do not work here: they need lazyfree or map_droppable. The lines of these say what is missing."
    )


def test_python_m_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "droppable", "doctor", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["version"] == version("droppable")
    help_text = subprocess.run(
        [sys.executable, "-m", "droppable", "--help"], capture_output=True, text=True, check=True
    )
    assert help_text.stdout.startswith("usage: droppable ")


REENTER = """
import sys
from droppable._cgroup import reenter_in_scope
print(reenter_in_scope([sys.executable, "-c", "import os; print('inside', os.environ['DROPPABLE_IN_SCOPE'])"], []))
"""


def reenter(folder: Path, script: str | None, **environment: str) -> str:
    """What `reenter_in_scope` does with such a systemd-run."""
    if script is not None:
        (folder / "systemd-run").write_text(script)
        (folder / "systemd-run").chmod(0o755)
    (folder / "true").symlink_to("/bin/true")
    done = subprocess.run(
        [sys.executable, "-c", REENTER],
        env={**os.environ, "PATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_scope_of_systemd_is_entered(tmp_path: Path) -> None:
    script = f"""#!/bin/sh
echo "$@" >> {tmp_path}/calls
while [ "$1" != true ] && [ "$1" != -- ]; do shift; done
[ "$1" = -- ] && shift
exec "$@"
"""
    assert reenter(tmp_path, script) == "inside 1"
    trial, entry = (tmp_path / "calls").read_text().splitlines()
    user = ["--user"] if os.geteuid() != 0 else []
    options = ["--scope", "--quiet", "--collect", "--property=Delegate=yes", *user]
    assert trial.split() == [*options, "true"]
    assert entry.split()[: len(options) + 2] == [*options, "--", sys.executable]


def test_a_systemd_that_refuses_is_quoted(tmp_path: Path) -> None:
    assert reenter(tmp_path, "#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n").endswith("connect to bus")


def test_without_systemd_that_is_said(tmp_path: Path) -> None:
    assert reenter(tmp_path, None) == "there is no systemd-run"


def test_a_scope_is_not_entered_twice(tmp_path: Path) -> None:
    assert "already" in reenter(tmp_path, "#!/bin/sh\nexec true\n", DROPPABLE_IN_SCOPE="1")


@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--json"], ["--version"]])
def test_a_full_disk_is_told_in_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "droppable", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "droppable: standard output cannot be written to: No space left on device\n"


def test_a_reader_that_has_gone_is_told_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "droppable", "doctor"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("arguments", [["doctor"], ["top", "--once"], ["top"], ["--version"]])
def test_a_closed_standard_output_is_told_in_one_line(arguments: list[str]) -> None:
    command = shlex.join([sys.executable, "-m", "droppable", *arguments])
    done = subprocess.run(["sh", "-c", f"exec {command} >&-"], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "droppable: standard output cannot be written to: it is closed\n"


def test_a_closed_standard_input_is_no_terminal() -> None:
    command = shlex.join([sys.executable, "-m", "droppable", "top"])
    done = subprocess.run(["sh", "-c", f"exec {command} <&-"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "this is no terminal" in done.stderr


def test_a_file_that_cannot_be_read_is_not_taken_for_standard_output(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: str) -> list[str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/proc")

    monkeypatch.setattr("droppable.cli._top_memory.os.listdir", refuse)
    assert main(["top", "--once"]) == 1
    assert capfd.readouterr().err == "droppable: /proc: Too many open files\n"


def test_a_name_that_the_terminal_cannot_write_is_written_otherwise() -> None:
    code = "import sys; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "\u00e9"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        done = subprocess.run(
            [sys.executable, "-m", "droppable", "top", "--once", str(process.pid)],
            env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "500"},
            capture_output=True,
            text=True,
            check=False,
        )
        process.communicate("\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xe9" in done.stdout


@pytest.mark.parametrize("name", ["os.pipe", "os.fork"])
def test_without_descriptors_or_processes_run_exits_125(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wherever it is that the system refuses: at the group, at the start of the command or at systemd's scope."""

    def refuse() -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(name, refuse)
    assert main(["run", "--memory", "64M", "true"]) == 125
    assert capfd.readouterr().err.startswith("droppable run: ")


def test_each_signal_has_a_name() -> None:
    first, last = signal.SIGRTMIN, signal.SIGRTMAX
    assert _run._signal_name(signal.SIGKILL) == "SIGKILL"
    assert [_run._signal_name(number) for number in (first, first + 1, last)] == ["SIGRTMIN", "SIGRTMIN+1", "SIGRTMAX"]
    for number in signal.valid_signals():
        assert _run._signal_name(number).startswith("SIG")
