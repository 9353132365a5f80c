"""What a command line may say beside its overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from study.config import completions
from study.versions import versions


def examples(*commands: str) -> str:
    """Commands to try, below the help of one."""
    return "\n\n".join(f"[dim]$[/] {escape(command)}" for command in commands)


def _tell(wanted: bool) -> None:
    if wanted:
        for name, value in versions().items():
            print(name, value)
        raise typer.Exit


Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="e.g. data=forum scvi.n_latent=30", autocompletion=completions),
]
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
Consensus = Annotated[
    bool, typer.Option("--consensus", help="What the trainings of the study say together: nothing is trained.")
]
Unknown = Annotated[
    float | None,
    typer.Option("--unknown", metavar="SHARE", help="Of the reference cells that may be taken for new. [0.05]"),
]
Runs = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN... [KEY=VALUE]...", help="folders of saved models, runs.csv, or mlflow:EXPERIMENT"),
]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Load models that hold more than data: their file can run anything.")
]
Predict = Annotated[bool, typer.Option("--predict", help="Ask the models, instead of reading what they predicted.")]
OutcomeColumns = Annotated[
    list[str] | None, typer.Option("--outcome", metavar="COLUMN", help="This column was measured. Repeatable.")
]
Reported = Annotated[
    list[str] | None,
    typer.Option("--reported", metavar="CLASS=FIGURE", help="A figure to find again, as in 'B cell=0.98'. Repeatable."),
]
Folder = Annotated[Path, typer.Argument(help="Folder of a study, such as studies/my-study.")]
Margin = Annotated[
    float,
    typer.Option("--margin", metavar="POINTS", help="A class that may differ by more is not known to be the same."),
]
Page = Annotated[Path, typer.Option("--page", metavar="HTML", help="Where to write the page.")]
CheckPage = Annotated[
    Path | None, typer.Option("--page", metavar="HTML", help="Where to write the page. [check.html of the study]")
]
OpenPage = Annotated[bool, typer.Option("--open", help="Open the trials of this study in a browser.")]
Into = Annotated[
    list[Path] | None,
    typer.Option(
        "--into", metavar="H5AD", help="Copy this file, one of the data's, with the labels in it. Repeatable."
    ),
]
