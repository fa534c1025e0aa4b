"""The bit generator for NumPy; `droppable.random` imports this on the first use of `BitGenerator`."""

import os
import weakref
from typing import Any, NoReturn

import numpy.random
import numpy.typing
from numpy.random.bit_generator import ISpawnableSeedSequence

from droppable import lowlevel


class FreshSeeds(ISpawnableSeedSequence):
    """What `BitGenerator.seed_seq` publishes: a NumPy seed sequence whose every word comes from the kernel, once.

    Code that spawns in NumPy's older idiom (`generator.bit_generator.seed_seq.spawn(n)`) seeds other generators from
    it. It has no state, so no two calls, threads or processes ever get the same words, also after a fork or from a
    copy. For the same reason nothing seeded by it can be repeated.
    """

    def generate_state(self, n_words: int, dtype: numpy.typing.DTypeLike = numpy.uint32) -> Any:
        """Returns an array of n_words new random words, of uint32 or uint64."""
        word = numpy.dtype(dtype)
        if word not in (numpy.dtype(numpy.uint32), numpy.dtype(numpy.uint64)):
            raise ValueError(f"dtype must be uint32 or uint64, as for numpy.random.SeedSequence; you gave {dtype!r}")
        words = numpy.empty(n_words, word)
        if n_words:
            lowlevel.random_fill(words.data)
        return words

    def spawn(self, n_children: int) -> "list[FreshSeeds]":  # type: ignore[override,unused-ignore]
        """Returns n_children sequences that are independent of one another, as all of them are."""
        return [type(self)() for _ in range(n_children)]

    @property
    def entropy(self) -> NoReturn:
        """Raises NotImplementedError: there is no number from which the words could be made again."""
        raise NotImplementedError(
            "the seeds of droppable.random come from the kernel, each once; there is no entropy to note"
        )

    @property
    def state(self) -> NoReturn:
        """Raises NotImplementedError: see `entropy`."""
        raise NotImplementedError("the seeds of droppable.random come from the kernel, each once; there is no state")


_alive: weakref.WeakSet["BitGenerator"] = weakref.WeakSet()


def _free_locks() -> None:
    # In a forked child nobody is left to release what another thread held. NumPy's lock, so nothing here owns it.
    for generator in list(_alive):
        lock: Any = generator.lock
        lock._at_fork_reinit()


os.register_at_fork(after_in_child=_free_locks)


class BitGenerator(numpy.random.BitGenerator):
    """Cryptographic random bits for `numpy.random.Generator`.

    The numbers wait in a block of 16 KiB that is private to this object, wiped word by word as they are handed out,
    wiped in a forked child (which fills its own) and left out of core dumps. Threads may share one: `Generator` holds
    its lock, which is free in a forked child. There is no seed and no state: a stream cannot be repeated, pickled or
    copied.

    Should the kernel refuse random bytes after it gave some (a system call filter put on later), the process is
    aborted: NumPy has no way to report it, and no weaker number is ever handed out.

    Args:
        seed: ignored, as by `random.SystemRandom`.

    Raises:
        UnsupportedError: this kernel cannot wipe memory on fork (Linux before 4.14).
        OSError: the kernel gives no random bytes.
    """

    def __init__(self, seed: object = None) -> None:
        seeds: Any = FreshSeeds()
        super().__init__(seeds)  # published as seed_seq; our own numbers do not come from it
        # A Generator copies the pointers to the block that it finds: each lives as long as this object.
        blocks: list[object] = vars(self).setdefault("_blocks", [])
        blocks.append(lowlevel.random_install_block(self.capsule))
        _alive.add(self)

    @property
    def state(self) -> NoReturn:
        """Raises NotImplementedError: the state is the kernel's."""
        raise NotImplementedError("the state of droppable.random is the kernel's; it cannot be read or set")

    @state.setter
    def state(self, value: object) -> NoReturn:
        raise NotImplementedError("the state of droppable.random is the kernel's; it cannot be read or set")

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("droppable.random.BitGenerator cannot be pickled or copied: it has no state to keep")

    def spawn(self, n_children: int) -> "list[BitGenerator]":
        """Makes n_children further generators; all of them are independent anyway."""
        return [type(self)() for _ in range(n_children)]
