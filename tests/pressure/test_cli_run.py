"""`droppable run` as a program: limits, exit statuses, signals, the report, and nothing left behind.

droppable run          outside the group, attends
  <group> 64 MB        the command and what it starts
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from droppable._cgroup import MemoryCgroup
from droppable.lowlevel import exec_program

MB = 1 << 20
END_SECONDS = 300.0
RUN = [sys.executable, "-m", "droppable", "run", "--memory", "64M", "--"]

WHERE = "from droppable._cgroup_place import hierarchies; print(next(own for _, _, own in hierarchies()), flush=True); "
"""Prints the directory of the cgroup that the process is in."""


@pytest.fixture(autouse=True)
def cgroups_can_be_made(memory_cgroup: Callable[..., MemoryCgroup]) -> None:
    memory_cgroup(64 * MB).close()


def run(*command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    argv = [*RUN[:-1], *options, "--", *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=END_SECONDS, check=False)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_command_runs_and_its_status_and_output_come_through() -> None:
    done = run(*python(WHERE + "import sys; print(sys.argv[1:]); sys.exit(7)"), "--memory", "--", "x y")
    path, words = done.stdout.splitlines()
    assert done.returncode == 7
    assert words == "['--memory', '--', 'x y']"
    assert "droppable-" in path
    assert not Path(path).exists()
    assert "exit status   7" in done.stderr


def test_standard_input_reaches_the_command() -> None:
    done = subprocess.run(
        [*RUN, "cat"], input="words", capture_output=True, text=True, timeout=END_SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (0, "words")


def test_without_a_double_dash_too() -> None:
    done = subprocess.run([*RUN[:-1], "sh", "-c", "exit 3"], capture_output=True, timeout=END_SECONDS, check=False)
    assert done.returncode == 3


def test_the_peak_is_reported() -> None:
    done = run(*python(f"b = b'x' * {30 * MB}"))
    assert done.returncode == 0
    peak = next(line.split()[2] for line in done.stderr.splitlines() if "peak memory" in line)
    assert peak.endswith("M")
    assert 30 <= float(peak[:-1]) < 60
    assert "memory cgroup of 64M" in done.stderr
    assert "OOM kills     0" in done.stderr


def test_an_oom_kill_is_reported_and_exits_137() -> None:
    done = run(*python(f"b = b'x' * {100 * MB}"))
    assert done.returncode == 128 + signal.SIGKILL
    assert "OOM kills     1" in done.stderr
    assert "137 (SIGKILL)" in done.stderr


def test_an_oom_kill_of_a_grandchild_is_reported_too() -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', 'b = b\"x\" * {100 * MB}'])"
    done = run(*python(code))
    assert done.returncode == 0
    assert "OOM kills     1" in done.stderr


def test_drops_are_reported() -> None:
    code = f"""
from droppable.lowlevel import Mapping
with Mapping({200 * MB}) as mapping, memoryview(mapping) as memory:
    for start in range(0, {200 * MB}, {MB}):
        memory[start : start + {MB}] = b"x" * {MB}
        mapping.mark(start, {MB})
"""
    done = run(*python(code))
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stderr.splitlines() if "dropped" in line)
    pages = int(line.partition(" in ")[2].split()[0])
    assert pages * os.sysconf("SC_PAGE_SIZE") >= (200 - 64) * MB
    assert "OOM kills     0" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on_and_nothing_stays(number: signal.Signals) -> None:
    program = subprocess.Popen(
        [*RUN, *python("import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); " + WHERE + "signal.pause()")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    path = Path(program.stdout.readline().strip())
    assert path.exists()
    program.send_signal(number)
    _, errors = program.communicate(timeout=END_SECONDS)
    assert program.returncode == 128 + number
    assert f"({number.name})" in errors
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGRTMIN, signal.SIGRTMIN + 1, signal.SIGRTMAX])
def test_a_real_time_signal_that_ends_the_command_is_its_status(number: int) -> None:
    """The first and the last have names, and those between none that Python knows."""
    done = run("sh", "-c", f"kill -{int(number)} $$")
    assert done.returncode == 128 + number
    assert f"exit status   {128 + number} (SIGRTM" in done.stderr


def test_a_command_that_handles_a_signal_decides_the_status() -> None:
    code = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
signal.sigwait([signal.SIGTERM])
sys.exit(5)
"""
    program = subprocess.Popen([*RUN, *python(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGTERM)
    program.communicate(timeout=END_SECONDS)
    assert program.returncode == 5


def test_the_command_gets_the_signal_mask_that_we_had() -> None:
    code = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    assert run(*python(code)).stdout == subprocess.run(python(code), capture_output=True, text=True, check=True).stdout


def test_ctrl_c_at_a_terminal_reaches_the_command_once() -> None:
    code = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGUSR1])
print("ready", flush=True)
signal.sigwait([signal.SIGINT])
os.kill(os.getppid(), signal.SIGUSR1)  # comes back after a SIGINT that is passed on would
signal.sigwait([signal.SIGUSR1])
print("twice" if signal.SIGINT in signal.sigpending() else "once", flush=True)
"""
    pid, terminal = os.forkpty()
    if pid == 0:
        os.execv(sys.executable, [*RUN, *python(code)])
    seen = b""
    try:
        while b"ready" not in seen:
            seen += os.read(terminal, 4096)
        os.write(terminal, b"\x03")
        try:
            while chunk := os.read(terminal, 4096):
                seen += chunk
        except OSError:  # EIO: the other side is closed
            pass
    finally:
        os.close(terminal)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, seen
    assert b"once\r\n" in seen


def test_daemons_end_with_the_command() -> None:
    code = (
        WHERE
        + """
import os, signal
if os.fork() == 0:
    os.setsid()
    signal.pause()
"""
    )
    program = subprocess.Popen([*RUN, *python(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, errors = program.communicate(timeout=END_SECONDS)
    path = out.splitlines()[0]
    assert program.returncode == 0
    assert "left running  1 processes" in errors
    assert not Path(path).exists()


def test_killed_itself_it_leaves_nothing() -> None:
    program = subprocess.Popen(
        [*RUN, *python("import os; print(os.getpid()); " + WHERE + "import signal; signal.pause()")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert program.stdout is not None
    watch = os.pidfd_open(int(program.stdout.readline()))
    path = Path(program.stdout.readline().strip())
    program.kill()
    assert select.select([watch], [], [], END_SECONDS)[0], "the command lives"
    os.close(watch)
    program.stdout.close()
    program.wait()
    while path.exists():  # its keeper removes it; the test's own time-out is the bound
        os.sched_yield()


def test_without_permission_it_says_what_was_tried_and_what_to_do() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody who may not make cgroups")
    nobody = 65534
    code = f"""
import os, sys
from droppable.cli import main
os.setgroups([])
os.setgid({nobody})
os.setuid({nobody})
sys.exit(main(["run", "--memory", "64M", "true"]))
"""
    done = subprocess.run(python(code), capture_output=True, text=True, timeout=END_SECONDS, check=False)
    assert done.returncode == 125, done.stderr
    assert f"for uid {nobody}" in done.stderr
    assert "What to do" in done.stderr
    assert "systemd-run was tried too" in done.stderr


# Transparent: the command gets what it would have got without us, as from timeout(1)


def in_shell(script: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A script for bash, in which $R stands for `droppable run ... --`."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    script = 'run() { "${R[@]}" "$@"; }; R=(' + " ".join(shlex.quote(word) for word in RUN) + ")\n" + script
    return subprocess.run([bash, "-c", script], capture_output=True, timeout=END_SECONDS, check=False, **options)


def same_with_and_without(command: str, before: str = "", after: str = "") -> bytes:
    """What the command prints (and its status), which has to be what it prints in the group."""
    outputs = [in_shell(f"{before}\n{word} {command} {after}; echo status $?").stdout for word in ("", "run")]
    assert outputs[0] == outputs[1]
    return outputs[1]


def test_descriptors_reach_the_command() -> None:
    read = "cat /proc/self/fd/7 /proc/self/fd/3"
    assert same_with_and_without(read, after="3<<<three 7<<<seven") == b"seven\nthree\nstatus 0\n"
    assert same_with_and_without("cat <(echo a) <(echo b)") == b"a\nb\nstatus 0\n"
    listed = "bash -c 'for f in /proc/self/fd/*; do [ -e $f ] && echo ${f##*/}; done; exit 5'"
    assert b"\n9\n" in same_with_and_without(listed, after="9</dev/null 4>/dev/null")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", "0<&- 2>&-"])
def test_closed_streams_are_closed_for_the_command(closed: str) -> None:
    command = "bash -c 'for n in 0 1 2; do [ -e /proc/self/fd/$n ] && echo $n >&9; done'"
    listed = same_with_and_without(command, before="exec 9>&1", after=closed).split()[:-2]
    assert listed == [number for number in (b"0", b"1", b"2") if number.decode() not in closed]


def test_the_report_goes_to_standard_error_or_nowhere(tmp_path: Path) -> None:
    closed = in_shell("run sh -c 'echo out; exit 3' 2>&-")
    assert (closed.returncode, closed.stdout, closed.stderr) == (3, b"out\n", b"")
    full = in_shell("run sh -c 'echo out; exit 3' 2>/dev/full")
    assert (full.returncode, full.stdout) == (3, b"out\n")
    both = in_shell("run sh -c 'exit 4' 1>&- 2>&-")
    assert (both.returncode, both.stdout, both.stderr) == (4, b"", b"")
    reader, writer = os.pipe()  # nobody reads it
    os.close(reader)
    done = subprocess.run([*RUN, "sh", "-c", "kill -9 $$"], stderr=writer, timeout=END_SECONDS, check=False)
    os.close(writer)
    assert done.returncode == 128 + signal.SIGKILL
    done = subprocess.run([*RUN[:-1], "--", "no-such-program"], stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == 127
    kept = in_shell(f"run sh -c 'exit 0' 2>&- 5>{tmp_path}/five 6>{tmp_path}/six")
    assert kept.returncode == 0
    assert (tmp_path / "five").read_bytes() == (tmp_path / "six").read_bytes() == b""


ENVIRONMENTS: list[list[bytes]] = [
    [],
    [
        b"A=1",
        b"a.b=2",
        b"BASH_FUNC_x%%=() {  echo hi\n}",
        b"=empty name",
        b"no equals sign",
        b"",
        b"EMPTY=",
        b"TWICE=1",
    ],
    [b"TWICE=1", b"TWICE=2", b"BYTES=\xff\xfe\x80", b"\xe4=latin", "ü=utf".encode(), b"LINES=a\nb", b"= =", b"X=a=b=c"],
    [b"LC_ALL=C", b"LANG=de_DE.ISO-8859-1", b"PYTHONUTF8=0", b"\xff=\xff"],
    [b"LC_CTYPE=POSIX", b"LANG="],
]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=range(len(ENVIRONMENTS)))
def test_the_environment_byte_by_byte(environment: list[bytes]) -> None:
    environment = [*environment, b"PATH=" + os.fsencode(os.environ["PATH"])]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        os.close(reader)
        words = [os.fsencode(word) for word in [*RUN, "cat", "/proc/self/environ"]]
        try:
            exec_program(os.fsencode(sys.executable), words, environment)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        seen = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    assert seen.split(b"\0")[:-1] == environment


def test_exported_functions_and_arguments_of_any_bytes() -> None:
    assert same_with_and_without(
        "bash -c 'foo; b.a-r'", "foo() { echo hi; }; b.a-r() { echo ho; }; export -f foo b.a-r"
    ) == (b"hi\nho\nstatus 0\n")
    assert same_with_and_without("printf '%s|' -- --memory $'\\xff\\xfe' '' -h $'a\\nb' ü") != b""
    assert same_with_and_without("printf '%s|' $'\\xff' ü", "export LC_ALL=C") == b"\xff|\xc3\xbc|status 0\n"


def test_umask_directory_and_process_group(tmp_path: Path) -> None:
    assert same_with_and_without("sh -c 'umask; pwd'", f"umask 0137; cd {tmp_path}") == os.fsencode(
        f"0137\n{tmp_path}\nstatus 0\n"
    )
    group = os.getpgid(0)
    assert int(run(*python("import os; print(os.getpgid(0))")).stdout) == group


@pytest.mark.parametrize(
    "ignored", [[], [signal.SIGCHLD], [signal.SIGINT, signal.SIGTERM], [signal.SIGHUP, signal.SIGCHLD]]
)
@pytest.mark.parametrize("blocked", [set(), {signal.SIGUSR1, signal.SIGTERM}, {signal.SIGCHLD, signal.SIGINT}])
def test_ignored_and_blocked_signals(ignored: list[signal.Signals], blocked: set[signal.Signals]) -> None:
    def before() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    command = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
    outputs = [
        subprocess.run(argv, stdout=subprocess.PIPE, preexec_fn=before, timeout=END_SECONDS, check=True).stdout
        for argv in (command, [*RUN, *command])
    ]
    assert outputs[0] == outputs[1]


def test_a_script_without_a_first_line_runs_as_execvp_runs_it(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "$1"; exit 9\n')
    script.chmod(0o755)
    done = run(str(script), "word")
    assert (done.returncode, done.stdout) == (9, "word\n")
    script.write_text("#!/no/such/interpreter\n")
    assert run(str(script)).returncode == 127
