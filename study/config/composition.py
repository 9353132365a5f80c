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
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import ValidationError as PydanticError

from study.config.explain import explain
from study.config.study import StudyConfig
from study.errors import InputError, few, nearest

GROUPS = ("data", "model", "resources", "tracking", "space")
SETTINGS = {"model": ("scvi", "scanvi")}  # what a group sets, where it is not the key of its own name
WHOLE = "_whole_"  # what Hydra calls a configuration that was read from one file
QUESTION_MARKS = "\0three question marks\0"  # in place of OmegaConf's sign of a missing value, where it is a name
KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


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
    _refuse_no_list(overrides)
    root = home()
    try:
        with initialize_config_dir(str(root / "conf"), version_base="1.3"):
            composed = hydra_compose("study", [_search_path(root), *map(_as_hydra, overrides)])
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except UnicodeDecodeError as error:
        raise InputError(f"configuration: {_no_text(root)} is no text in UTF-8 ({error}). Save it as that.") from None
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise InputError(f"configuration: {_hydra_message(error, root)}") from None
    _refuse_without_effect(overrides, values)
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
    _refuse_no_list(overrides)
    try:
        values = yaml.safe_load(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError) as error:
        what = "is a folder" if isinstance(error, IsADirectoryError) else "there is no such file"
        raise InputError(f"{path}: {what}. Expected a configuration, such as best.yaml that 'export' writes.") from None
    except (OSError, ValueError, yaml.YAMLError) as error:  # a day that no month has is a ValueError
        raise InputError(f"{path}: cannot be read as YAML ({_line(error)}). Expected it as it was written.") from None
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
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix('configuration: ')}") from None
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} with overrides {list(overrides)}: {_hydra_message(error, root)}") from None
    return validate(values, f"{path}: ")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _no_text(root: Path) -> str:
    """Return which file that Hydra may read is no text: it does not say."""
    for path in sorted([*root.glob("conf/**/*.yaml"), *root.glob("search_spaces/*.yaml")]):
        try:
            path.read_text("utf-8")
        except UnicodeDecodeError:
            return str(path)
    return f"a file of {root}"


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
    return load(path).model_copy(update={"root": root, "name": name})


def validate(values: Any, where: str = "") -> StudyConfig:
    """Validate composed values; raise `InputError` with every problem in one message."""
    try:
        return StudyConfig.model_validate(values)
    except PydanticError as error:
        raise InputError(explain(error, where, StudyConfig, values)) from None


def _refuse_no_list(overrides: object) -> None:
    """Refuse what is no list of texts, a single text too: each of its letters would be an override."""
    single = isinstance(overrides, str)
    if single or not isinstance(overrides, Sequence) or not all(isinstance(one, str) for one in overrides):
        example = [overrides] if single else ["data=forum", "scvi.max_epochs=50"]
        raise InputError(f"overrides: expected a list of texts, as in {example}, found {overrides!r}.")


def _refuse_without_effect(overrides: Sequence[str], values: Any) -> None:
    """Refuse an empty mapping for one that is not: Hydra merges the two, and nothing would have changed."""
    for override in overrides:
        key, _, value = override.partition("=")
        found = values
        for part in key.lstrip("+").split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if found and "".join(value.split()) == "{}":
            raise InputError(
                f"override {override!r} changes nothing, for mappings are merged: {few(list(map(str, found)))} would "
                f"stay. Leave out what should go, as with '~{key}.{next(iter(found))}'."
            )


def _as_hydra(override: str) -> str:
    """Let an override set any key, so that a misspelt one reaches the validation, which names its neighbour."""
    key, separator, value = override.partition("=")
    name, leaves_out = key.lstrip("+~"), key.startswith("~")
    if not name or not (separator or leaves_out):
        raise InputError(f"override {override!r}: expected key=value, as in 'scvi.max_epochs=50'.")
    if name.split(".")[0] == "hydra":  # would change nothing here
        raise InputError(f"override {override!r}: {name!r} is no known key.")
    if not KEY.fullmatch(name):
        raise InputError(
            f"override {override!r}: {name!r} is no key. Expected names with dots between, as in 'scvi.max_epochs'. "
            "A name with other signs stands in braces, as in 'data.queries={a b: {of: a}}', or in a file of conf/."
        )
    if name in GROUPS and leaves_out:
        raise InputError(f"override {override!r}: a study needs {name!r}. Choose another, as in '{name}=...'.")
    if name in GROUPS:
        return _chosen(name, value)
    return override if leaves_out else f"++{name}={value}"


def _chosen(group: str, value: str) -> str:
    """Return the choice of a file as Hydra takes it; refuse one that is not there."""
    folder = group_folder(home(), group)
    name = value.strip().strip("'\"").removesuffix(".yaml")
    if not (folder / f"{name}.yaml").is_file():
        raise InputError(f"configuration: {_no_such_file(folder, group, name)}")
    return f"search_spaces@space={value}" if group == "space" else f"{group}={value}"


def group_folder(root: Path, group: str) -> Path:
    """Return the folder with the files of a group; ``space`` is one too."""
    return root / ("search_spaces" if group == "space" else f"conf/{group}")


def files_of(folder: Path) -> list[str]:
    """Return what a group can be set to: its files, by name."""
    return sorted(path.stem for path in folder.glob("*.yaml") if path.is_file())


def _no_such_file(folder: Path, group: str, name: str) -> str:
    names = files_of(folder)
    what = "search space" if group == "space" else group
    return f"there is no {what} {name!r} in {folder}.{nearest(name, names)} Found: {', '.join(names) or 'none'}."


def _hydra_message(error: Exception, root: Path) -> str:
    """Return what Hydra or OmegaConf found wrong, without where its manual is and what it would sweep over."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        group, _, name = error.missing_cfg_file.rpartition("/")
        group = "space" if group == "search_spaces" else group
        return _no_such_file(group_folder(root, group), group, name)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is missing. Give it, as in '{error.full_key}=...'."
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override.removeprefix("++"))
    message = _line(error).partition(" See https:")[0].replace("++", "", 1)
    if several := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)'(?: 1\.| requires)", message):
        return (
            f"{several[1]!r} has several values. Write a list as 'key=[a, b]' and text as 'key=\"a, b\"'; what is to "
            "vary is a factor, in a file of search_spaces/."
        )
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        found = message.partition(" full_key: ")[0]
        return f"{error.full_key}: {found}. Write the value itself, or the name of a key, as in '${{scvi.n_hidden}}'."
    if message.startswith("Error merging override"):
        return f"{message}: what is there is a mapping. Change one of its keys, as in 'scvi.max_epochs=50'."
    return message


def _unreadable(override: str) -> str:
    """Say how an override is written that Hydra cannot read."""
    key, _, value = override.partition("=")
    if value.lstrip().startswith("{"):
        how = (
            f"A mapping is written as in '{key}={{a b: {{of: c}}}}': a name in it has no quotes, but '\\' before "
            "each of , : ( ) [ ] { }. One with other signs is written in a file of conf/."
        )
    elif value.lstrip().startswith("["):
        how = f"A list is written as in '{key}=[a, \"b, c\"]': quote what is not plain."
    else:
        how = f"Quote a value that is not plain, as in '{key}=\"a, b\"'."
    return f"{override!r} cannot be read. {how}"
