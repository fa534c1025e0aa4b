"""`python -m droppable`: the command line, for where its script is not on the PATH."""

from droppable.cli import main

raise SystemExit(main())
