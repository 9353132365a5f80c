"""Names as people write them: as text, in one spelling, labels put together, and labels that name nothing."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from study.config import DataConfig
from study.errors import few, nearest

# What is written where there is no label, without case, blanks and signs; numbers and 'cells' may follow.
NO_LABEL = re.compile(
    r"(nan|na|none|null|nil|missing|notavailable|notapplicable|tbd|tobedetermined|unk|unkn?own|unidentified|"
    r"(un|not)(assigned|annotated|label+ed|classified|defined|determined|identified|specified|typed)|"
    r"undefined|undetermined|indeterminate|nolabel|nocall|ambiguous|lowquality|debris|"
    r"(doublet|multiplet|triplet)s?)(cells?)?\d*"
)
NUMBER = re.compile(r"-?\d+")
MISSING = "missing"  # what data.unlabelled calls an empty label


def as_text(column: pd.Series) -> np.ndarray:
    """Return a column as an object array of str: '' where a value is missing or blank, '1' for 1, 1.0 and '1'."""
    codes, values = pd.factorize(column)
    texts = [str(int(v)) if isinstance(v, float | np.floating) and float(v).is_integer() else str(v) for v in values]
    return np.array([*(text if text.strip() else "" for text in texts), ""], dtype=object)[codes]


def fold(name: str) -> str:
    """Return what is left of a name without blanks and case: names of which the same is left are hardly two."""
    return "".join(unicodedata.normalize("NFKC", name).split()).casefold()


def spelled(texts: np.ndarray, config: DataConfig, first: Iterable[str] = ()) -> np.ndarray:
    """Return names in one spelling each, if `data.clean_names` asks for it.

    Parameters
    ----------
    texts
        Names, '' where there is none.
    config
        The spelling in which it names something is the one to take.
    first
        Names whose spelling counts before that of the others; else what comes first does.
    """
    if not config.clean_names:
        return texts
    codes, values = pd.factorize(texts)
    spelling: dict[str, str] = {}
    for name in (*said_names(config), *(value.strip() for value in (*first, *values))):
        spelling.setdefault(fold(name), name)
    return np.array([spelling[fold(value)] for value in values], dtype=object)[codes]


def said_names(config: DataConfig) -> list[str]:
    """Return the names of datasets and labels that the configuration uses."""
    several = [config.reference_value, *(query.of for query in config.queries.values())]
    said = [name for one in several if one is not None for name in ((one,) if isinstance(one, str) else one)]
    for query in config.queries.values():
        said += [*(query.compose or ()), *(query.drop or ())]
    said += config.unlabelled
    return said + [name for whole, parts in config.labels.items() for name in (whole, *parts)]


def twice_spelled(texts: np.ndarray, where: str, what: str) -> list[str]:
    """Return a problem if names differ only by blanks or case: read as text, they would be as many things."""
    groups: dict[str, list[str]] = {}
    for text in pd.unique(texts):
        groups.setdefault(fold(text), []).append(text)
    pairs = [" and ".join(map(repr, sorted(group))) for group in groups.values() if len(group) > 1]
    if not pairs:
        return []
    more = f" (and {len(pairs) - 3:,} more such names)" if len(pairs) > 3 else ""
    return [
        f"{where}: {', '.join(pairs[:3])}{more} differ only by blanks or case, and would be different {what}. "
        "Say data.clean_names=true to take them for the same, or rename them."
    ]


def put_together(labels: np.ndarray, config: DataConfig, problems: list[str]) -> np.ndarray:
    """Give labels the names that `data.labels` puts them under; one that no cell has is a problem."""
    whole = {part: name for name, parts in config.labels.items() for part in parts}
    codes, values = pd.factorize(labels)
    found = sorted({*values} - {""})
    problems.extend(
        f"data.labels.{name}: no cell has the label {part!r}.{nearest(part, found)} Labels: {few(found)}."
        for part, name in whole.items()
        if part not in found
    )
    return np.array([whole.get(value, value) for value in values], dtype=object)[codes]


def without_labels(labels: np.ndarray, config: DataConfig, problems: list[str]) -> np.ndarray:
    """Take away the labels that `data.unlabelled` says mean no label; one that no cell has is a problem."""
    named = [label for label in config.unlabelled if label != MISSING]
    found = sorted({*labels} - {""})
    problems.extend(
        f"data.unlabelled: no cell has the label {label!r}.{nearest(label, found)} Labels: {few(found)}."
        for label in named
        if label not in found
    )
    return np.where(np.isin(labels, config.unlabelled), "", labels)


def are_numbers(labels: Iterable[str]) -> bool:
    """Whether all labels are whole numbers, as the levels of an R factor are when their names are lost."""
    known = {*labels} - {""}
    return bool(known) and all(NUMBER.fullmatch(label) for label in known)


def numbers_in_files(parts: Sequence[tuple[str, np.ndarray]]) -> list[str]:
    """Return a problem for each file whose labels are numbers, where labels of several files are compared.

    Parameters
    ----------
    parts
        Name of each file, and the labels that are taken from it.
    """
    labelled = [(where, sorted({*labels} - {""})) for where, labels in parts if (labels != "").any()]
    if len(labelled) < 2:
        return []
    return [
        f"{where}: its labels are numbers ({few(labels)}), and a number may be another class in another file. "
        f"Write their names into the column; or {_naming(labels)} if a number means the same in all files."
        for where, labels in labelled
        if are_numbers(labels)
    ]


def odd_labels(labels: np.ndarray) -> list[str]:
    """Return a warning for labels that mean 'no label', and one for labels that are numbers."""
    found = sorted({*labels} - {""})
    warnings = []
    if meaning_none := [label for label in found if means_none(label)]:
        cells = int(np.isin(labels, meaning_none).sum())
        warnings.append(
            f"the labels {few(meaning_none)} ({cells:,} reference cells) look like 'no label', yet they are classes. "
            f"Say 'data.unlabelled={json.dumps(meaning_none, ensure_ascii=False)}' to take these cells as unlabelled."
        )
    if are_numbers(found):
        warnings.append(
            f"the labels are numbers ({few(found)}): codes, perhaps, that have lost their names. "
            f"They can be named with {_naming(found)}."
        )
    return warnings


def means_none(label: str) -> bool:
    """Whether a label is a usual spelling of 'no label'."""
    plain = re.sub(r"[\W_]+", "", fold(label))
    return bool(NO_LABEL.fullmatch(plain)) or re.fullmatch(r"[?.\-_/\s]+", label) is not None


def _naming(labels: Sequence[str]) -> str:
    """How to name labels that are numbers."""
    return f"'data.labels={{NAME: [{labels[0]}], ...}}'"
