"""``python -m jobs``: the command line, for ``ray job submit``."""

from jobs.cli import main

main()
