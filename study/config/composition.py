"""The configuration of a study: `conf/` and overrides in, one frozen and validated `StudyConfig` out.

Hydra composes and pydantic validates; both are used for configuration here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import ValidationError as PydanticError

from study.config.explain import explain
from study.config.study import StudyConfig
from study.errors import InputError, nearest

GROUPS = ("data", "model", "resources", "tracking", "space")
SETTINGS = {"model": ("scvi", "scanvi")}  # what a group sets, where it is not the key of its own name
WHOLE = "_whole_"  # what Hydra calls a configuration that was read from one file
QUESTION_MARKS = "\0three question marks\0"  # in place of OmegaConf's sign of a missing value, where it is a name


def home() -> Path:
    """The folder with `conf/` and `search_spaces/`: the working directory, or what the package brings."""
    here = Path.cwd()
    if (here / "conf" / "study.yaml").is_file():
        return here
    return packaged_home()


def packaged_home() -> Path:
    """The folder with the `conf/` and `search_spaces/` that came with the package."""
    installed = Path(__file__).parents[1] / "home"
    return installed if installed.is_dir() else Path(__file__).parents[2]


def compose(overrides: Sequence[str] = ()) -> StudyConfig:
    """Compose `conf/` with overrides in Hydra's syntax and validate the result.

    Parameters
    ----------
    overrides
        Such as ``data=forum``, ``space=forum``, ``scvi.max_epochs=50``.

    Raises
    ------
    InputError
        With one message that names the key, what was found and what is expected.
    """
    root = home()
    try:
        with initialize_config_dir(str(root / "conf"), version_base="1.3"):
            composed = hydra_compose("study", [_search_path(root), *map(_as_hydra, overrides)])
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:  # group=3 is a ValueError
        raise InputError(f"configuration: {_hydra_message(error, root)}") from None
    return validate(values)


def load(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a whole configuration from one YAML file (such as `best.yaml`) and apply overrides.

    What is written there is meant as it stands: ``${...}`` was resolved when it was composed, and what is left of it is
    a name of somebody's data.

    Parameters
    ----------
    path
        The file.
    overrides
        As in `compose`. A group, such as ``resources=gpu_node``, takes the place of all that the file says there.

    Raises
    ------
    InputError
        If the file is missing, is no YAML mapping, or does not validate.
    """
    try:
        values = yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError) as error:  # a day that no month has is a ValueError
        raise InputError(f"{path}: cannot be read as YAML ({error}); expected a file written by 'export'.") from None
    if not isinstance(values, dict):
        raise InputError(
            f"{path}: expected a mapping of settings as written by 'export', found {type(values).__name__}."
        )
    values.pop("chosen", None)
    root = home()
    try:
        if overrides:
            whole = _overridden(_literal(values), overrides, root)
            values = _as_written(OmegaConf.to_container(whole, resolve=True, throw_on_missing=True))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} with overrides {list(overrides)}: {_hydra_message(error, root)}") from None
    return validate(values, f"{path}: ")


def _literal(values: Any) -> Any:
    """Return values whose texts mean themselves to OmegaConf, ``${...}`` and ``???`` too."""

    def literal(text: str) -> str:
        return QUESTION_MARKS if text == "???" else re.sub(r"(\\*)\$\{", r"\1\1\\${", text)

    return _mapped(literal, values)


def _as_written(values: Any) -> Any:
    """Undo what `_literal` did and OmegaConf has not undone."""
    return _mapped(lambda text: "???" if text == QUESTION_MARKS else text, values)


def _mapped(change: Callable[[str], str], values: Any) -> Any:
    """Return values with all their texts changed."""
    if isinstance(values, dict):
        return {key: _mapped(change, value) for key, value in values.items()}
    if isinstance(values, list):
        return [_mapped(change, value) for value in values]
    return change(values) if isinstance(values, str) else values


def _overridden(values: dict[str, Any], overrides: Sequence[str], root: Path) -> Any:
    """Let Hydra apply overrides to values that it has not composed: first whole groups, then single keys."""
    written = {override: _as_hydra(override) for override in overrides}
    groups = {override: override.partition("=")[0] for override in overrides if override.partition("=")[0] in GROUPS}
    with initialize_config_dir(str(root / "conf"), version_base="1.3"):
        if groups:
            composed = hydra_compose("study", [_search_path(root), *(written[override] for override in groups)])
            plain: Any = OmegaConf.to_container(composed, resolve=False)
            values = values | {key: plain[key] for name in groups.values() for key in SETTINGS.get(name, (name,))}
        ConfigStore.instance().store(WHOLE, values)
        return hydra_compose(WHOLE, [written[override] for override in overrides if override not in groups])


def _search_path(root: Path) -> str:
    """Search spaces live beside conf/, so that the top level shows what a study varies."""
    return f"hydra.searchpath=[file://{root}]"


def load_stored(name: str, root: Path) -> StudyConfig:
    """Read the configuration that a study was run with from its folder, wherever that has been moved to.

    Raises
    ------
    InputError
        If there is no such study.
    """
    path = root / name / "config.yaml"
    if not path.is_file():
        known = sorted(found.parent.name for found in root.glob("*/config.yaml"))
        raise InputError(
            f"there is no study {name!r} in {root}.{nearest(name, known)} Found: {', '.join(known) or 'none'}."
        )
    return load(path).model_copy(update={"root": root})


def validate(values: Any, where: str = "") -> StudyConfig:
    """Validate composed values; raise `InputError` with every problem in one message."""
    try:
        return StudyConfig.model_validate(values)
    except PydanticError as error:
        raise InputError(explain(error, where, StudyConfig, values)) from None


def _as_hydra(override: str) -> str:
    """Let an override set any key, so that a misspelt one reaches the validation, which names its neighbour."""
    key, separator, value = override.partition("=")
    name = key.lstrip("+~")
    if not name or not (separator or key[0] == "~"):
        raise InputError(f"override {override!r}: expected key=value, as in 'scvi.max_epochs=50'.")
    if name.split(".")[0] == "hydra":  # would change nothing here
        raise InputError(f"override {override!r}: {name!r} is no known key.")
    if key == "space":
        return f"search_spaces@space={value}"
    return override if key in GROUPS or key[0] in "+~" else f"++{override}"


def _hydra_message(error: Exception, root: Path) -> str:
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        group, _, name = error.missing_cfg_file.rpartition("/")
        folder = root / (group if group == "search_spaces" else f"conf/{group}")
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        what = "search space" if group == "search_spaces" else group
        return f"there is no {what} {name!r} in {folder}.{nearest(name, names)} Found: {', '.join(names)}."
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is missing. Give it, as in '{error.full_key}=...'."
    # Without where Hydra looks and where its manual is; the '++' is ours.
    message = " ".join(str(error).split()).partition(" See https:")[0].replace("++", "", 1)
    if "LexerNoViableAlt" in message or "parsing override" in message:
        return f"{message}: cannot be read. Expected key=value; quote what is not plain, as in 'key=\"a, b\"'."
    if "Config group override" in message:
        return f"{message}. Expected the name of a file, as in 'data=forum'."
    return message
