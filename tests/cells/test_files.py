"""Files as they come: one joint file for each query, counts wherever they are, and why a file cannot be read."""

from __future__ import annotations

import errno
import os
import shutil
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
from study.cells.h5ad import open_h5ad
from study.cells.sources import own_queries
from study.cells.twins import prepare
from study.cells.unreadable import cause
from study.config.composition import compose, validate
from study.config.data import DataConfig
from study.config.values import dump
from study.errors import InputError
from study.studies.study import open_study
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


def more(cells: AnnData) -> AnnData:
    counts = cells.X.tolil()
    for name in ("cell30", "cell31"):
        counts[cells.obs_names.get_loc(name), 4] += 1
    return AnnData(counts.tocsr(), obs=cells.obs, var=cells.var)


def with_value(key: str, value: str) -> Callable[[AnnData], AnnData]:
    def change(cells: AnnData) -> AnnData:
        cells.obs[key] = cells.obs[key].astype(str)
        cells.obs.loc["cell5", key] = value
        return cells

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda cells: cells[:-1].copy(),
            "it lacks 1 of the 40 cells there, and 0 of its 39 are not there (such as 'cell0')",
        ),
        (lambda cells: cells[:20].copy(), "it lacks 40 of the 40 cells there, and 0 of its 0 are not there"),
        (lambda cells: cells[1:].copy(), None),  # a cell less of the query, which is no matter
        (more, "2 cells have other counts (such as 'cell31')"),
        (with_value("label", "A"), "1 cells have other labels (such as 'cell5')"),
        (with_value("lane", "two"), "1 cells have other batches (such as 'cell5')"),
    ],
    ids=["a cell less", "no reference", "a query cell less", "other counts", "another label", "another batch"],
)
def test_references_that_differ_are_refused(
    many: AnnData, combined: Combined, tmp_path: Path, change: Callable[[AnnData], AnnData], said: str | None
) -> None:
    many.obs["lane"] = many.obs["ds"].where(many.obs["ds"] == "ref", many.obs["ds"] + "-lane")
    paths = joint(many, tmp_path)
    change(anndata.read_h5ad(paths["q2"])).write_h5ad(paths["q2"])
    message = problems_of(combined(many, path=paths, batch_key="lane"))
    if said is None:
        assert not message
    else:
        assert message.startswith(f"{paths['q2']}: its reference is not that of {paths['q1']}: {said}")
        assert message.endswith("make the files again from one reference.")


def test_a_study_of_joint_files_is_that_of_the_combined_one(many: AnnData, combined: Combined, tmp_path: Path) -> None:
    """Plans are keyed by what can change a result: the same trials of the same cells."""
    config = combined(many)
    paths = joint(many, tmp_path)
    keys = []
    for name, data in (("whole", config), ("parts", config.model_copy(update={"path": paths}))):
        values = dump(compose([f"root={tmp_path}", f"name={name}"])) | {"data": dump(data)}
        values["space"] |= {"factors": {"query": {"levels": ["q1", "q2"]}}, "replicates": 2, "folds": 2}
        keys.append([trial.key for trial in open_study(validate(values)).plan.trials])
    assert keys[0] == keys[1]


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
    assert any("7 of its 37 cells are reference cells too" in w and "left out" in w for w in findings.warnings)
    assert sorted(source.names[source.query]) == sorted(many.obs_names[40:])


def test_a_joint_file_given_as_a_query_is_refused(many: AnnData, combined: Combined, tmp_path: Path) -> None:
    """The thread's files in the wrong layout: reference cells would be labelled and unlabelled at once."""
    paths = joint(many, tmp_path)
    only = many[:40].copy()
    only.write_h5ad(tmp_path / "ref.h5ad")
    config = combined(many, source="separate", path=None, reference=tmp_path / "ref.h5ad", query_paths=paths)
    message = problems_of(config.model_copy(update={"reference_value": "reference", "batch_key": None}))
    assert "query 'q1': 40 of its 70 cells are reference cells too" in message


def test_only_datasets_of_the_study_matter(many: AnnData, combined: Combined) -> None:
    copied = many[:7].copy()
    copied.obs = copied.obs.assign(ds="old").set_index(copied.obs_names + "-old")
    cells = anndata.concat([many, copied])
    assert "query 'old': 7 of its 7 cells" in problems_of(combined(cells))
    queries = {"q1": {"of": "q1"}, "both": {"of": ["q1", "q2"]}, "half": {"of": "q2", "thin": 0.5}}
    report = check_data(combined(cells, queries=queries))
    assert not report.problems
    assert not any("share" in warning for warning in report.warnings), "twins are made of the same cells on purpose"


def test_queries_that_share_cells_are_told(many: AnnData, combined: Combined) -> None:
    copies = [many[45:50].copy() for _ in range(5)]
    for i, copy in enumerate(copies):
        copy.obs = copy.obs.assign(ds=["q2", "q3", "q4", "q5", "q6"][i]).set_index(copy.obs_names + f"-{i}")
    report = check_data(combined(anndata.concat([many, copies[0]])))
    assert not report.problems
    assert "queries 'q1' and 'q2' share 5 cells (same counts; such as 'cell45', there 'cell45-0')." in report.warnings
    warnings = check_data(combined(anndata.concat([many, *copies]))).warnings
    assert sum("share 5 cells" in warning for warning in warnings) == 5
    assert "10 more pairs of queries share cells." in warnings


def test_reference_cells_that_are_there_twice_are_told(many: AnnData, combined: Combined) -> None:
    again = many[:3].copy()
    again.obs = again.obs.assign(label=list("ABB")).set_index(again.obs_names + "-again")
    report = check_data(combined(anndata.concat([many, again])))
    assert not report.problems
    assert any(
        "3 reference cells are in the reference more than once" in w and "1 of them" in w for w in report.warnings
    )


def test_shallow_cells_that_are_alike_are_the_same_if_their_names_are(
    many: AnnData, combined: Combined, tmp_path: Path
) -> None:
    counts = many.X.toarray()
    counts[[2, 45]] = 0
    counts[[2, 45], 7] = 1
    counts[[3, 46]] = 0
    cells = AnnData(sp.csr_matrix(counts), obs=many.obs, var=many.var)
    report = check_data(combined(cells))
    assert not report.problems
    assert not any("same counts" in warning for warning in report.warnings)
    query = cells[40:].copy()
    query.obs_names = [{"cell45": "cell2", "cell46": "cell3"}.get(name, name) for name in query.obs_names]
    cells[:40].write_h5ad(tmp_path / "r.h5ad")
    query.write_h5ad(tmp_path / "q.h5ad")
    files = {"source": "separate", "path": None, "reference": tmp_path / "r.h5ad", "dataset_key": "of"}
    config = combined(many, **files, query_paths={"q": tmp_path / "q.h5ad"}, batch_key=None)
    assert "query 'q': 1 of its 49 cells are reference cells too (same counts; such as 'cell2')" in problems_of(config)


def test_counts_are_found_where_they_are(many: AnnData, combined: Combined) -> None:
    whole = prepare(combined(many), ["q1"], combined(many).path.parent / "whole")["q1"]
    raw = AnnData(many.X * 0.37, obs=many.obs, var=many.var)
    raw.raw = many.copy()
    fewer = raw[:, :20].copy()
    for layer in (None, "counts"):  # the one that is not there says where they are, too
        assert problems_of(combined(fewer, layer=layer)).endswith("Raw counts are in this file: say data.layer=raw.")
    config = combined(fewer, layer="raw")
    assert prepare(config, ["q1"], config.path.parent / "raw")["q1"].digest() == whole.digest()
    only = AnnData(many.X * 0.37, obs=many.obs, var=many.var, layers={"scaled": many.X * 0.5})
    assert "No raw counts are in layer 'scaled' either." in problems_of(combined(only))
    layered = AnnData(many.X * 0.37, obs=many.obs, var=many.var, layers={"umis": many.X})
    assert problems_of(combined(layered)).endswith("Raw counts are in this file: say data.layer=umis.")
    message = problems_of(combined(layered, layer="umi"))
    assert "has no layer 'umi' (data.layer). Did you mean 'umis'? It has: X (data.layer=null), layer 'umis'" in message


def test_a_layer_that_is_called_raw_comes_before_raw(many: AnnData, combined: Combined, tmp_path: Path) -> None:
    cells = AnnData(many.X * 0.37, obs=many.obs, var=many.var, layers={"raw": many.X})
    cells.raw = AnnData(many.X * 2, obs=many.obs, var=many.var)
    found = prepare(combined(cells, layer="raw"), ["q1"], tmp_path / "a")["q1"]
    assert found.digest() == prepare(combined(many), ["q1"], tmp_path / "b")["q1"].digest()


def test_counts_that_are_whole_but_for_rounding_are_rounded(many: AnnData, combined: Combined, tmp_path: Path) -> None:
    whole = prepare(combined(many), ["q1"], tmp_path / "whole")["q1"]
    noise = np.random.default_rng(0).uniform(-9e-4, 9e-4, many.shape).astype(np.float32)
    config = combined(AnnData(sp.csr_matrix(np.maximum(many.X.toarray() + noise, 0)), obs=many.obs, var=many.var))
    report = check_data(config)
    assert any("values are whole numbers but for rounding (by 0.001 at most): rounded." in w for w in report.warnings)
    assert prepare(config, ["q1"], tmp_path / "rounded")["q1"].digest() == whole.digest()
    shares = AnnData(many.X * 1e-5, obs=many.obs, var=many.var)
    assert "no integers (such as 1e-05; 100.0% of those above 0)" in problems_of(combined(shares)).replace(
        "2e-05", "1e-05"
    )


def test_the_aliased_layer_is_named_only_where_it_is(many: AnnData, combined: Combined) -> None:
    logged = many.X.toarray()
    logged = sp.csr_matrix(np.log1p(logged / logged.sum(axis=1, keepdims=True) * 1e4))
    aliased = AnnData(logged, obs=many.obs, var=many.var, layers={"counts": logged})
    other = AnnData(many.X, obs=many.obs, var=many.var, layers={"counts": logged})
    told, not_told = (problems_of(combined(cells, layer="counts")) for cells in (aliased, other))
    assert "and X holds the same: usually `a.X = a.layers['counts']`" in told
    assert "and layer 'counts' holds the same: usually" in problems_of(combined(aliased))
    assert "a.layers['counts'].copy()" in told
    assert "X holds the same" not in not_told
    assert "log1p of counts normalised to 10,000" in not_told
    assert not_told.endswith("Raw counts are in this file: say data.layer=null.")


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


def zarr_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "zarr.json").write_text("{}")


def unclosed(path: Path) -> None:
    """As a notebook leaves a file that was being written when it was killed."""
    code = f"import h5py, os; file = h5py.File({str(path)!r}, 'w', libver='latest'); file['X'] = 1; os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (mudata_file, ("MuData (h5mu) with the modalities 'prot', 'rna'", ".mod['rna'].write_h5ad('toy.h5ad')")),
        (tenx_file, ("10x Cell Ranger", "scanpy.read_10x_h5(", "write_h5ad('toy.h5ad')")),
        (loom_file, ("is a loom file", "read_loom(", "write_h5ad('toy.h5ad')")),
        (zarr_folder, ("is a zarr store", "read_zarr(", "write_h5ad('toy.h5ad')")),
        (lambda path: path.write_bytes(b"\x1f\x8b\x08rest"), ("compressed as a whole (gzip)", "gunzip")),
        (lambda path: path.write_bytes(b"%%MatrixMarket"), ("Matrix Market", "read_10x_mtx")),
        (unclosed, ("is open for writing, or the program that wrote it did not close it", "h5clear -s")),
    ],
    ids=["h5mu", "10x", "loom", "zarr", "gzip", "mtx", "not closed"],
)
def test_what_is_no_whole_h5ad_is_told_with_the_way_to_one(
    many: AnnData, combined: Combined, make: Callable[[Path], object], said: tuple[str, ...]
) -> None:
    config = combined(many)
    make(config.path)
    message = problems_of(config)
    assert all(words in message for words in said), message


def compress_otherwise(path: Path, name: str) -> None:
    """Make one array of a file as if Zstandard had compressed it: gzip does, under the number of the other."""
    with h5py.File(path, "a") as file:
        values, about = file[name][()], dict(file[name].attrs)
        del file[name]
        kind = h5py.string_dtype() if values.dtype == object else values.dtype
        file.create_dataset(name, data=values, dtype=kind, compression="gzip").attrs.update(about)
    whole = path.read_bytes()
    assert whole.count(b"deflate\0") == 1
    at = whole.index(b"deflate\0") - 8
    path.write_bytes(whole[:at] + (32015).to_bytes(2, "little") + whole[at + 2 :])


@pytest.mark.skipif(h5py.h5z.filter_avail(32015), reason="the filter that is to be missing is there")
def test_a_missing_filter_is_named(many: AnnData, combined: Combined) -> None:
    config = combined(many)
    compress_otherwise(config.path, "X/data")
    message = problems_of(config)
    assert "toy.h5ad: is compressed with Zstandard, which HDF5 cannot read here. `pip install hdf5plugin`" in message
    many.obs["depth"] = 1.5
    config = combined(many)
    compress_otherwise(config.path, "obs/depth")
    report = check_data(config)
    assert not report.problems
    assert any("obs['depth'] cannot be read, and is left out: compressed with Zstandard" in w for w in report.warnings)


@pytest.mark.parametrize(
    ("column", "keys"),
    [("obs['label']", {}), ("obs['lane']", {"batch_key": "lane"}), ("var['symbol']", {"gene_names": "symbol"})],
)
def test_a_column_that_cannot_be_read_is_left_out_unless_it_is_needed(
    many: AnnData, combined: Combined, column: str, keys: dict[str, Any]
) -> None:
    many.obs["lane"], many.obs["ds2"] = many.obs["ds"], many.obs["label"]
    many.var["symbol"] = many.var_names.str.upper()
    config = combined(many, **keys)
    part, name = column[:3], column[5:-2]
    with h5py.File(config.path, "a") as file:
        del file[f"{part}/{name}"]
        file[f"{part}/{name}"] = np.arange(3)
        file[f"{part}/{name}"].attrs.update({"encoding-type": "of the future", "encoding-version": "9"})
    assert f"{column} (data." in problems_of(config)
    assert ") cannot be read: " in problems_of(config)
    others = {"labels_key": "ds2", "truth_key": None, "batch_key": "ds", "gene_names": None}
    report = check_data(config.model_copy(update=others))
    assert not report.problems
    assert any(f"{column} cannot be read, and is left out: " in warning for warning in report.warnings)


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
    assert not problems_of(config)


NO_LOCKS = """
#include <errno.h>
int flock(int file, int operation) { return errno = ENOLCK, -1; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler")
def test_files_are_read_where_there_are_no_locks(many: AnnData, combined: Combined, tmp_path: Path) -> None:
    """As on some network file systems: another libc function answers as theirs does."""
    path = combined(many).path
    (tmp_path / "locks.c").write_text(NO_LOCKS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "locks.so", "locks.c"], cwd=tmp_path, check=True)
    code = "import h5py, sys\nfrom study.cells.h5ad import open_h5ad\nfrom pathlib import Path\n"
    code += "try:\n    h5py.File(sys.argv[1])\nexcept OSError as error:\n    print(error.errno)\n"
    code += "print(open_h5ad(Path(sys.argv[1]), None).matrix[:2].sum())"
    environment = {**os.environ, "LD_PRELOAD": str(tmp_path / "locks.so")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(errno.ENOLCK), str(many.X[:2].sum())]


def test_no_room_for_counts_says_where_and_how_much(many: AnnData, combined: Combined, tmp_path: Path) -> None:
    path = combined(many).path
    small = tmp_path / "small"
    small.mkdir()
    script = f"mount -t tmpfs -o size=16k none {small}; TMPDIR={small} {sys.executable} -m study check"
    keys = f"data=forum data.path={path} data.dataset_key=ds data.labels_key=label data.batch_key=ds data.layer=null"
    command = ["unshare", "--mount", "--map-root-user", "sh", "-ec", f"{script} {keys}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "500"})
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("no small disk can be mounted here")
    assert done.returncode == 2
    needed = many.X.nnz * 8 / 2**20
    assert f"{small}: no room for the counts while they are prepared (No space left on device)" in done.stderr
    assert (
        f"need up to {needed:,.1f} MiB. Make room, or name another folder for temporary files with TMPDIR="
        in done.stderr
    )


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "cannot be read (Permission denied). Check its permissions."),
        (errno.EIO, "cannot be read from its disk (Input/output error). Try again, or copy it to a local disk."),
    ],
)
def test_what_the_system_says_is_told(tmp_path: Path, number: int, said: str) -> None:
    hdf5 = f"Can't synchronously read data (file read failed: errno = {number}, error message = '...')"
    for error in (OSError(number, "no"), OSError(hdf5)):
        assert cause(tmp_path / "a.h5ad", error) == said


def test_a_file_of_an_old_anndata_is_told_so(many: AnnData, combined: Combined) -> None:
    config = combined(many)
    with h5py.File(config.path, "a") as file:
        del file["obs"]
        file["obs"] = np.zeros(3)
    with pytest.raises(InputError, match=r"before 0\.7"):
        open_h5ad(config.path, None)
