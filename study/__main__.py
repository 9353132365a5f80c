"""`python -m study` is `scanvi-study`."""

from study.commands import main

main()
