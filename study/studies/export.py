"""What was chosen, as files: a configuration that `transfer` takes, and a plain script for scvi-tools alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import scipy.sparse as sp
import yaml
from anndata import AnnData
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from study import files
from study.cells import (
    GENES_TO_TELL,
    ROUNDING,
    Findings,
    plain_queries,
    read_sheets,
    reference_values,
    said_names,
    source_files,
)
from study.config import DataConfig, ScanviSettings, ScviSettings, Settings, StudyConfig, dump
from study.studies.choice import Choice, choice_of
from study.studies.study import Study, largest_condition, steps_of
from study.training import scanvi_arguments, scvi_arguments
from study.trials import Result


def write_choice(study: Study, results: Mapping[str, Result]) -> tuple[Choice, Path]:
    """Choose, and write `best.yaml`, `best.csv` (the table) and `best.py` (a plain script) into the study's folder.

    Where the cells are in no file of the user's, the script gets one beside it, `best.h5ad`.
    """
    config = study.config
    choice = choice_of(study, results)
    largest = largest_condition(config, study.queries, study.cells)
    queries = plain_queries(config.data)
    path = config.directory / "best.yaml"
    if not source_files(config.data):
        _write_cells(config.data, path.with_suffix(".h5ad"))
    files.write(path, yaml.safe_dump(best_config(config, choice), sort_keys=False, allow_unicode=True).encode())
    files.write(path.with_suffix(".csv"), choice.table.to_csv(index=False).encode())
    script = render_script(config.name, config.data, choice.settings, queries, largest)
    files.write(path.with_suffix(".py"), script.encode())
    return choice, path


def files_to_keep(config: StudyConfig, choice: Choice) -> tuple[dict[str, Path], list[str]]:
    """Return what belongs to the chosen settings: what `write_choice` wrote, and models that `transfer` made with them.

    Returns
    -------
    Files by the path that they get in a folder of their own, and the queries whose models are among them.
    """
    best = config.directory / "best.yaml"
    kept = {path.name: path for path in (best, *map(best.with_suffix, (".csv", ".py", ".h5ad"))) if path.exists()}
    queries = []
    for query, folder in _transferred(config, choice):
        queries.append(query)
        models = sorted(path for kind in ("scvi_model", "scanvi_model") for path in (folder / kind).glob("*"))
        for path in (*models, *sorted(folder.glob("confusion_*.csv")), folder / "config.yaml"):
            kept[f"models/{folder.name}/{path.relative_to(folder)}"] = path
    return kept, queries


def _transferred(config: StudyConfig, choice: Choice) -> list[tuple[str, Path]]:
    """Return the folders of `transfer` whose models have the chosen settings and this data, with their queries."""
    wanted = {
        "data": dump(config)["data"],
        **{kind: dump(choice.settings)[kind] for kind in ("scvi", "scanvi", "budget")},
    }
    found = []
    for path in sorted((config.directory / "transfer").glob("*/config.yaml")):
        made = yaml.safe_load(path.read_text(encoding="utf-8"))
        if all(made.get(key) == value for key, value in wanted.items()):
            found.append((made["query"] or path.parent.name, path.parent))
    return found


def best_config(config: StudyConfig, choice: Choice) -> dict[str, Any]:
    """Return the whole configuration with the chosen settings, and what they were chosen from, for `best.yaml`."""
    values = dump(config)
    chosen = dump(choice.settings)
    values |= {name: chosen[name] for name in ("scvi", "scanvi", "budget")}
    values["chosen"] = {
        "study": config.name,
        "reason": choice.reason,
        "settings": dict(choice.levels),
        "over": [{**dict(levels), "recall there": round(recall, 4)} for levels, recall in choice.others[:3]],
    }
    return values


def render_script(
    study: str, data: DataConfig, settings: Settings, queries: Mapping[str, Sequence[str]], largest: int
) -> str:
    """Return settings as a plain scvi-tools script, without this package, that trains as a study does.

    Parameters
    ----------
    study
        Name of the study that chose them.
    data
        Where the cells are, and what their columns are called.
    settings
        What was chosen.
    queries
        Which datasets each query is made of; the first is the one that the script labels as it is written.
    largest
        Cells of the study's largest condition, whose optimiser steps are matched with `budget: steps`.
    """
    scvi, scanvi = settings.scvi, settings.scanvi
    surgery = scanvi.protocol == "surgery"
    steps = steps_of(largest, scvi.batch_size) if settings.budget == "steps" and not surgery else 0
    arguments = [scvi_arguments(scvi), scanvi_arguments(scanvi)]

    def epochs(stage: ScviSettings | ScanviSettings) -> str:
        return f"max(1, round({stage.max_epochs} * ratio))" if steps else str(stage.max_epochs)

    return _template().render(
        study=study,
        **_cells(data, queries),
        scvi=scvi,
        scanvi=scanvi,
        surgery=surgery,
        steps=steps,
        epochs=epochs,
        samples=None if scanvi.n_samples_per_label == "all" else scanvi.n_samples_per_label,
        activation=any("var_activation" in found for found in arguments),
        scvi_arguments=[(name, _argument(name, value)) for name, value in arguments[0].items()],
        scanvi_arguments=[(name, _argument(name, value)) for name, value in arguments[1].items()],
    )


def _cells(data: DataConfig, queries: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What the script must know to read the cells as a study does."""
    paths = source_files(data)
    named = data.source == "separate" or isinstance(data.path, dict)
    return {
        "data": data,
        "files": [(str(path), name if named else None) for name, path in paths.items()],
        "kept": not paths,
        "several": len(paths) > 1,
        "named": named,
        "layer": data.layer if paths else None,
        "references": list(reference_values(data)),
        "queries": {name: list(values) for name, values in queries.items()},
        "first": next(iter(queries)),
        "said": list(dict.fromkeys([*said_names(data), *(value for of in queries.values() for value in of)])),
        "put_together": {label: name for name, labels in data.labels.items() for label in labels},
        "rounding": ROUNDING,
        "genes_to_tell": GENES_TO_TELL,
    }


def _write_cells(data: DataConfig, path: Path) -> None:
    """Write the cells of a source that is no file: all of them, with the columns that the study uses."""
    (sheet,) = read_sheets(data, Findings())
    keys = dict.fromkeys(key for key in (data.dataset_key, data.labels_key, data.batch_key) if key is not None)
    cells = AnnData(sp.vstack(list(sheet.matrix)), obs=sheet.obs[list(keys)], var=pd.DataFrame(index=sheet.genes))
    with files.writing(path) as aside:
        cells.write_h5ad(aside, compression="gzip")


def _argument(name: str, value: Any) -> str:
    """Return a value as Python; activations are functions of torch."""
    return f"torch.nn.functional.{value}" if name == "var_activation" else repr(value)


def _template() -> Template:
    """Undefined names are errors. What is written is Python, so nothing is escaped but by `repr`."""
    made = Environment(
        loader=PackageLoader("study.studies", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["python"] = repr
    return made.get_template("best.py.j2")
