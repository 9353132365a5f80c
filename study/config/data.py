"""Where cells come from, and what their queries are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    StrictBool,
    model_validator,
)

from study.config.values import DEEPEST, SEED_LIMIT, Count, Model, Positive, Separation, Share, Value


class QuerySpec(Model):
    """One query as a level of the factor `query`: which cells, and what is changed about them (a twin)."""

    of: Value | tuple[Value, ...] | None = Field(
        None, description="value(s) of the dataset column; all queries if absent"
    )
    thin: Share | None = Field(None, description="keep each count with this probability (binomial thinning)")
    compose: dict[str, Annotated[float, Field(ge=0)]] | None = Field(None, description="share of cells of each label")
    drop: tuple[str, ...] | None = Field(None, description="labels whose cells are left out")
    match_size: StrictBool = Field(False, description="as few cells as the smallest query that is matched so")
    match_depth: StrictBool = Field(False, description="thinned to the shallowest query that is matched so")

    @model_validator(mode="after")
    def _one_make_up(self) -> Self:
        if self.compose is not None and self.drop is not None:
            raise ValueError("'compose' and 'drop' both set the make-up of a query: give one of them")
        if self.compose is not None and sum(self.compose.values()) <= 0:
            raise ValueError("'compose' needs at least one share above 0")
        if self.thin is not None and self.match_depth:
            raise ValueError("'thin' and 'match_depth' both set the depth of a query: give one of them")
        return self

    @property
    def altered(self) -> bool:
        """Whether this is a twin: not all of the cells, as they are."""
        return bool(self.thin or self.compose or self.drop or self.match_size or self.match_depth)


class SimulatedQuery(Model):
    """What is planted in one simulated query."""

    cells: Count = Field(description="number of cells")
    depth: Positive = Field(1.0, description="counts per cell, times those of the reference")
    novel: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="share of cells in a state of their own")
    shift: Annotated[float, Field(ge=0, le=20)] = Field(0.0, description="sd of the log-fold change of all its cells")
    composition: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        None, description="share of each class; even if absent"
    )


class SimulateConfig(Model):
    """Size and difficulty of simulated counts, and the effects planted in its queries."""

    genes: Count = Field(description="number of genes")
    reference_cells: Count = Field(description="number of reference cells")
    classes: Annotated[int, Field(strict=True, ge=2)] = Field(description="number of classes")
    separation: Separation | tuple[Separation, ...] = Field(description="sd of log-fold changes, of all or each class")
    depth: Positive = Field(description="mean counts of a reference cell")
    batches: Count = Field(description="batches of the reference; each has small log-fold changes of its own")
    queries: dict[str, SimulatedQuery] = Field(description="what is planted, by the name of the query")

    @model_validator(mode="after")
    def _one_value_per_class(self) -> Self:
        lists: dict[str, object] = {"separation": self.separation}
        lists |= {f"queries.{name}.composition": query.composition for name, query in self.queries.items()}
        for name, values in lists.items():
            if isinstance(values, tuple) and len(values) != self.classes:
                raise ValueError(f"{name} has {len(values)} values, one for each of {self.classes} classes is expected")
        return self

    @model_validator(mode="after")
    def _countable(self) -> Self:
        for name, query in self.queries.items():
            if (deepest := self.depth * max(1, query.depth)) > DEEPEST:
                raise ValueError(
                    f"depth times queries.{name}.depth is {deepest:g} counts per cell, expected at most {DEEPEST:g}"
                )
        return self


class DataConfig(Model):
    """Where the cells come from and which of them are reference and query."""

    name: str = Field(description="name of the data; the study is called after it unless `name` says otherwise")
    source: Literal["pbmc68k", "simulated", "combined", "separate"] = Field(
        description="bundled cells, simulated ones, one h5ad for all, or one for the reference and one per query"
    )
    path: Path | tuple[Path, ...] | dict[str, Path] | None = Field(
        None,
        description="one h5ad with reference and queries, or several that each hold the same reference and a query, "
        "in a list or by the names of their queries (source: combined)",
    )
    reference: Path | None = Field(None, description="h5ad of the reference (source: separate)")
    query_paths: dict[str, Path] = Field(default_factory=dict, description="h5ad of each query (source: separate)")
    simulate: SimulateConfig | None = Field(None, description="what to simulate (source: simulated)")
    dataset_key: str = Field(description="column of obs that tells reference from queries")
    reference_value: Value | tuple[Value, ...] = Field(description="its value(s) for reference cells")
    labels_key: str = Field(description="column of obs with the labels of the reference")
    truth_key: str | None = Field(None, description="column with true labels of query cells, where known")
    batch_key: str | None = Field(None, description="column of obs that scVI corrects for")
    labels: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        default_factory=dict, description="labels to put together, under one name; labels not named keep theirs"
    )
    unlabelled: tuple[str, ...] = Field(
        (), description="labels that mean 'no label': such reference cells train as unlabelled ones; 'missing' for gaps"
    )
    clean_names: StrictBool = Field(
        False, description="labels, datasets and batches that differ only by blanks or case are one, as first spelled"
    )
    gene_names: str | None = Field(
        None, description="column of var to take gene names from, in each file that has it; the index if absent"
    )
    strip_gene_version: StrictBool = Field(False, description="take Ensembl names without the version (.N) at the end")
    layer: str | None = Field(None, description="layer with raw counts, or 'raw' for those in .raw; X if absent")
    drop_duplicates: StrictBool = Field(False, description="leave out query cells that the reference has too")
    genes: Count | Literal["all"] = Field("all", description="all shared genes, or so many highly variable ones")
    queries: dict[str, QuerySpec] = Field(default_factory=dict, description="queries and twins; each query if empty")
    restore_counts: bool = Field(False, description="restore raw counts from log1p values where that is exact")
    seed: Annotated[int, Field(strict=True, ge=0, lt=SEED_LIMIT)] = Field(
        0, description="of row order, twins and simulated cells"
    )

    @model_validator(mode="after")
    def _source_is_complete(self) -> Self:
        needed = {"combined": ["path"], "separate": ["reference", "query_paths"], "simulated": ["simulate"]}
        for key in needed.get(self.source, []):
            if not getattr(self, key):
                raise ValueError(f"data.source={self.source} needs data.{key}; give it, as in 'data.{key}=...'")
        return self

    @property
    def files(self) -> dict[str, Path]:
        """The h5ad files of a combined source, by the query that each holds; by numbers where files are not named."""
        if isinstance(self.path, dict):
            return self.path
        paths = self.path if isinstance(self.path, tuple) else () if self.path is None else (self.path,)
        return {str(number): path for number, path in enumerate(paths)}

    @model_validator(mode="after")
    def _each_file_once(self) -> Self:
        paths = list(self.files.values())
        if twice := [str(path) for i, path in enumerate(paths) if path in paths[:i]]:
            raise ValueError(f"path has {twice[0]} more than once; each file is one query, so name it once")
        return self

    @model_validator(mode="after")
    def _each_label_has_one_name(self) -> Self:
        named: dict[str, str] = {}
        for name, labels in self.labels.items():
            if not name.strip():
                raise ValueError(f"labels puts {labels[0]!r} under {name!r}, which is no name")
            for label in labels:
                if named.setdefault(label, name) != name:
                    raise ValueError(f"labels puts {label!r} under {named[label]!r} and under {name!r}: choose one")
        return self

    @model_validator(mode="after")
    def _no_label_is_none(self) -> Self:
        used = {label: f"labels puts it under {name!r}" for name, labels in self.labels.items() for label in labels}
        for name, query in self.queries.items():
            used |= dict.fromkeys((*(query.compose or ()), *(query.drop or ())), f"queries.{name} asks for its cells")
        for label in self.unlabelled:
            if not label.strip():
                raise ValueError(f"unlabelled has {label!r}; write missing for cells whose label is missing or empty")
            if label in used:
                raise ValueError(f"unlabelled takes {label!r} for no label, and {used[label]}: choose one")
        return self
