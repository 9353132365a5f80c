"""A folder of one's own, to study in: what a study is made of, and what varies, as files to edit."""

from __future__ import annotations

import shutil
from pathlib import Path

from study.config import packaged_home
from study.errors import InputError
from study.files import explained

PARTS = ("conf", "search_spaces")


def make_folder(directory: Path) -> None:
    """Copy `conf/` and `search_spaces/` into a folder; raise `InputError` if it has either."""
    taken = [name for name in PARTS if (directory / name).exists()]
    if taken:
        raise InputError(f"{directory}: has {' and '.join(taken)} already; nothing was changed. Choose a new folder.")
    with explained(directory):
        for name in PARTS:
            shutil.copytree(packaged_home() / name, directory / name)
