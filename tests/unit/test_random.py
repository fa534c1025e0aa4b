"""droppable.random: what `secrets`, `random.SystemRandom` and `uuid.uuid4` promise, from the fast source."""

from __future__ import annotations

import array
import base64
import copy
import gc
import os
import pickle
import platform
import random as standard
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
import unittest
import uuid
import warnings
import weakref
from collections.abc import Callable
from types import FrameType

import pytest

from droppable import random as ours

try:
    from test import test_random as cpython  # type: ignore[attr-defined,import-untyped,unused-ignore]
except ImportError:
    cpython = None

URLSAFE = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
LENGTHS = [*range(40), 255, 256, 257, 4095, 4096, 4097, 100_000]


def run_python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


# The names


def test_has_every_name_of_secrets() -> None:
    assert set(secrets.__all__) | {"DEFAULT_ENTROPY"} <= set(ours.__all__)
    assert ours.DEFAULT_ENTROPY == secrets.DEFAULT_ENTROPY  # type: ignore[attr-defined]
    assert all(hasattr(ours, name) for name in ours.__all__)


@pytest.mark.parametrize("name", ours.__all__)
def test_each_name_says_where_it_is_from(name: str) -> None:
    thing = getattr(ours, name)
    if isinstance(thing, type(ours.token_bytes)) and name != "compare_digest":
        assert (thing.__module__, thing.__name__) == ("droppable.random", name)
        assert thing.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'seed'"):
        ours.seed  # noqa: B018  # type: ignore[attr-defined]


def test_source_is_told() -> None:
    source = ours.source()
    assert source.vdso == (source.reason == "") == (source.state_bytes > 0)
    if source.vdso:
        assert source.state_count > 0
        assert source.state_bytes < 4096
    else:
        assert not source.vdso_in_bulk


# Tokens


@pytest.mark.parametrize("length", LENGTHS)
def test_tokens_have_their_length(length: int) -> None:
    assert len(ours.token_bytes(length)) == len(ours.randbytes(length)) == length
    assert len(bytes.fromhex(ours.token_hex(length))) == length
    text = ours.token_urlsafe(length)
    assert set(text) <= URLSAFE
    assert len(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))) == length
    assert len(text) == len(secrets.token_urlsafe(length))


@pytest.mark.parametrize("function", [ours.token_bytes, ours.token_hex, ours.token_urlsafe])
def test_length_may_be_left_out(function: Callable[..., bytes | str]) -> None:
    full = len(function(32))
    assert len(function()) == len(function(None)) == len(function(nbytes=None)) == len(function(nbytes=32)) == full


def test_encodings_are_of_the_bytes() -> None:
    """Every digit, letter and last group turns up: what encodes in place must not read what it wrote."""
    assert set(ours.token_hex(1000)) == set("0123456789abcdef")  # else by chance: 10^-55
    assert set(ours.token_urlsafe(10_000)) == URLSAFE
    for tail in (1, 2):
        assert len({ours.token_urlsafe(3 + tail)[4:] for _ in range(200)}) > 50


def test_bytes_are_uniform() -> None:
    """A coarse look; benchmarks/random_statistics.py has the suites. 6 standard deviations on 256 counts."""
    counts = [0] * 256
    for byte in b"".join(ours.token_bytes(16) for _ in range(65536)):
        counts[byte] += 1
    assert all(abs(count - 4096) < 6 * 64 for count in counts)


@pytest.mark.parametrize("function", [ours.token_bytes, ours.token_hex, ours.token_urlsafe, ours.randbytes])
def test_wrong_lengths_are_refused(function: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="negative"):
        function(-1)
    with pytest.raises(TypeError):
        function("16")
    with pytest.raises(TypeError):
        function(1.5)
    with pytest.raises(TypeError, match="at most 1"):
        function(1, 2)
    with pytest.raises(TypeError, match="unexpected keyword"):
        function(bytes=1)
    with pytest.raises(OverflowError):
        function(1 << 70)
    with pytest.raises((MemoryError, OverflowError)):
        function(sys.maxsize)


def test_randbytes_wants_its_argument() -> None:
    with pytest.raises(TypeError, match="missing"):
        ours.randbytes()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        ours.randbytes(None)  # type: ignore[arg-type]
    assert len(ours.randbytes(n=3)) == 3


# fill


@pytest.mark.parametrize("length", [0, 1, 16, 257, 5000])
def test_fill_fills_what_it_is_given(length: int) -> None:
    target = bytearray(length + 20)
    seen = bytearray(length + 20)
    for _ in range(8):
        target[:] = bytes(len(target))
        ours.fill(memoryview(target)[10 : 10 + length])
        seen = bytearray(a | b for a, b in zip(seen, target, strict=True))
    assert not any(seen[:10])
    assert not any(seen[10 + length :])
    assert all(seen[10 : 10 + length])


def test_fill_takes_any_writable_buffer() -> None:
    numbers = array.array("Q", [0] * 100)
    ours.fill(numbers)
    assert len(set(numbers)) == 100
    with pytest.raises((TypeError, BufferError)):
        ours.fill(b"read-only")
    with pytest.raises((TypeError, BufferError)):
        ours.fill(memoryview(bytearray(10))[::2])
    with pytest.raises(TypeError):
        ours.fill("text")  # type: ignore[arg-type]


def test_a_long_fill_can_be_interrupted() -> None:
    class AlarmError(Exception):
        pass

    def handle(_number: int, _frame: FrameType | None) -> None:
        raise AlarmError

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        with pytest.raises(AlarmError):
            ours.fill(bytearray(256 << 20))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Numbers


def test_randbits() -> None:
    assert ours.randbits(0) == 0
    assert ours.randbits(k=1) in (0, 1)
    for bits in (1, 7, 8, 63, 64, 65, 71, 72, 128, 1000):
        drawn = [ours.randbits(bits) for _ in range(100)]
        assert all(0 <= number < 1 << bits for number in drawn)
        every = 0
        for number in drawn:
            every |= number
        assert every == (1 << bits) - 1
    with pytest.raises(ValueError, match="non-negative"):
        ours.randbits(-1)
    with pytest.raises(TypeError):
        ours.randbits(1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing"):
        ours.randbits()  # type: ignore[call-arg]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 10, 100])
def test_randbelow_reaches_all_and_only_what_is_below(limit: int) -> None:
    counts = [0] * limit
    for _ in range(1000 * limit):
        counts[ours.randbelow(limit)] += 1
    assert all(abs(count - 1000) < 200 for count in counts)  # 6 standard deviations


@pytest.mark.parametrize("limit", [2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, 2**64, 2**64 + 1, 3 << 62, 10**50])
def test_randbelow_wide(limit: int) -> None:
    drawn = [ours.randbelow(exclusive_upper_bound=limit) for _ in range(300)]
    assert all(0 <= number < limit for number in drawn)
    assert min(drawn) < limit // 10  # else by chance: 0.9 ** 300
    assert max(drawn) > limit - limit // 10


@pytest.mark.parametrize("limit", [0, -1, -(10**30)])
def test_randbelow_wants_a_positive_limit(limit: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ours.randbelow(limit)
    with pytest.raises(TypeError):
        ours.randbelow(3.0)  # type: ignore[arg-type]


def test_random_is_a_fraction_of_53_bits() -> None:
    drawn = [ours.random() for _ in range(10_000)]
    assert all(0.0 <= number < 1.0 and (number * 2**53).is_integer() for number in drawn)
    assert abs(sum(drawn) / len(drawn) - 0.5) < 0.02  # 7 standard errors
    assert len(set(drawn)) == len(drawn)


def test_choice_shuffle_uniform() -> None:
    letters = list("abcdef")
    assert {ours.choice(letters) for _ in range(500)} == set(letters)
    shuffled = letters * 10
    ours.shuffle(shuffled)
    assert sorted(shuffled) == sorted(letters * 10)
    assert all(-1.0 <= ours.uniform(-1, 1) <= 1.0 for _ in range(100))
    with pytest.raises(IndexError):
        ours.choice([])
    assert ours.compare_digest is secrets.compare_digest


# SystemRandom


def test_system_random_is_a_random_without_state() -> None:
    ours_system = ours.SystemRandom(1234)
    assert isinstance(ours_system, standard.Random)
    ours_system.seed(1)
    with pytest.raises(NotImplementedError):
        ours_system.getstate()
    with pytest.raises(NotImplementedError):
        ours_system.setstate(None)
    with pytest.raises(NotImplementedError):
        copy.copy(ours_system)
    assert ours_system.random() != ours_system.random()


def test_system_random_has_the_whole_interface() -> None:
    """Each public method of random.Random draws, none falls through to the seeded generator."""
    system = ours.SystemRandom()
    calls: dict[str, tuple[object, ...]] = {
        "betavariate": (1, 1), "binomialvariate": (10, 0.5), "choice": ([1, 2],), "choices": ([1, 2],),
        "expovariate": (1,), "gammavariate": (1, 1), "gauss": (0, 1), "getrandbits": (100,), "lognormvariate": (0, 1),
        "normalvariate": (0, 1), "paretovariate": (1,), "randbytes": (8,), "randint": (1, 9), "random": (),
        "randrange": (10**30,), "sample": (range(9), 3), "shuffle": ([1, 2],), "triangular": (), "uniform": (0, 1),
        "vonmisesvariate": (0, 1), "weibullvariate": (1, 1),
    }  # fmt: skip
    methods = {name for name in dir(standard.Random) if not name.startswith("_")}
    assert methods - set(calls) <= {"seed", "getstate", "setstate", "VERSION"}
    for name in methods & set(calls):
        getattr(system, name)(*calls[name])
    # what the base class draws from: both are ours, so nothing above used the Mersenne Twister underneath
    assert type(system).random is ours.random
    assert type(system).getrandbits is type(system)().getrandbits is ours.randbits


def test_a_subclass_may_replace_the_source() -> None:
    class Fixed(ours.SystemRandom):
        @staticmethod
        def getrandbits(k: int) -> int:  # type: ignore[override]
            return 0

    assert Fixed().randrange(1000) == 0
    assert Fixed().choice("abc") == "a"


# CPython's own suite for SystemRandom

if cpython is None:

    def test_cpython_suite() -> None:
        pytest.skip("this Python comes without its `test` package")

else:

    class CPythonSuite(cpython.SystemRandom_TestBasicOps):  # type: ignore[misc,unused-ignore]
        __test__ = False  # run below, one by one
        gen = ours.SystemRandom()

    @pytest.mark.parametrize("name", unittest.defaultTestLoader.getTestCaseNames(CPythonSuite))
    def test_cpython_suite(name: str) -> None:
        result = unittest.TestResult()
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # the suite tests what is deprecated, too
            CPythonSuite(name).run(result)
        assert result.testsRun == 1
        for _, trace in result.errors + result.failures:
            pytest.fail(trace)
        for _, reason in result.skipped:
            pytest.skip(f"CPython's suite: {reason}")


# UUIDs


def test_uuid4_is_a_uuid_in_all_ways() -> None:
    for _ in range(100):
        drawn = ours.uuid4()
        assert type(drawn) is uuid.UUID
        assert (drawn.version, drawn.variant) == (4, uuid.RFC_4122)
        again = uuid.UUID(int=drawn.int)
        assert drawn == again == uuid.UUID(str(drawn)) == uuid.UUID(bytes=drawn.bytes)
        assert (hash(drawn), str(drawn), repr(drawn), drawn.fields) == (
            hash(again),
            str(again),
            repr(again),
            again.fields,
        )
        assert pickle.loads(pickle.dumps(drawn)) == copy.copy(drawn) == copy.deepcopy(drawn) == drawn
        assert drawn.is_safe is uuid.SafeUUID.unknown
        assert not hasattr(drawn, "__dict__")
    with pytest.raises(TypeError, match="immutable"):
        drawn.int = 0  # type: ignore[misc]
    assert weakref.ref(drawn)() is drawn
    assert gc.is_tracked(drawn) == gc.is_tracked(uuid.uuid4())


def test_uuid4_bits() -> None:
    """The 6 bits that say version and variant are fixed, all others take both values."""
    drawn = [ours.uuid4().int for _ in range(200)]
    ever = never = 0
    for number in drawn:
        ever |= number
        never |= ~number
    fixed = (1 << 128) - 1 & ~(ever & never)
    assert fixed == 0xF << 76 | 0b11 << 62


def test_nothing_leaks() -> None:
    def draw_all() -> None:
        for _ in range(1000):
            ours.uuid4(), ours.token_bytes(16), ours.token_hex(), ours.token_urlsafe(), ours.randbits(500)
            ours.randbelow(10**30), ours.randbelow(10), ours.random(), ours.fill(bytearray(3))
            with pytest.raises(ValueError):
                ours.randbelow(0)

    draw_all()
    gc.collect()
    before = sys.getallocatedblocks()
    draw_all()
    gc.collect()
    assert sys.getallocatedblocks() - before < 500  # one object a turn would be 1000


# Threads, fork, refusal


def test_threads_draw_different_tokens() -> None:
    drawn: list[set[bytes]] = []

    def draw() -> None:
        drawn.append({ours.token_bytes(16) for _ in range(500)})

    threads = [threading.Thread(target=draw) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set().union(*drawn)) == 64 * 500


def test_forked_children_draw_different_tokens() -> None:
    """Forks from the main thread while another draws; each child draws what its parent would have drawn next."""
    completed = run_python("""
        import os, threading
        from droppable import random

        stop = threading.Event()
        def draw():
            while not stop.is_set():
                random.token_bytes(16)
        thread = threading.Thread(target=draw)
        thread.start()
        tokens = []
        for _ in range(50):
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.write(writer, random.token_bytes(16) + random.uuid4().bytes)
                os._exit(0)
            os.close(writer)
            tokens += [os.read(reader, 16), os.read(reader, 16), random.token_bytes(16), random.uuid4().bytes]
            os.close(reader)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        thread.join()
        assert all(len(token) == 16 for token in tokens)
        print(len(set(tokens)))
    """, "-Wignore")  # fmt: skip  # Python 3.12 warns of forks with threads
    assert (completed.stdout, completed.stderr) == ("200\n", "")


GETRANDOM_NUMBER = {"x86_64": 318, "aarch64": 278}


def test_a_kernel_that_refuses_is_an_exception() -> None:
    number = GETRANDOM_NUMBER.get(platform.machine())
    if number is None:
        pytest.skip(f"the number of getrandom on {platform.machine()} is not in this test")
    completed = run_python(f"""
        import ctypes, struct
        from droppable import random

        libc = ctypes.CDLL(None, use_errno=True)
        code = b"".join(struct.pack("HBBI", *step) for step in (
            (0x20, 0, 0, 0),            # load the number of the system call
            (0x15, 0, 1, {number}),     # getrandom?
            (0x06, 0, 0, 0x00050001),   # yes: EPERM
            (0x06, 0, 0, 0x7FFF0000),   # no: go on
        ))
        buffer = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
        no_new_privileges, seccomp, filter_mode = 38, 22, 2
        if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(seccomp, filter_mode, program, 0, 0):
            print("no filters:", ctypes.get_errno())
            raise SystemExit
        refused = 0
        target = bytearray(16)
        calls = [lambda: random.token_bytes(16), lambda: random.token_hex(), lambda: random.token_urlsafe(),
                 lambda: random.randbits(8), lambda: random.randbits(800), lambda: random.randbelow(10),
                 lambda: random.randbelow(10**40), lambda: random.random(), lambda: random.uuid4(),
                 lambda: random.fill(target), lambda: random.token_bytes(10**6), lambda: random.choice("ab")]
        for call in calls:
            try:
                call()
            except PermissionError:
                refused += 1
        print(refused == len(calls), any(target))
    """)
    if completed.stdout.startswith("no filters"):
        pytest.skip(f"this kernel gives no system call filters: {completed.stdout.strip()}")
    assert (completed.stdout, completed.stderr) == ("True False\n", "")


def test_import_draws_nothing_and_needs_neither_numpy_nor_uuid() -> None:
    completed = run_python("""
        import sys
        before = set(sys.modules)
        from droppable import random
        print(sorted({"numpy", "uuid", "secrets", "hmac"} & (set(sys.modules) - before)))
        sys.modules["numpy"] = None
        try:
            random.BitGenerator
        except ImportError as error:
            print(error)
    """)
    assert completed.stdout == "[]\ndroppable.random.BitGenerator needs NumPy: pip install numpy\n"
    assert completed.stderr == ""


def test_no_distribution_keeps_a_number_that_a_forked_child_would_repeat() -> None:
    """random.Random.gauss makes two numbers at a time and keeps one."""
    shared = ours.SystemRandom()

    def draw() -> array.array[float]:
        numbers = (shared.gauss(), shared.normalvariate(), shared.expovariate(1), shared.triangular(), shared.random())
        return array.array("d", numbers)

    for _ in range(3):  # an odd and an even number of draws before the fork
        shared.gauss()
        before = dict(vars(shared))
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, draw().tobytes())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            theirs = array.array("d", pipe.read())
        assert os.waitpid(pid, 0)[1] == 0
        mine = draw()
        assert len(theirs) == len(mine) == 5
        assert not set(theirs) & set(mine)
        assert dict(vars(shared)) == before  # the object itself keeps nothing


def test_no_state_is_shared_over_os_fork_in_a_thread() -> None:
    """A second thread forks in the middle of the first one's draws; the child goes on in that second thread."""
    completed = run_python("""
        import os, threading
        from droppable import random

        tokens, codes = [], []
        def fork():
            for _ in range(20):
                pid = os.fork()
                if pid == 0:
                    drawn = {random.token_bytes(16) for _ in range(100)}
                    others = []
                    more = threading.Thread(target=lambda: others.extend(random.token_bytes(16) for _ in range(100)))
                    more.start()
                    more.join()
                    os._exit(0 if len(drawn | set(others)) == 200 else 1)
                codes.append(os.waitpid(pid, 0)[1])
        thread = threading.Thread(target=fork)
        thread.start()
        while thread.is_alive():
            tokens.append(random.token_bytes(16))
        print(set(codes), len(tokens) == len(set(tokens)))
    """, "-Wignore")  # fmt: skip
    assert (completed.stdout, completed.stderr) == ("{0} True\n", "")


def test_os_urandom_is_not_involved(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> bytes:
        raise AssertionError

    monkeypatch.setattr(os, "urandom", fail)
    assert len({ours.token_bytes(16), ours.uuid4().bytes, ours.SystemRandom().randbytes(16)}) == 3
