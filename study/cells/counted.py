"""A source with raw counts, wherever it has them; else what is there instead, and where counts are."""

from __future__ import annotations

from dataclasses import replace

from study.cells.counts import CountMatrix, judge, restore
from study.cells.findings import Findings
from study.cells.genes import name_genes
from study.cells.sheet import Sheet, named
from study.config import DataConfig
from study.errors import InputError, few, nearest


def with_counts(sheet: Sheet, config: DataConfig, findings: Findings) -> Sheet | None:
    """Check names and values; return the sheet with its matrix as a `CountMatrix`, None if it cannot be used at all."""
    _say_unread(sheet, config, findings)
    sheet = name_genes(sheet, config, findings.warnings)
    for what, names, mend in (("cell", sheet.obs.index, "obs"), ("gene", sheet.genes, "var")):
        if twice := names[names.duplicated()].unique().astype(str).tolist():
            findings.problems.append(
                f"{sheet.where}: {len(twice):,} {what} names occur more than once ({few(twice)}). "
                f"Expected unique ones; `adata.{mend}_names_make_unique()` makes them so, where the {what}s do differ."
            )
    if sheet.matrix is None:
        findings.problems.append(_without_matrix(sheet, config))
        return None
    if 0 in sheet.matrix.shape:
        findings.problems.append(
            f"{sheet.where}: has {sheet.matrix.shape[0]:,} cells and {sheet.matrix.shape[1]:,} genes. "
            "Expected some of both."
        )
        return None
    try:
        counts = _counts(sheet, config, findings)
    except ValueError as error:
        findings.problems.append(
            f"{sheet.where}: {named(config.layer)} cannot be used: {error}. Expected raw counts.{_where_counts(sheet)}"
        )
        return None
    except InputError as error:
        findings.problems.append(str(error))
        return None
    return None if sheet.genes.has_duplicates else replace(sheet, matrix=counts)


def _counts(sheet: Sheet, config: DataConfig, findings: Findings) -> CountMatrix:
    """The counts of a sheet; where it has none, a problem."""
    where = f"{sheet.where}: {named(config.layer)}"
    counts = CountMatrix(sheet.matrix)
    judged = judge(counts, lambda: same_values(counts, sheet, config.layer))
    counts = replace(counts, size=judged.size)
    if judged.problem is None:
        if judged.rounded:
            findings.warnings.append(
                f"{where}: {judged.rounded:,} values are whole numbers but for rounding (by 0.001 at most): rounded."
            )
        return replace(counts, rounded=judged.rounded > 0)
    if config.restore_counts and all(restore(part).exact.all() for part in counts):
        findings.warnings.append(f"{where}: raw counts restored from log1p values, exact in every cell.")
        return replace(counts, restored=True)
    findings.problems.append(f"{where} {judged.problem}{_where_counts(sheet)}")
    return counts


def _say_unread(sheet: Sheet, config: DataConfig, findings: Findings) -> None:
    """Warn of columns that cannot be read and are not needed; those that are needed are told where they are read."""
    needed = {f"obs[{key!r}]" for key in (config.dataset_key, config.labels_key, config.truth_key, config.batch_key)}
    names = f"var[{config.gene_names!r}]"
    for column, why in sheet.unread.items():
        if column == names:
            findings.problems.append(f"{sheet.where}: {column} (data.gene_names) cannot be read: {why}")
        elif column not in needed:
            findings.warnings.append(f"{sheet.where}: {column} cannot be read, and is left out: {why}")


def _without_matrix(sheet: Sheet, config: DataConfig) -> str:
    """Say that a file lacks the matrix that is asked for, and what it has."""
    layer, others = config.layer, list(sheet.others)
    missing = "no X." if layer is None else f"no layer {layer!r} (data.layer).{nearest(layer, others)}"
    has = ", ".join(f"{named(None if other == 'null' else other)} (data.layer={other})" for other in others)
    return f"{sheet.where}: has {missing} It has: {has or 'no matrix'}.{_where_counts(sheet)}"


def same_values(counts: CountMatrix, sheet: Sheet, layer: str | None) -> str | None:
    """Name the matrix that holds the very values of this one: X, if this is a layer, or a layer, if this is X."""
    for other in [name for name in sheet.others if (name == "null") == (layer is not None) and name != "raw"]:
        try:
            values = CountMatrix(sheet.others[other]())
            if values.matrix.shape == counts.matrix.shape and all(
                abs(one - two).nnz == 0 for one, two in zip(counts, values, strict=True)
            ):
                return named(None if other == "null" else other)
        except (ValueError, InputError):  # whatever it is, it is not the same
            continue
    return None


def _where_counts(sheet: Sheet) -> str:
    """Say which other matrices of the file hold raw counts, in a sentence."""
    found, unread = [], []
    for layer, opened in sheet.others.items():
        try:
            if judge(CountMatrix(opened())).problem is None:
                found.append(layer)
        except (ValueError, InputError):
            unread.append(layer)
    if found:
        return f" Raw counts are in this file: say {' or '.join(f'data.layer={layer}' for layer in found)}."
    looked = [named(None if layer == "null" else layer) for layer in sheet.others if layer not in unread]
    none = f" No raw counts are in {' or '.join(looked)} either." if looked else ""
    return none + (f" Cannot be read: {few(unread)}." if unread else "")
