"""A store that holds nothing, and copies of it."""

import shutil
from pathlib import Path

import pytest

from study.config.study import Tracking
from study.tracking.store import open_store


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store that holds nothing; to make its tables takes seconds."""
    folder = tmp_path_factory.mktemp("empty")
    open_store(Tracking(directory=folder / "mlruns"))
    return folder


@pytest.fixture
def folder(empty: Path, tmp_path: Path) -> Path:
    """A folder with a store of its own."""
    return shutil.copytree(empty, tmp_path, dirs_exist_ok=True)
