"""Small cells that tests change, and the shared folder of real ones."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from study.config.data import DataConfig

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One HOME for all that a test process does itself: Ray keeps the token it once read, and where it read it."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("HOME", str(folder))
        yield folder


@pytest.fixture
def toy() -> AnnData:
    """60 cells x 20 genes: 30 of dataset `ref`, 20 of `q1`, 10 of `q2`; labels A, B, C in turn; counts in X."""
    random = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"ds": ["ref"] * 30 + ["q1"] * 20 + ["q2"] * 10, "label": list("ABC") * 20},
        index=[f"cell{i}" for i in range(60)],
    )
    counts = random.poisson(3, size=(60, 20)).astype(np.float32)
    counts[:, 0] = 1  # each cell's smallest count is one: log1p of them can be undone
    return AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(20)]))


@pytest.fixture
def many() -> AnnData:
    """90 cells x 60 genes: 40 of dataset `ref`, 30 of `q1`, 20 of `q2`; labels A, B, C in turn; counts in X."""
    counts = np.random.default_rng(1).poisson(2, size=(90, 60)).astype(np.float32)
    obs = pd.DataFrame({"ds": ["ref"] * 40 + ["q1"] * 30 + ["q2"] * 20, "label": list("ABC") * 30})
    genes = pd.DataFrame(index=[f"gene{i}" for i in range(60)])
    return AnnData(sp.csr_matrix(counts), obs=obs.set_index(obs.index.map("cell{}".format)), var=genes)


def joint(cells: AnnData, folder: Path) -> dict[str, Path]:
    """Write a file for each query that holds the reference too, in an order of its own, and return their paths."""
    paths = {}
    for name in ("q1", "q2"):
        part = cells[cells.obs["ds"].isin(["ref", name])].copy()
        if name == "q2":  # the reference elsewhere in the file and turned around, the query as it was
            reference = np.flatnonzero(part.obs["ds"] == "ref")
            part = part[np.concatenate([np.flatnonzero(part.obs["ds"] == name), reference[::-1]])].copy()
        paths[name] = folder / f"tau_{name}.h5ad"
        part.write_h5ad(paths[name])
    return paths


@pytest.fixture
def combined(tmp_path: Path) -> Callable[..., DataConfig]:
    """Write cells as one h5ad and return the configuration for it, with changes."""

    def write(cells: AnnData, **changes: Any) -> DataConfig:
        path = tmp_path / "toy.h5ad"
        cells.write_h5ad(path)
        plain = {"name": "toy", "source": "combined", "path": path, "dataset_key": "ds", "reference_value": "ref"}
        return DataConfig.model_validate(
            {**plain, "labels_key": "label", "truth_key": "label", "batch_key": "ds", **changes}
        )

    return write


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the checkout; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data at {SHARED}")
    return SHARED
