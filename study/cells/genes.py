"""Names of genes: taken from where they are, and whether several files mean the same genes by them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import pandas as pd

from study.cells.names import as_text
from study.cells.sheet import Sheet
from study.config import DataConfig
from study.errors import few, nearest

VERSION = re.compile(r"^(ENS[A-Z]*\d+)\.\d+")  # ENSG00000141510.18, and with what follows: ENSG00000182378.15_PAR_Y
LITTLE = 0.5  # share of the reference's genes below which few genes are shared
BETTER = 1.25  # times as many genes: other names are meant
SOME = 0.1  # of the genes of the smaller file: by chance fewer names are alike
NEARLY = 0.95  # of the most genes that any way finds: then the simplest such way is told
NUMBERED = 100_000  # numbers of rows are below; Entrez numbers of all genes go far beyond


@dataclass(frozen=True)
class Naming:
    """One way to name genes: by a column of var or its index, without versions, in capitals."""

    column: str | None
    strip: bool
    capitals: bool = False

    def names(self, sheet: Sheet) -> tuple[pd.Index, list[str]]:
        """Return names of the genes of a sheet, and those that several genes would get: these keep what they have."""
        names: pd.Index = (sheet.var.index if len(sheet.var) else sheet.genes).astype(str)
        twice: list[str] = []
        if self.column in sheet.var:
            names, twice = _renamed(names, pd.Index(as_text(sheet.var[self.column]), dtype=object))
        if self.strip:
            names, more = _renamed(names, pd.Index([_unversioned(name) for name in names], dtype=object))
            twice = [*twice, *more]
        return (names.str.upper() if self.capitals else names), twice

    def told(self, now: Naming) -> tuple[str, str]:
        """Say what is other than now, and how to have it."""
        words, keys = [], []
        if self.column != now.column:
            words.append("by the index of var" if self.column is None else f"by var[{self.column!r}]")
            keys.append(f"data.gene_names={'null' if self.column is None else self.column}")
        if self.strip != now.strip:
            words.append(f"{'without' if self.strip else 'with'} '.N' at the end")
            keys.append(f"data.strip_gene_version={str(self.strip).lower()}")
        remedy = f"Say {' '.join(keys)}." if keys else ""
        if self.capitals:
            words.append("in capitals")
            remedy += " Write them alike in all files: `adata.var_names = adata.var_names.str.upper()`."
        return " ".join(words), remedy.strip()


def name_genes(sheet: Sheet, config: DataConfig, warnings: list[str]) -> Sheet:
    """Name the genes of a sheet as `data.gene_names` and `data.strip_gene_version` say, where it has the column."""
    if config.gene_names is None and not config.strip_gene_version:
        return sheet
    names, twice = Naming(config.gene_names, config.strip_gene_version).names(sheet)
    if twice:
        warnings.append(
            f"{sheet.where}: {len(twice):,} names would each be that of several genes ({few(twice)}): "
            "these genes keep the names that they have in var's index."
        )
    return replace(sheet, genes=names)


def shared_genes(sheets: Sequence[Sheet], config: DataConfig, problems: list[str], warnings: list[str]) -> pd.Index:
    """Return the genes that the reference shares with every query, in the order of the reference.

    Where few are shared, other names are tried; those that would share far more are a problem, with the numbers.
    """
    genes = sheets[0].genes
    if wrong := _about_column(sheets, config.gene_names) or _about_overlap(sheets, config, warnings):
        problems.extend(wrong)
        return genes
    if len(sheets) == 1 and _numbered(genes):
        columns = _columns(sheets)
        hint = f"Names may be in var: {few(columns)}. Choose one with data.gene_names=..." if columns else ""
        warnings.append(f"{sheets[0].where}: its genes are called {few(list(genes[:3]))} and so on. {hint}".rstrip())
    for sheet in sheets[1:]:
        here = genes.isin(sheet.genes)
        if not here.any():
            problems.append(
                f"{sheet.where}: has no gene in common with {sheets[0].where} and the queries before it: "
                f"{few(list(sheet.genes[:3]))} here, {few(list(sheets[0].genes[:3]))} there. "
                "Expected the same kind of gene names (symbols or Ensembl ids) in all files."
            )
            return genes
        genes = genes[here]
    return genes


def _unversioned(name: str) -> str:
    """An Ensembl name without its version; other names may end in a number too."""
    found = VERSION.match(name) if name.startswith("ENS") else None
    return name if found is None else found[1] + name[found.end() :]


def _renamed(old: pd.Index, new: pd.Index) -> tuple[pd.Index, list[str]]:
    """Names that are new where there is one and no other gene has it; and those that several have."""
    twice = new.duplicated(keep=False) & (new != "")
    return new.where((new != "") & ~twice, old), list(new[twice].unique())


def _about_column(sheets: Sequence[Sheet], column: str | None) -> list[str]:
    """Problems of the column that names are to be taken from: no sheet has it, or it names no genes."""
    if column is None:
        return []
    having = [sheet for sheet in sheets if column in sheet.var]
    if not having:
        found = list(dict.fromkeys(str(key) for sheet in sheets for key in sheet.var))
        return [
            f"{', '.join(sheet.where for sheet in sheets)}: var has no column {column!r} (data.gene_names)."
            f"{nearest(column, found)} It has: {few(found)}. Choose one with data.gene_names=..."
        ]
    return [
        f"{sheet.where}: var[{column!r}] (data.gene_names) has {sheet.var[column].nunique():,} different values for "
        f"{len(sheet.var):,} genes, so it does not name them. Choose another column: {few(_columns([sheet]))}."
        for sheet in having
        if not _tells_apart(sheet.var[column])
    ]


def _about_overlap(sheets: Sequence[Sheet], config: DataConfig, warnings: list[str]) -> list[str]:
    """Problems of sheets that share few genes with the reference, and would share more under other names."""
    now, total = Naming(config.gene_names, config.strip_gene_version), len(sheets[0].genes)
    shared = _shared(sheets, now)
    if min(shared, default=total) >= NEARLY * total:
        return []
    best = _best(sheets, now)  # for all of them: what suits one file may part others
    words, remedy = best.told(now)
    problems = []
    for sheet, here, there in zip(sheets[1:], shared, _shared(sheets, best), strict=True):
        little, better = here < LITTLE * total, there > max(BETTER * here, SOME * min(total, len(sheet.genes)))
        odd = next((one for one in (sheet, sheets[0]) if _numbered(one.genes)), None)
        said = f"{sheet.where}: shares {here:,} of the {total:,} genes of {sheets[0].where} as they are"
        if odd is not None:
            said += f" (those of {odd.where} are called {few(list(odd.genes[:3]))} and so on)"
        if better:
            said += f", {there:,} of {total:,} {words}. {remedy}"
        elif odd is not None:
            said += ". Write the names of the genes into the index of var."
        else:
            said += f" (it has {len(sheet.genes):,})."
        if little and (better or odd is not None):
            problems.append(said)
        elif here and (little or better):
            warnings.append(said)
    return problems


def _best(sheets: Sequence[Sheet], now: Naming) -> Naming:
    """The way to name genes that needs fewest changes, of those that share nearly as many genes as any does."""
    ways = [now, *(Naming(*way) for way in product([None, *_columns(sheets)], [False, True]))]
    ways += [Naming(now.column, strip, capitals=True) for strip in (False, True)]
    found = {way: sum(_shared(sheets, way)) for way in ways}

    def changes(way: Naming) -> int:
        return (way.column != now.column) + (way.strip != now.strip) + way.capitals

    return min((way for way in ways if found[way] >= NEARLY * max(found.values())), key=changes)


def _shared(sheets: Sequence[Sheet], way: Naming) -> list[int]:
    """How many genes of the reference each other sheet has, if they are named in this way; numbers are no names."""
    reference, *others = (way.names(sheet)[0] for sheet in sheets)
    if _numbered(reference):
        return [0] * len(others)
    return [0 if _numbered(names) else int(reference.isin(names).sum()) for names in others]


def _columns(sheets: Sequence[Sheet]) -> list[str]:
    """Columns of var that hold text which tells genes apart."""
    found: dict[str, None] = {}
    for sheet in sheets:
        for key, column in sheet.var.items():
            if not pd.api.types.is_numeric_dtype(column) and _tells_apart(column):
                found[str(key)] = None
    return list(found)


def _tells_apart(column: pd.Series) -> bool:
    """Whether most genes have a value of their own."""
    return len(column) > 0 and column.nunique() > len(column) / 2


def _numbered(names: pd.Index) -> bool:
    """Whether names are numbers of rows: rising, and not as large as Entrez's numbers are."""
    if not len(names) or not all(len(name) < 7 and name.isdecimal() for name in names):
        return False
    numbers = names.astype(int)
    return bool(numbers.is_monotonic_increasing and numbers.is_unique and numbers[-1] < NUMBERED)
