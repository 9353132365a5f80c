"""`python -m study` is `scanvi-study`."""

from study.cli import main

main()
