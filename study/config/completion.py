"""What the shell offers for a half-typed override: files to choose, and the keys of a study."""

from __future__ import annotations

from study.config.composition import GROUPS, compose, files_of, group_folder, home
from study.config.settings import setting_names
from study.config.values import dump


def completions(incomplete: str) -> list[str]:
    """Return the overrides that begin so.

    Parameters
    ----------
    incomplete
        Such as ``sp``, ``space=`` or ``scanvi.max``.

    Returns
    -------
    ``data=forum`` and the like for keys that name a file; for other keys ``key=``, whose value is the user's.
    """
    chosen = [f"{group}={name}" for group in GROUPS for name in files_of(group_folder(home(), group))]
    values = dump(compose())
    # A search space and what it holds are written in its file.
    own = {key: value for key, value in values.items() if key != "space"}
    keys = [f"{name}=" for name in setting_names(own)]
    return [one for one in (*chosen, *keys) if one.startswith(incomplete)]
