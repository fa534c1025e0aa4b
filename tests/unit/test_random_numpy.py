"""The BitGenerator: ours to NumPy, judged by our own tests and by those of NumPy's suite that need no known stream."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

from droppable import random as ours  # noqa: E402

try:
    from numpy.random.tests import test_direct, test_generator_mt19937, test_smoke

    RNGData = test_smoke.RNGData
    endpoint = test_generator_mt19937.endpoint  # a fixture of TestIntegers
except (ImportError, AttributeError) as error:
    suite_missing = f"this NumPy ({numpy.__version__}) comes without its tests, or with others: {error}"
else:
    suite_missing = ""


def generator() -> Any:
    return numpy.random.Generator(ours.BitGenerator())


def test_is_a_bit_generator() -> None:
    bits = ours.BitGenerator(1234)
    assert isinstance(bits, numpy.random.BitGenerator)
    assert "BitGenerator" in str(numpy.random.Generator(bits))
    assert ours.BitGenerator is type(bits)


def test_two_never_give_the_same() -> None:
    first, second = ours.BitGenerator(1), ours.BitGenerator(1)
    drawn = {int(word) for bits in (first, second, *first.spawn(3)) for word in bits.random_raw(10_000)}
    assert len(drawn) == 50_000  # two of 50,000 words of 64 bits alike: 10^-10 by chance


def test_no_word_is_zero_or_repeated_over_many_blocks() -> None:
    words = ours.BitGenerator().random_raw(1_000_000)
    assert numpy.unique(words).size == words.size  # 3 in 10^8 by chance
    assert (words != 0).all()
    for bit in range(64):
        share = ((words >> numpy.uint64(bit)) & numpy.uint64(1)).mean()
        assert abs(share - 0.5) < 0.003  # 6 standard errors


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_floats(dtype: str) -> None:
    drawn = generator().random(200_000, dtype=dtype)
    assert drawn.dtype == dtype
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(float(drawn.mean()) - 0.5) < 0.005


def test_integers_and_normals() -> None:
    rng = generator()
    for dtype in ("uint8", "int16", "uint32", "int64"):
        counts = numpy.bincount(rng.integers(0, 10, 100_000, dtype=dtype).astype(numpy.intp), minlength=10)
        assert (abs(counts - 10_000) < 700).all()  # 7 standard deviations
    normals = rng.normal(size=100_000)
    assert abs(normals.mean()) < 0.03
    assert abs(normals.std() - 1) < 0.03
    assert sorted(rng.permutation(100)) == list(range(100))


def test_32_and_64_bit_draws_may_alternate() -> None:
    rng = generator()
    seen = set()
    for _ in range(20_000):
        seen.add(int(rng.integers(0, 2**32, dtype="uint32")) << 64 | int(rng.integers(0, 2**63)))
    assert len(seen) == 20_000


def test_has_no_state() -> None:
    bits = ours.BitGenerator()
    with pytest.raises(NotImplementedError):
        bits.state  # noqa: B018
    with pytest.raises(NotImplementedError):
        bits.state = {}
    with pytest.raises(NotImplementedError):
        pickle.dumps(bits)
    with pytest.raises(NotImplementedError):
        pickle.dumps(numpy.random.Generator(bits))


@pytest.mark.skipif(not hasattr(numpy.random.Generator, "spawn"), reason="Generator.spawn came with NumPy 1.25")
def test_spawned_generators_are_ours() -> None:
    children = generator().spawn(2)
    assert all(type(child.bit_generator) is ours.BitGenerator for child in children)
    assert children[0].integers(0, 2**63) != children[1].integers(0, 2**63)


# What NumPy publishes of a bit generator: none of it may be constant, or the same in two processes.

OLDER_IDIOM = """
import numpy
from droppable import random

bits = random.BitGenerator(7)
for seeds in (bits.seed_seq, *bits.seed_seq.spawn(2), bits._seed_seq, *bits._seed_seq.spawn(1)[0].spawn(1)):
    print(numpy.random.default_rng(seeds).integers(2**63))
    print(numpy.random.Generator(numpy.random.MT19937(seeds)).integers(2**63))
    print(*seeds.generate_state(2), *seeds.generate_state(2, numpy.uint64))
"""


def test_the_older_way_to_spawn_gives_no_two_processes_the_same() -> None:
    numbers: list[str] = []
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", OLDER_IDIOM], capture_output=True, text=True, check=True)
        numbers += run.stdout.split()
    assert len(numbers) == 2 * 5 * 6
    assert len(set(numbers)) == len(numbers)  # 32-bit words among them: 10^-7 by chance


def forked(draw: Callable[[], bytes]) -> bytes:
    """What draw() gives in a forked child."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, draw())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        drawn = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return drawn


def test_seeds_held_over_a_fork_are_not_the_parents() -> None:
    seeds = ours.BitGenerator().seed_seq
    child = seeds.spawn(1)[0]

    def draw() -> bytes:
        rngs = [numpy.random.default_rng(seed) for seed in (seeds, child, *seeds.spawn(2), *child.spawn(2))]
        return b"".join(rng.bytes(16) for rng in rngs)

    texts = [forked(draw), forked(draw), draw()]
    blocks = [text[at : at + 16] for text in texts for at in range(0, len(text), 16)]
    assert len(set(blocks)) == len(blocks) == 18


def test_copies_and_pickles_of_seeds_are_fresh() -> None:
    seeds = ours.BitGenerator().seed_seq
    same = [seeds, copy.copy(seeds), copy.deepcopy(seeds), pickle.loads(pickle.dumps(seeds))]
    assert len({tuple(each.generate_state(4)) for each in same}) == 4
    pcg = numpy.random.PCG64(seeds)
    restored = pickle.loads(pickle.dumps(pcg))  # NumPy's own state is kept; what is spawned from it is not
    assert restored.random_raw() == pcg.random_raw()
    spawned = [bits.seed_seq.spawn(1)[0].generate_state(4) for bits in (pcg, restored)]
    assert (spawned[0] != spawned[1]).any()


def test_seeds_in_threads() -> None:
    seeds = ours.BitGenerator().seed_seq
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda _: tuple(seeds.spawn(1)[0].generate_state(4)), range(400)))
    assert len(set(states)) == 400


def test_seeds_have_nothing_that_repeats_them() -> None:
    seeds = ours.BitGenerator(5).seed_seq
    for name in ("entropy", "state"):
        with pytest.raises(NotImplementedError, match="kernel"):
            getattr(seeds, name)
    assert not hasattr(seeds, "spawn_key")
    assert seeds.generate_state(0).size == 0
    assert seeds.generate_state(3).dtype == numpy.uint32
    with pytest.raises(ValueError, match="uint32 or uint64"):
        seeds.generate_state(1, numpy.int64)


def test_what_numpy_publishes_of_it() -> None:
    bits = ours.BitGenerator()
    with pytest.raises(NotImplementedError):
        copy.copy(bits)
    for copier in (copy.deepcopy, pickle.dumps):
        for thing in (bits, numpy.random.Generator(bits), numpy.random.RandomState(bits)):
            with pytest.raises(NotImplementedError):
                copier(thing)
    with pytest.raises(NotImplementedError):
        numpy.random.RandomState(bits).get_state()
    assert not hasattr(bits, "jumped")
    assert not hasattr(bits, "_legacy_seeding")


def test_generator_keeps_the_block_alive() -> None:
    rngs = [generator() for _ in range(50)]
    assert len({int(rng.integers(0, 2**63)) for rng in rngs for _ in range(3000)}) == 150_000


def test_a_forked_child_draws_its_own() -> None:
    rng = generator()
    rng.random(10)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, rng.bytes(64))
        os._exit(0)
    os.close(writer)
    child = os.read(reader, 64)
    os.close(reader)
    assert os.waitpid(pid, 0)[1] == 0
    here = rng.bytes(64)
    words = [text[at : at + 8] for text in (child, here) for at in range(0, 64, 8)]
    assert len(set(words)) == 16
    assert bytes(8) not in words


def test_a_forked_child_draws_though_another_thread_was_drawing() -> None:
    """That thread holds NumPy's lock, and is not in the child."""
    rng = generator()
    with rng.bit_generator.lock:  # as a thread does that draws
        pid = os.fork()
        if pid == 0:
            got = rng.bit_generator.lock.acquire(timeout=10)
            os._exit(0 if got else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert rng.random() < 1


def test_made_a_second_time_it_goes_on() -> None:
    """A Generator keeps the pointers that it found: the first block has to stay."""
    rng = generator()
    first = {int(word) for word in rng.integers(0, 2**63, 10)}
    rng.bit_generator.__init__()
    again = numpy.random.Generator(rng.bit_generator)
    words = {int(word) for one in (rng, again) for word in one.integers(0, 2**63, 10_000)}
    assert len(words | first) == 20_010


if suite_missing:

    def test_numpy_suite() -> None:
        pytest.skip(suite_missing)

else:

    class Stateless(ours.BitGenerator):
        """Ours, but a test that wants to compare or restore states is skipped instead of failed."""

        @property
        def state(self) -> Any:
            pytest.skip("NumPy's test compares states of the generator; ours has none to show")

        @state.setter
        def state(self, value: object) -> None:
            pytest.skip("NumPy's test sets the state of the generator; ours has none")

        def __reduce__(self) -> Any:
            pytest.skip("NumPy's test pickles the generator; ours cannot be")

    class TestNumpySmoke(test_smoke.RNG):  # type: ignore[misc,unused-ignore]
        """NumPy runs this class once for each of its bit generators."""

        @classmethod
        def _create_rng(cls) -> Any:
            return RNGData(Stateless, None, [12345], numpy.random.Generator(Stateless()), 64)

    class TestNumpyIntegers(test_generator_mt19937.TestIntegers):  # type: ignore[misc,unused-ignore]
        rfunc = numpy.random.Generator(ours.BitGenerator()).integers

    class TestNumpyDirect(test_direct.Base):  # type: ignore[misc,unused-ignore]
        """NumPy runs this class too for each; the tests against a recorded stream have nothing to compare with."""

        @classmethod
        def setup_class(cls) -> None:
            super().setup_class()
            cls.bit_generator = Stateless
            cls.data1 = cls.data2 = {"seed": [0]}

        def no_known_stream(self) -> None:
            pytest.skip("NumPy's test compares with a recorded stream; ours never repeats")

        test_raw = test_gauss_inv = test_uniform_double = test_uniform_float = no_known_stream

        def test_pickle_preserves_seed_sequence(self) -> None:
            pytest.skip("NumPy's test pickles the generator; ours cannot be")
