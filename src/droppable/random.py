"""Random numbers of the kernel's quality without a system call: `secrets`, `SystemRandom` and `uuid4`, faster.

The names of `secrets` are here with the same meaning, so changing an import is enough::

    from droppable import random as secrets

Every byte comes from the kernel's generator: through the vDSO's `getrandom` where Linux offers that (x86-64 since 6.11,
arm64 since 6.12), from the system call `getrandom(2)` elsewhere. What the vDSO keeps between calls lies in droppable
memory: never in swap, in a core dump or in a forked child. If neither gives bytes, `OSError` is raised; there is no
weaker source to fall back on.

All functions may be called from any thread and after `fork`; no two of them ever give the same bytes. `BitGenerator`
(for `numpy.random.Generator`) is imported on first use, as it needs NumPy.
"""

import random as _standard
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from droppable import lowlevel
from droppable.lowlevel import random_fill as fill
from droppable.lowlevel import random_randbelow as randbelow
from droppable.lowlevel import random_randbits as randbits
from droppable.lowlevel import random_randbytes as randbytes
from droppable.lowlevel import random_random as random
from droppable.lowlevel import random_token_bytes as token_bytes
from droppable.lowlevel import random_token_hex as token_hex
from droppable.lowlevel import random_token_urlsafe as token_urlsafe
from droppable.lowlevel import random_uuid4 as uuid4

if TYPE_CHECKING:
    from hmac import compare_digest as compare_digest

    from droppable._random_numpy import BitGenerator as BitGenerator

__all__ = [
    "DEFAULT_ENTROPY",
    "Source",
    "SystemRandom",
    "choice",
    "compare_digest",
    "fill",
    "randbelow",
    "randbits",
    "randbytes",
    "random",
    "shuffle",
    "source",
    "token_bytes",
    "token_hex",
    "token_urlsafe",
    "uniform",
    "uuid4",
]

DEFAULT_ENTROPY = 32
"""Bytes of a token whose length is not given, as in `secrets`."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where this process's random bytes come from, as `source()` found it.

    Attributes:
        vdso: short requests (up to 256 bytes) make no system call.
        vdso_in_bulk: long requests make none either: measured once in the process, the vDSO was faster.
        reason: why `vdso` is false, else empty.
        state_bytes: size of one thread's state in droppable memory; 0 without vDSO.
        state_count: states made so far, in use or free. A page of them is made when all are in use, none is unmapped.
    """

    vdso: bool
    vdso_in_bulk: bool
    reason: str
    state_bytes: int
    state_count: int


def source() -> Source:
    """Tells whether the vDSO serves this process, and if not, why. Finds out if no call has needed it yet."""
    return Source(*lowlevel.random_describe())


class SystemRandom(_standard.Random):
    """`random.SystemRandom` with a fast source: the whole interface of `random.Random`, without a seed or a state.

    Safe to share between threads. A forked child draws other numbers than its parent.
    """

    # In C and without the instance: what they draw does not depend on it.
    random = staticmethod(lowlevel.random_random)
    getrandbits = staticmethod(lowlevel.random_randbits)
    randbytes = staticmethod(lowlevel.random_randbytes)
    _randbelow = staticmethod(lowlevel.random_randbelow)  # what random.Random's integer methods and choices call

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        """As `normalvariate`.

        The standard library's keeps every second number for the next call: in ordinary memory, where a forked child
        finds the same one, and where two threads can take it twice.
        """
        return self.normalvariate(mu, sigma)

    def seed(self, *args: object, **kwds: object) -> None:
        """Ignored: there is nothing to seed."""

    def getstate(self) -> NoReturn:
        """Raises NotImplementedError: the state is the kernel's."""
        raise NotImplementedError("the state of droppable.random is the kernel's; it cannot be read or pickled")

    def setstate(self, state: object) -> NoReturn:
        """Raises NotImplementedError: the state is the kernel's."""
        raise NotImplementedError("the state of droppable.random is the kernel's; it cannot be set")


_shared = SystemRandom()
choice = _shared.choice
shuffle = _shared.shuffle
uniform = _shared.uniform


def __getattr__(name: str) -> object:
    """Imports on first use what would make `import droppable.random` slow, or needs NumPy."""
    found: object
    if name == "compare_digest":
        from hmac import compare_digest as found
    elif name == "BitGenerator":
        try:
            from droppable._random_numpy import BitGenerator as found
        except ModuleNotFoundError as error:
            raise ImportError("droppable.random.BitGenerator needs NumPy: pip install numpy") from error
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found
