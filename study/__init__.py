"""Why does scANVI label transfer give different answers? A study that tells.

In a notebook: `study.run` trains and reads a study, `study.load` reads one, `study.compose` makes a configuration;
`study.diagnose` looks at runs that were made elsewhere; `study.compare` tells two studies of one design apart.

The README shows the modules in the order in which the data flows; a module imports only modules before it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `import study` takes no time; what it needs is imported when it is called
    from pathlib import Path

    from study.commands import Comparison, StudyResults
    from study.config import StudyConfig
    from study.diagnosis import Diagnosis

__all__ = ["compare", "compose", "diagnose", "load", "run"]

# MLflow and Ray would report their use over the network. Nothing leaves the machine unless the user says so.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

__version__ = "0.2.0"


def load(name: str, root: str | Path = "studies") -> StudyResults:
    """Read what is finished of a study from its folder. Nothing is trained.

    Parameters
    ----------
    name
        Name of the study.
    root
        The folder that holds a folder per study. The data may be gone: the study has kept its cells.

    Raises
    ------
    InputError
        If there is no such study, or neither its data nor its cells can be used any more.
    """
    from study.commands import load_results

    return load_results(name, root)


def run(config: StudyConfig | Sequence[str] = ()) -> StudyResults:
    """Train what is missing of a study, show how far it is, and read it. The same call again goes on.

    Parameters
    ----------
    config
        A configuration, or overrides as on the command line: ``["data=simulated", "scvi.max_epochs=20"]``.

    Raises
    ------
    InputError
        If the configuration or data cannot be used, or another run of this study is going on.
    files.WritingError
        If something cannot be written; what is finished is kept.
    """
    from study.commands import run_results

    return run_results(config)


def diagnose(
    runs: Sequence[str | Path], overrides: Sequence[str] = (), *, predict: bool = False, trust_pickle: bool = False
) -> Diagnosis:
    """Look at finished runs: what is wrong in them, and what they can say together. Nothing is trained.

    Parameters
    ----------
    runs
        Folders of saved models; or one table of runs (``["runs.csv"]``), or one experiment (``["mlflow:NAME"]``).
    overrides
        What names the data: ``["data=forum", "data.path=tau.h5ad"]``.
    predict
        Whether to ask the models, instead of reading what they predicted.
    trust_pickle
        Whether to load models that hold more than data: their file can run anything.

    Raises
    ------
    InputError
        If there is nothing to look at, or something cannot be read.
    """
    from study.commands import Asked, make_diagnosis

    return make_diagnosis(Asked.of([*map(str, runs), *overrides]), trust_pickle, predict)


def compare(a: str | Path, b: str | Path, *, margin: float = 3.0) -> Comparison:
    """Compare two studies of one design that were run with other versions: is it more than training again would give.

    Parameters
    ----------
    a, b
        Their folders.
    margin
        In points. A class that is not found to differ is only called the same if its 95% interval lies within.

    Raises
    ------
    InputError
        If a folder is no study or has no results, the designs are not the same, or fewer than two replicates pair.
    """
    from study.commands import make_comparison

    return make_comparison(a, b, margin)


def compose(overrides: Sequence[str] = ()) -> StudyConfig:
    """Return the validated configuration that some overrides give; `conf/` is read as on the command line.

    Raises
    ------
    InputError
        With one message that names the key, what was found and what is expected.
    """
    from study.config import compose as composed

    return composed(overrides)
