"""``python -m jobs``: the command line of a checkout that is not installed, as a submitted job is."""

from jobs.cli import main

main()
