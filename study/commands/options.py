"""What a command line may say beside its overrides."""

from __future__ import annotations

from pathlib import Path
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
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, all else on standard error.")]
Pilot = Annotated[str | None, typer.Option("--pilot", help="Take chance from this earlier study.")]
Calibrate = Annotated[bool, typer.Option("--calibrate", help="Train some steps to tell how long a run takes.")]
Detach = Annotated[bool, typer.Option("--detach", help="In the background: it goes on when you log out.")]
Registered = Annotated[
    bool, typer.Option("--register", help="Put them, and the models of transfer, into MLflow's registry as 'best'.")
]
Config = Annotated[Path | None, typer.Option("--config", help="A whole configuration, such as best.yaml.")]
Into = Annotated[
    list[Path] | None,
    typer.Option(
        "--into", metavar="H5AD", help="Copy this file, one of the data's, with the labels in it. Repeatable."
    ),
]
