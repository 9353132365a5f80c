"""The commands. No logic: each composes the configuration, calls one module, and prints what it returns."""

from __future__ import annotations

import logging
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from study.commands.facts import analysis_facts, outcome_facts, plan_facts
from study.commands.folder import make_folder
from study.commands.options import (
    Calibrate,
    CheckPage,
    Config,
    Consensus,
    Debug,
    Detach,
    Folder,
    Into,
    Json,
    Margin,
    OpenPage,
    OutcomeColumns,
    Overrides,
    Page,
    Pilot,
    Predict,
    Registered,
    Reported,
    Runs,
    TrustPickle,
    Unknown,
    Versions,
    examples,
)
from study.commands.progress import progress
from study.commands.refusal import nothing_left_if_refused
from study.commands.terminal import (
    console,
    print_json,
    show_analysis,
    show_frames,
    show_notes,
    show_outcome,
    show_plan,
    show_precision,
    show_prediction,
    show_status,
)
from study.config import compose, load
from study.errors import InputError
from study.imports import uncollected

app = typer.Typer(
    name="scanvi-study",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Why does scANVI label transfer give different answers? A setting, the data, or chance?\n\n"
    "Every command takes overrides in Hydra's syntax: "
    "[bold]scanvi-study run data=forum data.path=tau.h5ad space=forum scvi.max_epochs=400[/]",
)


@app.callback()
def _options(debug: Debug = False, version: Versions = False) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)


@app.command(epilog=examples("scanvi-study init my-study && cd my-study"))
def init(directory: Annotated[Path, typer.Argument(help="A new folder for your study.")]) -> None:
    """Make a folder with conf/ and search_spaces/ to edit."""
    make_folder(directory)
    to = console()
    to.print(f"Made {directory}/conf and {directory}/search_spaces: what a study is made of, and what varies.")
    to.print(f"Next: cd {directory} && scanvi-study check data=forum data.path=YOUR.h5ad", markup=False)


@app.command(
    epilog=examples(
        "scanvi-study check data=forum data.path=tau.h5ad",
        "scanvi-study check data=separate data.reference=ref.h5ad 'data.query_paths={a: a.h5ad, b: b.h5ad}'",
    )
)
def check(overrides: Overrides = None, page: CheckPage = None, as_json: Json = False) -> None:
    """Is this data fit to study? Counts, labels, genes, depth and make-up of reference and queries."""
    from study.commands.checking import check_and_show

    to = console(as_json)
    report, path = check_and_show(to, compose(overrides or []), page)
    print_json(as_json, report.to_json() | {"page": str(path) if path else None})
    if report.problems:
        raise InputError("\n".join(report.problems))
    to.print(f"Page: {path}", markup=False, soft_wrap=True)
    to.print("The data can be studied. Next: scanvi-study plan, with the same overrides")


@app.command(
    epilog=examples(
        "scanvi-study plan space=forum space.replicates=5",
        "scanvi-study plan --pilot my-first-study",
        "scanvi-study plan --calibrate resources=gpu_node",
    )
)
def plan(overrides: Overrides = None, as_json: Json = False, pilot: Pilot = None, calibrate: Calibrate = False) -> None:
    """What a study will train and share, how long that takes, how sharp it will be. Trains nothing of it."""
    from study.commands.foresight import expect, foresee
    from study.studies import most_of, open_study

    config = compose(overrides or [])
    with nothing_left_if_refused(config.directory) as wrote:
        study = most_of(open_study(config, wrote))
        precision = expect(study, pilot) if config.space.design == "factorial" else None
    to = console(as_json)
    show_plan(to, study)
    if calibrate:
        to.print("Calibrating: some steps of this study are trained and timed; nothing of it is kept.")
    prediction = foresee(study, calibrate)
    show_prediction(to, study, prediction)
    if precision is not None:
        show_precision(to, study, precision)
    print_json(as_json, plan_facts(study.plan, precision, prediction))


@app.command(
    epilog=examples(
        "scanvi-study run data=forum data.path=tau.h5ad space=forum",
        "scanvi-study run space.replicates=9    (only the new replicates are trained)",
        "scanvi-study run --detach",
    )
)
def run(overrides: Overrides = None, as_json: Json = False, detach: Detach = False) -> None:
    """Train what is missing, then say what explains the differences. The same command again goes on."""
    config = compose(overrides or [])
    if detach:
        from study.commands.detach import start_detached

        start_detached(config, overrides or [], as_json)
        return
    with uncollected():
        from study.commands.pipeline import run_study

    to = console(as_json)
    with progress(to) as show:
        outcome = run_study(config, show, _command(overrides))
    show_outcome(to, outcome)
    print_json(as_json, outcome_facts(outcome))
    if not outcome.complete or outcome.behind:
        raise typer.Exit(1)


@app.command(epilog=examples("scanvi-study status", "scanvi-study status --json name=my-study"))
def status(overrides: Overrides = None, as_json: Json = False) -> None:
    """Tell how far a study is, and whether its run still goes on."""
    from study.sweep import status_of

    found = status_of(compose(overrides or []).directory)
    show_status(console(as_json), found)
    print_json(as_json, found.facts())


@app.command(epilog=examples("scanvi-study report", "scanvi-study report --json | jq .verdicts"))
def report(overrides: Overrides = None, as_json: Json = False) -> None:
    """Attribute what is finished so far and write the report again."""
    from study.report import analyse, read_some, write_report
    from study.studies import open_study

    config = compose(overrides or [])
    with nothing_left_if_refused(config.directory) as wrote:
        study = open_study(config, wrote)
        analysis = analyse(study, read_some(study))
        page = write_report(study, analysis, _command(overrides))
    to = console(as_json)
    show_analysis(to, analysis, page)
    print_json(as_json, analysis_facts(analysis, page))


@app.command(epilog=examples("scanvi-study export", "scanvi-study export --register"))
def export(overrides: Overrides = None, registered: Registered = False) -> None:
    """Choose the settings whose worst condition is best; write best.yaml, the table, and a plain script."""
    from study.report import whole_results
    from study.studies import open_study, write_choice

    config = compose(overrides or [])
    with nothing_left_if_refused(config.directory) as wrote:
        study = open_study(config, wrote)
        results = whole_results(study)
        registry = None
        if registered:  # before anything is written: it may be refused
            from study.commands.registering import registry_of

            registry = registry_of(study)
        choice, path = write_choice(study, results)
    to = console()
    show_frames(to, [("candidates, best first", choice.table)])
    to.print(f"Chosen: {choice.reason}.", markup=False)
    to.print(f"Wrote {path}. Next: scanvi-study transfer --config {path}", markup=False, soft_wrap=True)
    if registry is not None:
        from study.commands.registering import register_choice

        version, queries = register_choice(registry, choice)
        models = f"models of {', '.join(queries)}" if queries else "no models yet: transfer, then register again"
        to.print(f"MLflow: models:/{config.name}@best is version {version} ({models}).", markup=False)


@app.command(
    epilog=examples(
        "scanvi-study transfer --config studies/my-study/best.yaml",
        "scanvi-study transfer --config studies/my-study/best.yaml --into query.h5ad resources=gpu_node",
        "scanvi-study transfer --consensus",
    )
)
def transfer(
    overrides: Overrides = None,
    config: Config = None,
    into: Into = None,
    consensus: Consensus = False,
    unknown: Unknown = None,
) -> None:
    """Transfer the labels with the settings of best.yaml (or any), on all labelled cells."""
    from study.studies import label_all, transfer_all

    changes = overrides or []
    study = load(config, changes) if config else compose(changes)
    to = console()
    with nothing_left_if_refused(study.directory) as wrote:
        say = partial(to.print, markup=False, soft_wrap=True)
        for path in (label_all if consensus else transfer_all)(study, say, wrote, into or (), unknown):
            to.print(f"Wrote {path}", markup=False, soft_wrap=True)


@app.command(
    epilog=examples(
        "scanvi-study diagnose t1/scanvi_model t2/scanvi_model data=forum 'data.path=[t1/tau.h5ad,t2/tau.h5ad]'",
        "scanvi-study diagnose runs.csv",
        "scanvi-study diagnose mlflow:my-experiment tracking.uri=http://tracking:5000",
    )
)
def diagnose(
    runs: Runs = None,
    outcome: OutcomeColumns = None,
    reported: Reported = None,
    predict: Predict = False,
    trust_pickle: TrustPickle = False,
    page: Page = Path("diagnosis.html"),
    as_json: Json = False,
) -> None:
    """What finished runs tell: what is wrong in them, the honest number, what they can say together. Trains nothing."""
    from study.commands.diagnose import Asked, figures, make_diagnosis, show_diagnosis, write_page

    found = make_diagnosis(Asked.of(runs or [], outcome or []), trust_pickle, predict)
    said = figures(found, reported or [])
    show_diagnosis(console(as_json), found, write_page(found, page), said)
    print_json(as_json, {**found.to_json(), "reported": said})


@app.command(epilog=examples("scanvi-study compare studies/before studies/after"))
def compare(a: Folder, b: Folder, margin: Margin = 3.0, as_json: Json = False) -> None:
    """Do two studies of one design differ by more than chance? Exit code 0: no; 3: yes; 1: it cannot be told."""
    from study.commands.compare import make_comparison, show_comparison

    found = make_comparison(a, b, margin)
    show_comparison(console(as_json), found)
    print_json(as_json, found.to_json())
    if found.code:
        raise typer.Exit(found.code)


@app.command(epilog=examples("scanvi-study ui --open", "scanvi-study ui tracking.port=5001"))
def ui(overrides: Overrides = None, open_page: OpenPage = False) -> None:
    """Serve MLflow on this machine (127.0.0.1), with a view of the trials of this study."""
    from study.tracking import serve

    if serve(compose(overrides or []), open_page):
        raise typer.Exit(1)


@app.command(epilog=examples("scanvi-study sync tracking=server tracking.uri=http://tracking:5000"))
def sync(overrides: Overrides = None) -> None:
    """Rebuild a study's MLflow experiment from its results."""
    from study.commands.pipeline import sync_study

    finished, behind = sync_study(compose(overrides or []))
    to = console()
    if behind:
        show_notes(to, "MLflow is behind", [f"{behind}. The results are whole; run this again once it takes them."])
        raise typer.Exit(1)
    to.print(f"MLflow shows {finished} finished trials.")


def _command(overrides: list[str] | None) -> str:
    return shlex.join(["scanvi-study", "run", *(overrides or [])])
