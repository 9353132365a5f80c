"""A source with raw counts, wherever it has them; else what is there instead, and where counts are."""

from __future__ import annotations

from dataclasses import replace

from study.cells.counts import CountMatrix, judge, restore
from study.cells.findings import Findings
from study.cells.genes import name_genes
from study.cells.sheet import Sheet, named
from study.config import DataConfig
from study.errors import InputError, few


def with_counts(sheet: Sheet, config: DataConfig, findings: Findings) -> Sheet | None:
    """Check names and values; return the sheet with its matrix as `Counts`."""
    sheet = name_genes(sheet, config, findings.warnings)
    for what, names, mend in (("cell", sheet.obs.index, "obs"), ("gene", sheet.genes, "var")):
        if twice := names[names.duplicated()].unique().astype(str).tolist():
            findings.problems.append(
                f"{sheet.where}: {len(twice):,} {what} names occur more than once ({few(twice)}). "
                f"Expected unique ones; `adata.{mend}_names_make_unique()` makes them so, where the {what}s do differ."
            )
    for key, why in sheet.unread.items():
        findings.warnings.append(f"{sheet.where}: the column {key!r} of obs cannot be read ({why}): left out.")
    where = f"{sheet.where}: {named(config.layer)}"
    if 0 in sheet.matrix.shape:
        findings.problems.append(
            f"{sheet.where}: has {sheet.matrix.shape[0]:,} cells and {sheet.matrix.shape[1]:,} genes."
        )
        return None
    counts = CountMatrix(sheet.matrix)
    try:
        judged = judge(counts, lambda: _as_in_x(counts, sheet))
    except ValueError as error:
        findings.problems.append(f"{where} cannot be used: {error}. Expected raw counts.")
        return None
    except InputError as error:
        findings.problems.append(str(error))
        return None
    wrong = judged.problem
    if judged.rounded:
        findings.warnings.append(f"{where}: {judged.rounded:,} values are whole numbers but for rounding: rounded.")
        counts = replace(counts, rounded=True)
    if wrong is not None and config.restore_counts and all(restore(part).exact.all() for part in counts):
        findings.warnings.append(f"{where}: raw counts restored from log1p values, exact in every cell.")
        counts, wrong = replace(counts, restored=True), None
    if wrong is not None:
        findings.problems.append(f"{where} {wrong}{_where_counts_are(sheet)}")
    if sheet.genes.has_duplicates:
        return None
    return replace(sheet, matrix=counts)


def _as_in_x(counts: CountMatrix, sheet: Sheet) -> bool:
    """Whether X holds the very values of this matrix, another one."""
    if "null" not in sheet.others:
        return False
    other = CountMatrix(sheet.others["null"]())
    return other.matrix.shape == counts.matrix.shape and all(
        abs(one - two).nnz == 0 for one, two in zip(counts, other, strict=True)
    )


def _where_counts_are(sheet: Sheet) -> str:
    """Say which other matrices of the file hold raw counts, in a sentence."""
    counts, unread = [], []
    for layer, opened in sheet.others.items():
        try:
            if judge(CountMatrix(opened())).problem is None:
                counts.append(f"data.layer={layer}")
        except (ValueError, InputError):
            unread.append(layer)
    if counts:
        return f" Raw counts are in this file: {' or '.join(counts)}."
    looked = [layer for layer in sheet.others if layer not in unread]
    found = f" None of its other matrices has raw counts ({few(looked)})." if looked else ""
    return found + (f" Cannot be read: {few(unread)}." if unread else "")
