"""Caches of other libraries, kept in memory that the kernel may take back: one module for each library.

Nothing is imported here. `import droppable.adapters.django` needs Django, and so on; `docs/adapters.md` tells what each
library stores that must not be lost.
"""
