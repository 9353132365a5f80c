"""The settings that hold up: the candidate whose worst condition has the best held-out macro recall.

Differences are paired by replicate; one smaller than its standard error is a tie, and the cheaper candidate wins it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from study import files
from study.config import Settings, StudyConfig, dump
from study.plan import Plan
from study.studies.choice import Choice, choice_of
from study.studies.search import Search
from study.trials import Result


def write_choice(
    config: StudyConfig, plan: Plan, results: Mapping[str, Result], search: Search | None = None
) -> tuple[Choice, Path]:
    """Choose, and write `best.yaml`, `best.csv` (the table) and `best.py` (a plain script) into the study's folder."""
    choice = choice_of(config, plan, results, search)
    path = config.directory / "best.yaml"
    files.write(path, yaml.safe_dump(best_config(config, choice), sort_keys=False, allow_unicode=True).encode())
    files.write(path.with_suffix(".csv"), choice.table.to_csv(index=False).encode())
    files.write(path.with_suffix(".py"), snippet(config, choice.settings).encode())
    return choice, path


def files_to_keep(config: StudyConfig, choice: Choice) -> tuple[dict[str, Path], list[str]]:
    """Return what belongs to the chosen settings: what `write_choice` wrote, and models that `transfer` made with them.

    Returns
    -------
    Files by the path that they get in a folder of their own, and the queries whose models are among them.
    """
    best = config.directory / "best.yaml"
    kept = {path.name: path for path in (best, best.with_suffix(".csv"), best.with_suffix(".py"))}
    queries = []
    for folder in _transferred(config, choice):
        queries.append(folder.name)
        models = sorted(path for kind in ("scvi_model", "scanvi_model") for path in (folder / kind).glob("*"))
        for path in (*models, *sorted(folder.glob("confusion_*.csv")), folder / "config.yaml"):
            kept[f"models/{folder.name}/{path.relative_to(folder)}"] = path
    return kept, queries


def _transferred(config: StudyConfig, choice: Choice) -> list[Path]:
    """Return the folders of `transfer` whose models have the chosen settings and this data."""
    wanted = {"data": dump(config)["data"], **{kind: dump(choice.settings)[kind] for kind in ("scvi", "scanvi")}}
    found = []
    for path in sorted((config.directory / "transfer").glob("*/config.yaml")):
        made = yaml.safe_load(path.read_text(encoding="utf-8"))
        if all(made.get(key) == value for key, value in wanted.items()):
            found.append(path.parent)
    return found


def best_config(config: StudyConfig, choice: Choice) -> dict[str, Any]:
    """Return the whole configuration with the chosen settings, and what they were chosen from, for `best.yaml`."""
    values = dump(config)
    chosen = dump(choice.settings)
    values |= {"scvi": chosen["scvi"], "scanvi": chosen["scanvi"], "budget": "epochs"}
    parameters = choice.table.columns[1 : list(choice.table.columns).index("worst condition")]
    winner = choice.table[choice.table.chosen].iloc[0]
    runners = choice.table[~choice.table.chosen].head(3)
    values["chosen"] = {
        "study": config.name,
        "reason": choice.reason,
        "settings": {name: _plain(winner[name]) for name in parameters},
        "over": [
            {**{name: _plain(row[name]) for name in parameters}, "recall there": round(float(row["recall there"]), 4)}
            for _, row in runners.iterrows()
        ],
    }
    return values


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def snippet(config: StudyConfig, settings: Settings) -> str:
    """Return the chosen settings as a plain scvi-tools script, without this package."""
    scvi, scanvi = settings.scvi, settings.scanvi
    norms = {"batch": ("both", "none"), "layer": ("none", "both"), "none": ("none", "none")}[scvi.norm]
    samples = None if scanvi.n_samples_per_label == "all" else scanvi.n_samples_per_label
    references = config.data.reference_value
    values = [references] if isinstance(references, str) else list(references)
    return f'''"""Label transfer with scvi-tools alone; settings chosen by the study {config.name!r}."""

import anndata
import scvi

scvi.settings.seed = 0
adata = anndata.read_h5ad({str(config.data.path or "joint.h5ad")!r})  # reference and query, raw counts
is_reference = adata.obs[{config.data.dataset_key!r}].astype(str).isin({values!r})
adata.obs["label"] = adata.obs[{config.data.labels_key!r}].astype(str).where(is_reference, "Unknown")

scvi.model.SCVI.setup_anndata(adata, layer={config.data.layer!r}, batch_key={config.data.batch_key!r})
vae = scvi.model.SCVI(
    adata,
    n_layers={scvi.n_layers},
    n_latent={scvi.n_latent},
    n_hidden={scvi.n_hidden},
    dropout_rate={scvi.dropout_rate},
    gene_likelihood={scvi.gene_likelihood!r},
    dispersion={scvi.dispersion!r},
    use_batch_norm={norms[0]!r},
    use_layer_norm={norms[1]!r},{_extra(scvi.extra)}
)
vae.train(max_epochs={scvi.max_epochs}, train_size=1.0, batch_size={scvi.batch_size})

scvi.settings.seed = 0
lvae = scvi.model.SCANVI.from_scvi_model(
    vae,
    unlabeled_category="Unknown",
    labels_key="label",
    linear_classifier={scanvi.linear_classifier},{_extra(scanvi.extra)}
)
lvae.train(
    max_epochs={scanvi.max_epochs},
    n_samples_per_label={samples},
    train_size=1.0,
    batch_size={scvi.batch_size},
    plan_kwargs={{"classification_ratio": {scanvi.classification_ratio}}},
)
soft = lvae.predict(soft=True)
adata.obs["predicted"], adata.obs["confidence"] = soft.idxmax(axis=1), soft.max(axis=1)
'''


def _extra(extra: Mapping[str, Any]) -> str:
    parts = []
    for name, value in extra.items():
        shown = f"__import__('torch').nn.functional.{value}" if name == "var_activation" else repr(value)
        parts.append(f"\n    {name}={shown},")
    return "".join(parts)
