"""What every command line may begin with."""

from __future__ import annotations

from typing import Annotated

import typer

from study.versions import versions


def _tell(wanted: bool) -> None:
    if wanted:
        for name, value in versions().items():
            print(name, value)
        raise typer.Exit


Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Versions = Annotated[
    bool, typer.Option("--version", callback=_tell, is_eager=True, help="Versions of all that results depend on.")
]
