"""The command line: `droppable doctor`, `run`, `serve` and `top`. Each command is a file; `_main` reads arguments."""

from droppable.cli._main import main as main
