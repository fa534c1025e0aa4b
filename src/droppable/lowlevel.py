"""The C core as Python sees it: the only module that imports the binding `_core`."""

from dataclasses import dataclass

from droppable._supported import unsupported

try:
    from droppable import _core
except ImportError as error:  # a subinterpreter with a GIL of its own; an installation for another Python
    raise unsupported(str(error)) from error

from droppable._core import Census as Census
from droppable._core import ClosedError as ClosedError
from droppable._core import DroppableError as DroppableError
from droppable._core import Dropped as Dropped
from droppable._core import EncodedKey as EncodedKey
from droppable._core import Headroom as Headroom
from droppable._core import Lease as Lease
from droppable._core import Mapping as Mapping
from droppable._core import RawRegion as RawRegion
from droppable._core import Reader as Reader
from droppable._core import RefusedError as RefusedError
from droppable._core import RegionHold as RegionHold
from droppable._core import UnpicklableError as UnpicklableError
from droppable._core import UnsupportedError as UnsupportedError
from droppable._core import ValueTooLargeError as ValueTooLargeError
from droppable._core import encode_key as encode_key
from droppable._core import exec_program as exec_program
from droppable._core import headroom as headroom
from droppable._core import new_scope as new_scope
from droppable._core import page_size_bytes as page_size_bytes
from droppable._core import probe as probe
from droppable._core import random_describe as random_describe
from droppable._core import random_fill as random_fill
from droppable._core import random_install_block as random_install_block
from droppable._core import random_randbelow as random_randbelow
from droppable._core import random_randbits as random_randbits
from droppable._core import random_randbytes as random_randbytes
from droppable._core import random_random as random_random
from droppable._core import random_token_bytes as random_token_bytes
from droppable._core import random_token_hex as random_token_hex
from droppable._core import random_token_urlsafe as random_token_urlsafe
from droppable._core import random_uuid4 as random_uuid4
from droppable._core import remember_dtype as remember_dtype
from droppable._core import shared_key as shared_key

CoreCache = _core.Cache
"""What `droppable.Cache` derives from."""


CoreMemo = _core.Memo
"""What `droppable.Memo` is."""

CoreBoundMemo = _core.BoundMemo
"""What a Memo is on an instance."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes inside a cache; 0 lets it choose.

    Several shards need a max_bytes of four segments for each of them, or none: ValueError.

    Attributes:
        shards: locks that share the keys, a power of two up to 64 (chosen: 1 or 2, without a GIL by memory up to 16).
        segment_bytes: a power of two up to 2 MiB, at least 8 pages: what is reused, and evicted under max_bytes, at
            once.
        span_bytes: address space for all segments (chosen: four times the memory limit, as it changes).
    """

    shards: int = 0
    segment_bytes: int = 0
    span_bytes: int = 0
