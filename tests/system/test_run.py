"""The commands as a user meets them, on the real Ray and the real MLflow."""

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import mlflow
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml
from mlflow import MlflowClient
from scvi.model import SCANVI

from study.cells.sources import pbmc68k
from study.config.composition import compose
from study.trials.timing import read_timings
from tests.system.conftest import TINY, Workplace, install, kill_group, trials

TRIALS = 16


def test_a_finished_study_is_whole_in_mlflow_and_on_disk(finished: Workplace) -> None:
    runs = finished.runs()
    assert len(runs) == TRIALS
    assert {status for _, status in runs} == {"FINISHED"}
    assert {key for key, _ in runs} == trials(finished).keys()
    folder = finished.folder / "studies" / "pbmc68k-tiny"
    table = pd.read_csv(folder / "tables" / "trials.csv")
    assert len(table) == TRIALS
    assert set(table.groupby("replicate").fold.unique().map(tuple)) == {(0,), (1,)}
    assert (folder / "report.html").stat().st_size > 10_000
    means = table.filter(regex="^heldout/recall/").mean().round(2)
    said = json.loads((folder / "run.json").read_text())["account"]["classes"]
    for word, value in (("best", means.max()), ("worst", means.min())):
        names = [name.removeprefix("heldout/recall/") for name in means.index[means == value]]
        assert any(f"{word} {name} {value:.2f}" in said for name in names), said


def test_running_again_trains_nothing(finished: Workplace, tiny: Callable[..., list[str]]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished.folder / "studies").rglob("trials/*.json")}
    again = finished.call("run", *tiny(), "--json")
    facts = json.loads(again.stdout)
    assert (facts["already"], facts["trained"], facts["waiting"]) == (TRIALS, 0, 0)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert len(finished.runs()) == TRIALS


def test_extending_a_study_trains_only_what_is_new(workplace: Workplace, tiny: Callable[..., list[str]]) -> None:
    """One more replicate and one more level at once: the first run's trials and pretrainings are used again."""
    workplace.call("run", *tiny("space.replicates=1", "name=growing"))
    space = workplace.folder / "search_spaces" / "tiny.yaml"
    space.write_text(space.read_text().replace("[1, 3]", "[1, 3, 2]"))
    planned = json.loads(workplace.call("plan", *tiny("name=growing"), "--json").stdout)
    assert planned["trials"] == TRIALS * 3 // 2
    facts = json.loads(workplace.call("run", *tiny("name=growing"), "--json").stdout)
    assert (facts["already"], facts["trained"]) == (TRIALS // 2, TRIALS)
    assert {status for _, status in workplace.runs()} == {"FINISHED"}
    assert len(workplace.runs()) == TRIALS * 3 // 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_study_ends_as_an_uninterrupted_one(
    number: signal.Signals, workplace: Workplace, finished: Workplace, tiny: Callable[..., list[str]]
) -> None:
    process = workplace.start("run", *tiny())
    folder = workplace.folder / "studies" / "pbmc68k-tiny" / "trials"
    deadline = time.monotonic() + 200
    while len(list(folder.glob("*.json"))) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no trial was finished in time"
        time.sleep(0.05)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=120)
    kill_group(process)
    if number == signal.SIGINT:
        assert process.returncode == 1, err
        assert "not yet trained" in out, out + err
        assert "RUNNING" not in {status for _, status in workplace.runs()}
    assert 3 <= len(list(folder.glob("*.json"))) < TRIALS, "it was over before it was interrupted"
    workplace.call("run", *tiny())
    assert trials(workplace) == trials(finished)
    assert sorted(workplace.runs()) == sorted((key, "FINISHED") for key in trials(finished))
    assert not list((workplace.folder / "studies").rglob("*.tmp")), "a torn file was left"


def tables(place: Workplace) -> dict[str, bytes]:
    """Every table of the tiny study as it is on disk."""
    return {path.name: path.read_bytes() for path in (place.folder / "studies/pbmc68k-tiny/tables").glob("*.csv")}


def test_other_workers_order_and_installation_give_the_same(
    workplace: Workplace, finished: Workplace, tiny: Callable[..., list[str]], tmp_path: Path
) -> None:
    """One stage at a time instead of two, in another order, from an installed wheel: the same trials and tables."""
    workplace.environment["PYTHONPATH"] = str(install(tmp_path / "wheel"))
    space = workplace.folder / "search_spaces" / "tiny.yaml"
    space.write_text(TINY.replace("[asis, shallow]", "[shallow, asis]").replace("[5, all]", "[all, 5]"))
    workplace.call("run", *tiny("resources.concurrent=1"))
    assert order_of_stages(workplace) != order_of_stages(finished)
    assert trials(workplace) == trials(finished)
    space.write_text(TINY)
    workplace.call("report", *tiny())
    assert tables(workplace) == tables(finished)


def order_of_stages(place: Workplace) -> list[str]:
    """Keys of the stages of the tiny study, in the order in which they began."""
    records = read_timings(place.folder / "studies" / "pbmc68k-tiny")
    return [one.key for one in sorted(records, key=lambda one: one.started)]


def test_sync_rebuilds_mlflow(finished: Workplace, tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    finished.call("sync", *tiny(f"tracking.directory={tmp_path / 'anew'}"))
    anew = Workplace.runs_in(tmp_path / "anew" / "mlflow.db")
    assert sorted(anew) == sorted(finished.runs())
    finished.call("sync", *tiny(f"tracking.directory={tmp_path / 'anew'}"))
    assert sorted(Workplace.runs_in(tmp_path / "anew" / "mlflow.db")) == sorted(anew)


def test_export_transfer_and_register(
    finished: Workplace, tiny: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = tmp_path / "mlruns"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registry / 'mlflow.db'}")
    finished.call("export", *tiny(f"tracking.directory={registry}"), "--register")
    assert registered(registry)[1] == {"best.yaml", "best.csv", "best.py", "best.h5ad"}
    best = finished.folder / "studies" / "pbmc68k-tiny" / "best.yaml"
    table = pd.read_csv(best.with_suffix(".csv"))
    assert table.chosen.sum() == 1
    assert len(table) == 4, "two levels of samples per label times two of epochs"
    chosen = yaml.safe_load(best.read_text())
    assert chosen["scanvi"]["max_epochs"] == table[table.chosen]["scanvi.max_epochs"].item()
    finished.call("transfer", "--config", str(best), "query=asis")
    folder = best.parent / "transfer" / "asis"
    tables = {part: pd.read_csv(folder / f"{part}.csv") for part in ("reference", "predictions")}
    assert {part: len(table) for part, table in tables.items()} == {"reference": 350, "predictions": 350}, "all cells"
    soft = tables["predictions"]
    classes = tables["reference"].columns[3:-2]
    assert list(soft.columns) == list(tables["reference"].columns), "no training had all query cells to agree on"
    for table in tables.values():
        assert np.allclose(table[classes].sum(axis=1), 1, atol=1e-5)
        assert (table[classes].idxmax(axis=1) == table.max_column).all()
    recall = pd.read_csv(folder / "confusion_recall.csv", index_col=0)
    precision = pd.read_csv(folder / "confusion_precision.csv", index_col=0)
    assert np.allclose(recall.sum(axis=1), 1)
    assert all(np.isclose(total, 1) or total == 0 for total in precision.sum(axis=0))
    for part, table in tables.items():
        name = {"predictions": "transfer"}.get(part, part)
        check_cells(anndata.read_h5ad(folder / f"{name}.h5ad"), table, part == "reference")
    reference = anndata.read_h5ad(folder / "reference.h5ad")
    check_matrices(reference.obs, {"recall": recall, "precision": precision})
    for name in ("transfer.h5ad", "scvi_model/model.pt", "scanvi_model/model.pt", "confusion_recall.png"):
        assert (folder / name).stat().st_size > 1000
    finished.call("export", *tiny(f"tracking.directory={registry}"), "--register")
    kept, names = registered(registry)
    assert {f"models/asis/{name}/model.pt" for name in ("scvi_model", "scanvi_model")} <= names
    store = MlflowClient()
    version = store.get_model_version_by_alias("pbmc68k-tiny", "best")
    assert str(version.version) == "2"
    run = store.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["scanvi.max_epochs"] == str(chosen["scanvi"]["max_epochs"])
    cells = anndata.read_h5ad(folder / "transfer.h5ad")
    cells.obs["batch"], cells.obs["label"] = cells.obs["scanvi_batch"], cells.obs["scanvi_label"]
    model = SCANVI.load(str(kept / "models" / "asis" / "scanvi_model"), cells)
    assert (model.predict() == soft.max_column).all()
    # Models of another budget have other settings than those that were chosen.
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"budget": "steps"}))
    finished.call("export", *tiny(f"tracking.directory={registry}"), "--register")
    assert registered(registry)[1] == {"best.yaml", "best.csv", "best.py", "best.h5ad"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def check_cells(cells: anndata.AnnData, table: pd.DataFrame, reference: bool) -> None:
    """What `transfer` wrote of each cell agrees with its predictions and with where the cells come from."""
    source = pbmc68k()
    wells = source.obs["well"].isin(["1", "2", "3", "4"]) == reference
    assert list(table.row) == list(np.flatnonzero(wells)), "in the order of the source"
    assert list(table.cell) == list(cells.obs_names) == list(source.obs.index[wells])
    assert list(table.dataset.astype(str)) == list(source.obs["well"][wells])
    added = ["scanvi_batch", "scanvi_label", "scanvi_predicted", "scanvi_confidence"]
    assert list(cells.obs.columns) == [*source.obs.columns, *added]
    assert (cells.obs.scanvi_predicted == table.max_column.to_numpy()).all()
    assert np.allclose(cells.obs.scanvi_confidence, table.max_value)
    assert {key: values.shape for key, values in cells.obsm.items()} == {
        "X_scVI": (len(table), 4),
        "X_scANVI": (len(table), 4),
        "X_umap": (len(table), 2),
    }
    lineage = {fine: name for name, labels in compose().data.labels.items() for fine in labels}
    label = source.obs["bulk_labels"].astype(str).map(lineage).fillna("Unknown")[wells] if reference else "Unknown"
    assert (cells.obs.scanvi_label == label).all()
    assert (cells.obs.scanvi_batch == source.obs["well"][wells]).all()
    assert list(cells.var_names) == list(source.genes)
    assert (sp.csr_matrix(source.matrix)[wells.to_numpy()] != cells.X).nnz == 0


def check_matrices(reference: pd.DataFrame, shares: dict[str, pd.DataFrame]) -> None:
    """Both matrices are of the labelled reference cells alone, counted by hand."""
    reference = reference[reference.scanvi_label != "Unknown"]
    for kind, given in (("recall", "scanvi_label"), ("precision", "scanvi_predicted")):
        for (true, called), share in shares[kind].stack().items():
            both = ((reference.scanvi_label == true) & (reference.scanvi_predicted == called)).sum()
            of = (reference[given] == {"recall": true, "precision": called}[kind]).sum()
            assert np.isclose(share, both / max(of, 1)), (kind, true, called)


def registered(registry: Path) -> tuple[Path, set[str]]:
    """Download what is registered as `best`; return the folder and the files in it."""
    new = tempfile.mkdtemp(dir=registry)
    to = Path(mlflow.artifacts.download_artifacts("models:/pbmc68k-tiny@best", dst_path=new))
    assert yaml.safe_load((to / "best.yaml").read_text())["chosen"]["study"] == "pbmc68k-tiny"
    return to, {str(path.relative_to(to)) for path in to.rglob("*") if path.is_file()}


def test_the_exported_script_runs_as_it_is(finished: Workplace, tiny: Callable[..., list[str]]) -> None:
    finished.call("export", *tiny())
    script = finished.folder / "studies" / "pbmc68k-tiny" / "best.py"
    compile(script.read_text(), str(script), "exec")


def test_a_plan_takes_chance_from_a_pilot(finished: Workplace, tiny: Callable[..., list[str]]) -> None:
    plain = json.loads(finished.call("plan", *tiny("name=later", "--json")).stdout)["precision"]
    facts = json.loads(finished.call("plan", *tiny("name=later"), "--pilot", "pbmc68k-tiny", "--json").stdout)
    precision = facts["precision"]
    assert "2 replicates" in precision["source"]
    assert precision["source"] != plain["source"]
    assert precision["shares"] != plain["shares"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "scvi.max_epoch=3"], "max_epochs"),
        (["plan", "space=tinny"], "Did you mean 'tiny'"),
        (["run", "resources.cpus=512", *["space=tiny"]], "resources.cpus: a stage wants 512"),
        (["plan", "space=tiny", "query_cells=1000"], "350"),
        (["transfer", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["export", "space=tiny", "name=never-run"], "no whole replicate"),
        (["run", "name=a/b"], "name"),
    ],
)
def test_bad_input_is_refused_with_one_message(words: list[str], expected: str, finished: Workplace) -> None:
    before = {path for path in (finished.folder / "studies").rglob("trials/*")}
    said = finished.call(*words, expect=2)
    assert expected in said.stderr
    assert "Traceback" not in said.stderr
    assert {path for path in (finished.folder / "studies").rglob("trials/*")} == before


def test_two_runs_of_one_study_at_once(workplace: Workplace, tiny: Callable[..., list[str]]) -> None:
    first = workplace.start("run", *tiny())
    lock = workplace.folder / "studies" / "pbmc68k-tiny" / "lock"
    deadline = time.monotonic() + 60
    while not (lock.is_file() and lock.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = workplace.call("run", *tiny(), expect=2)
    assert f"process {first.pid}" in second.stderr
    kill_group(first)
    first.communicate()
