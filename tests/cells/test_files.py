"""Files as they come: one joint file for each query, counts wherever they are, and why a file cannot be read."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from study.cells.alignment import read_source
from study.cells.check import check_data
from study.cells.chunks import Rows, spool
from study.cells.h5ad import open_h5ad
from study.cells.sources import own_queries
from study.cells.twins import prepare
from study.cells.unreadable import cause
from study.config.data import DataConfig
from study.errors import InputError
from tests.conftest import joint

Combined = Callable[..., DataConfig]


def problems_of(config: DataConfig) -> str:
    return "\n".join(check_data(config).problems)


def test_joint_files_are_the_combined_one(many: AnnData, combined: Combined, tmp_path: Path) -> None:
    config = combined(many)
    paths = joint(many, tmp_path)
    whole = prepare(config, ["q1", "q2"], tmp_path / "whole")
    for given in (tuple(paths.values()), paths):
        several = config.model_copy(update={"path": given})
        assert own_queries(several) == ("q1", "q2")
        parts = prepare(several, ["q1", "q2"], tmp_path / "parts")
        assert {name: cells.digest() for name, cells in parts.items()} == {n: c.digest() for n, c in whole.items()}
        assert {n: c.names.tolist() for n, c in parts.items()} == {n: c.names.tolist() for n, c in whole.items()}
    variable = config.model_copy(update={"genes": 30})
    several = variable.model_copy(update={"path": paths})
    one, other = (prepare(data, ["q2"], tmp_path / "variable")["q2"] for data in (variable, several))
    assert one.digest() == other.digest()


def test_files_with_the_same_dataset_are_told_apart_by_names(many: AnnData, combined: Combined, tmp_path: Path) -> None:
    paths = joint(many, tmp_path)
    same = anndata.read_h5ad(paths["q2"])
    same.obs["ds"] = same.obs["ds"].astype(str).replace("q2", "q1")
    same.write_h5ad(paths["q2"])
    config = combined(many, path=list(paths.values()))
    assert "each have a query called 'q1'" in problems_of(config)
    assert "'data.path={q1_1: " in problems_of(config)
    named = config.model_copy(update={"path": {"one": paths["q1"], "two": paths["q2"]}})
    source, findings = read_source(named)
    assert source is not None
    assert not findings.problems
    assert (source.dataset[source.query] == "two").sum() == 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cells: cells[:-1].copy(), ("1 cells are missing and 0 are not in that one", "'cell0'")),
        (lambda cells: more(cells), ("2 cells have other counts", "'cell3")),
        (lambda cells: relabelled(cells), ("1 cells have other labels", "'cell5'")),
    ],
    ids=["a cell less", "other counts", "another label"],
)
def test_references_that_differ_are_refused(
    many: AnnData, combined: Combined, tmp_path: Path, change: Callable[[AnnData], AnnData], said: tuple[str, ...]
) -> None:
    paths = joint(many, tmp_path)
    change(anndata.read_h5ad(paths["q2"])).write_h5ad(paths["q2"])
    message = problems_of(combined(many, path=paths))
    assert all(
        words in message for words in (*said, "tau_q2.h5ad: its reference is not that of", "make the files again")
    )


def more(cells: AnnData) -> AnnData:
    counts = cells.X.tolil()
    for name in ("cell30", "cell31"):
        counts[cells.obs_names.get_loc(name), 4] += 1
    return AnnData(counts.tocsr(), obs=cells.obs, var=cells.var)


def relabelled(cells: AnnData) -> AnnData:
    cells.obs["label"] = cells.obs["label"].astype(str)
    cells.obs.loc["cell5", "label"] = "A"
    return cells


def test_a_cell_is_reference_or_query(many: AnnData, combined: Combined) -> None:
    """The same cells under other names, in another file or in the same one."""
    copied = many[:7].copy()
    copied.obs = copied.obs.assign(ds="q1").set_index(pd.Index([f"other{i}" for i in range(7)]))
    config = combined(anndata.concat([many, copied]))
    message = problems_of(config)
    assert (
        "query 'q1': 7 of its 37 cells are reference cells too (same counts; such as 'other0', there 'cell0')"
        in message
    )
    assert "data.drop_duplicates=true" in message
    source, findings = read_source(config.model_copy(update={"drop_duplicates": True}))
    assert source is not None
    assert "7 query cells that are reference cells too are left out." in findings.warnings
    assert sorted(source.names[source.query]) == sorted(many.obs_names[40:])


def test_a_joint_file_given_as_a_query_is_refused(many: AnnData, combined: Combined, tmp_path: Path) -> None:
    """The thread's files in the wrong layout: reference cells would be labelled and unlabelled at once."""
    paths = joint(many, tmp_path)
    only = many[:40].copy()
    only.write_h5ad(tmp_path / "ref.h5ad")
    config = combined(many, source="separate", path=None, reference=tmp_path / "ref.h5ad", query_paths=paths)
    message = problems_of(config.model_copy(update={"reference_value": "reference", "batch_key": None}))
    assert "query 'q1': 40 of its 70 cells are reference cells too" in message


def test_queries_that_share_cells_are_told(many: AnnData, combined: Combined) -> None:
    shared = many[45:50].copy()
    shared.obs = shared.obs.assign(ds="q2").set_index(shared.obs_names + "-2")
    report = check_data(combined(anndata.concat([many, shared])))
    assert not report.problems
    assert any(
        "queries 'q1' and 'q2' share 5 cells (same counts; such as 'cell45-2', there" in w for w in report.warnings
    )


def test_reference_cells_that_are_there_twice_are_told(many: AnnData, combined: Combined) -> None:
    again = many[:3].copy()
    again.obs = again.obs.assign(label=list("ABB")).set_index(again.obs_names + "-again")
    report = check_data(combined(anndata.concat([many, again])))
    assert not report.problems
    assert any(
        "3 reference cells are in the reference more than once" in w and "1 of them" in w for w in report.warnings
    )


def test_shallow_cells_that_are_alike_are_not_the_same(many: AnnData, combined: Combined) -> None:
    counts = many.X.toarray()
    counts[[2, 45]] = 0
    counts[[2, 45], 7] = 1
    assert not check_data(combined(AnnData(sp.csr_matrix(counts), obs=many.obs, var=many.var))).problems


def test_counts_are_found_where_they_are(many: AnnData, combined: Combined) -> None:
    whole = prepare(combined(many), ["q1"], combined(many).path.parent / "whole")["q1"]
    raw = AnnData(many.X * 0.37, obs=many.obs, var=many.var)
    raw.raw = many.copy()
    fewer = raw[:, :20].copy()
    message = problems_of(combined(fewer))
    assert message.endswith("Raw counts are in this file: data.layer=raw.")
    config = combined(fewer, layer="raw")
    assert prepare(config, ["q1"], config.path.parent / "raw")["q1"].digest() == whole.digest()
    only = AnnData(many.X * 0.37, obs=many.obs, var=many.var, layers={"scaled": many.X * 0.5})
    assert "None of its other matrices has raw counts ('scaled')." in problems_of(combined(only))
    layered = AnnData(many.X * 0.37, obs=many.obs, var=many.var, layers={"umis": many.X})
    assert "Raw counts are in this file: data.layer=umis." in problems_of(combined(layered))
    assert "no layer 'ra' (data.layer)" in problems_of(combined(fewer, layer="ra"))


def test_counts_that_are_whole_but_for_rounding_are_rounded(many: AnnData, combined: Combined, tmp_path: Path) -> None:
    whole = prepare(combined(many), ["q1"], tmp_path / "whole")["q1"]
    noise = np.random.default_rng(0).uniform(-9e-4, 9e-4, many.shape).astype(np.float32)
    config = combined(AnnData(sp.csr_matrix(np.maximum(many.X.toarray() + noise, 0)), obs=many.obs, var=many.var))
    report = check_data(config)
    assert any("values are whole numbers but for rounding: rounded." in warning for warning in report.warnings)
    assert prepare(config, ["q1"], tmp_path / "rounded")["q1"].digest() == whole.digest()


def test_the_aliased_layer_is_named_only_where_it_is(many: AnnData, combined: Combined) -> None:
    logged = many.X.toarray()
    logged = sp.csr_matrix(np.log1p(logged / logged.sum(axis=1, keepdims=True) * 1e4))
    aliased = AnnData(logged, obs=many.obs, var=many.var, layers={"counts": logged})
    other = AnnData(many.X, obs=many.obs, var=many.var, layers={"counts": logged})
    told, not_told = (problems_of(combined(cells, layer="counts")) for cells in (aliased, other))
    assert "X holds the same" in told
    assert "a.layers['counts'].copy()" in told
    assert "X holds the same" not in not_told
    assert "log1p of counts normalised to 10,000" in not_told
    assert not_told.endswith("Raw counts are in this file: data.layer=null.")


# --- why a file cannot be read


def mudata_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name in ("mod/prot/X", "mod/rna/X", "obs/_index", "var/_index"):
            file[name] = [1.0]


def tenx_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name in ("barcodes", "data", "indices", "indptr", "shape", "features/id"):
            file[f"matrix/{name}"] = [1]


def loom_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["matrix"] = [[1.0]]
        file.create_group("row_attrs")
        file.create_group("col_attrs")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (mudata_file, ("is MuData (h5mu) with 'prot', 'rna'", "mudata.read_h5mu('toy.h5ad').mod['rna'].write_h5ad(")),
        (tenx_file, ("10x Cell Ranger", "scanpy.read_10x_h5('toy.h5ad')", "write_h5ad(")),
        (loom_file, ("is a loom file", "read_loom('toy.h5ad')")),
    ],
    ids=["h5mu", "10x", "loom"],
)
def test_other_kinds_of_file_are_told_with_the_way_to_h5ad(
    many: AnnData, combined: Combined, make: Callable[[Path], None], said: tuple[str, ...]
) -> None:
    config = combined(many)
    make(config.path)
    assert all(words in problems_of(config) for words in said)


def test_a_column_that_cannot_be_read_is_left_out_unless_it_is_needed(many: AnnData, combined: Combined) -> None:
    config = combined(many)
    for key in ("note", "label"):
        with h5py.File(config.path, "a") as file:
            if key in file["obs"]:
                del file[f"obs/{key}"]
            file[f"obs/{key}"] = np.arange(3)
            file[f"obs/{key}"].attrs["encoding-type"] = "of the future"
            file[f"obs/{key}"].attrs["encoding-version"] = "9"
            file["obs"].attrs["column-order"] = np.array(["ds", "label", "note"], dtype=object)
        report = check_data(config)
        if key == "note":
            assert not report.problems
            assert any("the column 'note' of obs cannot be read" in warning for warning in report.warnings)
    assert any("the column 'label' of obs (data.labels_key) cannot be read" in one for one in report.problems)


def test_a_file_held_by_another_program_is_told_so(many: AnnData, combined: Combined) -> None:
    config = combined(many)
    code = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(config.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        message = problems_of(config)
        holder.stdin.close()
    assert "is open for writing in another program" in message
    assert "broken" not in message


def test_a_missing_filter_is_named(many: AnnData, combined: Combined, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deflate plays the filter that is not there: which others are installed here must not matter."""
    config = combined(many)
    with h5py.File(config.path, "a") as file:
        dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        dcpl.set_chunk((3,))
        dcpl.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (1,))
        del file["X/data"]
        space = h5py.h5s.create_simple((9,))
        h5py.h5d.create(file["X"].id, b"data", h5py.h5t.IEEE_F32LE, space, dcpl=dcpl)
    available = h5py.h5z.filter_avail
    monkeypatch.setattr("h5py.h5z.filter_avail", lambda code: code != h5py.h5z.FILTER_DEFLATE and available(code))
    monkeypatch.setitem(sys.modules["study.cells.unreadable"].FILTERS, h5py.h5z.FILTER_DEFLATE, "Blosc")
    message = cause(config.path, OSError("can't open directory"))
    assert message.startswith("is compressed with 'Blosc', which HDF5 cannot read here. `pip install hdf5plugin`")


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOLCK, "HDF5_USE_FILE_LOCKING=FALSE"), (errno.EAGAIN, "is open for writing in another program")],
)
def test_locks_are_told_apart(tmp_path: Path, number: int, said: str) -> None:
    assert said in cause(tmp_path / "a.h5ad", OSError(number, "no"))


def test_no_room_for_counts_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Full:
        def __enter__(self) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("study.cells.chunks.TemporaryFile", Full)
    monkeypatch.setattr("study.cells.chunks.gettempdir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"no room for the counts .* TMPDIR=\.\.\.") as refused:
        spool(iter(Rows.all(sp.csr_matrix(np.ones((3, 4))))), 4)
    assert str(tmp_path) in str(refused.value)


def test_a_file_of_an_old_anndata_is_told_so(many: AnnData, combined: Combined) -> None:
    config = combined(many)
    with h5py.File(config.path, "a") as file:
        del file["obs"]
        file["obs"] = np.zeros(3)
    with pytest.raises(InputError, match=r"before 0\.7"):
        open_h5ad(config.path, None)
