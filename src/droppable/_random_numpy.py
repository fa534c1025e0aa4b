"""The bit generator for NumPy; `droppable.random` imports this on the first use of `BitGenerator`."""

from typing import NoReturn

import numpy.random

from droppable import lowlevel


class BitGenerator(numpy.random.BitGenerator):
    """Cryptographic random bits for `numpy.random.Generator`.

    The numbers wait in a block of 16 KiB that is private to this object, wiped word by word as they are handed out,
    wiped in a forked child (which fills its own) and left out of core dumps. Threads may share one: `Generator` holds
    its lock. There is no seed and no state: a stream cannot be repeated, pickled or copied.

    Should the kernel refuse random bytes after it gave some (a system call filter put on later), the process is
    aborted: NumPy has no way to report it, and no weaker number is ever handed out.

    Args:
        seed: ignored, as by `random.SystemRandom`.

    Raises:
        UnsupportedError: this kernel cannot wipe memory on fork (Linux before 4.14).
        OSError: the kernel gives no random bytes.
    """

    def __init__(self, seed: object = None) -> None:
        super().__init__(0)  # what NumPy wants to seed with; nothing reads it
        self._block = lowlevel.random_install_block(self.capsule)

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
