"""The C core as Python sees it: the only module that imports the binding `_core`."""

from droppable._core import Census as Census
from droppable._core import ClosedError as ClosedError
from droppable._core import DroppableError as DroppableError
from droppable._core import Dropped as Dropped
from droppable._core import Headroom as Headroom
from droppable._core import Mapping as Mapping
from droppable._core import RefusedError as RefusedError
from droppable._core import UnsupportedError as UnsupportedError
from droppable._core import ValueTooLargeError as ValueTooLargeError
from droppable._core import headroom as headroom
from droppable._core import page_size_bytes as page_size_bytes
from droppable._core import probe as probe
