"""The command line: `droppable doctor` and `droppable run`. Each command is a file, and `_main` reads the arguments."""

from droppable.cli._main import main as main
