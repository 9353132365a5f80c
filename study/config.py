"""The configuration of a study: `conf/` and overrides in, one frozen and validated `StudyConfig` out.

Hydra composes and pydantic validates; both are used for configuration here and nowhere else.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)
from pydantic import ValidationError as PydanticError

Level = StrictBool | StrictInt | StrictFloat | StrictStr
Count = Annotated[int, Field(strict=True, ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Separation = Annotated[float, Field(gt=0, le=20)]
Outcome = Literal[
    "heldout/recall", "train/recall", "train/precision", "heldout/precision", "query/recall", "query/precision"
]
Control = Literal["none", "self", "surgery", "shuffled", "repeat", "logistic"]
GROUPS = ("data", "model", "resources", "tracking", "space")
SEED_LIMIT = 2**32
WHOLE_LIMIT = 2**53  # a float holds every integer up to here
DEEPEST = 1e7  # mean counts of a simulated cell: single ones then stay far below what an int32 holds


class InputError(Exception):
    """Something the user gave cannot be used; the message says what, where, what is expected and what to do."""


def nearest(word: str, words: Sequence[str]) -> str:
    """Return ' Did you mean ...?' for the nearest of some words, or nothing."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


class Model(BaseModel):
    """Base of all configuration: frozen, and a key that it does not know is an error.

    No number is infinite or NaN. A name may look like a number, as in `query=4`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)


class QuerySpec(Model):
    """One query as a level of the factor `query`: which cells, and what is changed about them (a twin)."""

    of: str | tuple[str, ...] | None = Field(None, description="value(s) of the dataset column; all queries if absent")
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
    path: Path | None = Field(None, description="one h5ad with reference and queries (source: combined)")
    reference: Path | None = Field(None, description="h5ad of the reference (source: separate)")
    query_paths: dict[str, Path] = Field(default_factory=dict, description="h5ad of each query (source: separate)")
    simulate: SimulateConfig | None = Field(None, description="what to simulate (source: simulated)")
    dataset_key: str = Field(description="column of obs that tells reference from queries")
    reference_value: str | tuple[str, ...] = Field(description="its value(s) for reference cells")
    labels_key: str = Field(description="column of obs with the labels of the reference")
    truth_key: str | None = Field(None, description="column with true labels of query cells, where known")
    batch_key: str | None = Field(None, description="column of obs that scVI corrects for")
    layer: str | None = Field(None, description="layer with raw counts; X if absent")
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


class ScviSettings(Model):
    """Settings of the scVI pretraining (and of the networks and minibatches of both stages)."""

    n_layers: Count = Field(description="hidden layers of encoder and decoder")
    n_latent: Count = Field(description="dimensions of the latent space")
    n_hidden: Count = Field(description="nodes of each hidden layer")
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] = Field(description="share of nodes left out in each step")
    norm: Literal["batch", "layer", "none"] = Field(description="normalisation inside the networks")
    gene_likelihood: Literal["zinb", "nb", "poisson"] = Field(description="distribution of the counts")
    dispersion: Literal["gene", "gene-batch", "gene-cell"] = Field(
        description="whether the dispersion of the counts is one per gene, per gene and batch, or per gene and cell"
    )
    batch_size: Annotated[int, Field(strict=True, ge=2)] = Field(description="minibatch size of both stages")
    max_epochs: Count = Field(description="epochs of the pretraining")
    extra: dict[str, JsonValue] = Field(default_factory=dict, description="further arguments of scvi.model.SCVI")


class ScanviSettings(Model):
    """Settings of the scANVI fine-tuning."""

    linear_classifier: StrictBool = Field(description="linear classifier, or a small network (MLP)")
    n_samples_per_label: Count | Literal["all"] = Field(description="labelled cells drawn per label, anew each epoch")
    max_epochs: Count = Field(description="epochs of the fine-tuning")
    classification_ratio: Annotated[float, Field(ge=0)] = Field(description="weight of the classification loss")
    protocol: Literal["joint", "surgery"] = Field(description="train with the query, or map it onto the reference")
    surgery_epochs: Count = Field(description="epochs on the query (protocol: surgery)")
    extra: dict[str, JsonValue] = Field(default_factory=dict, description="further arguments of scvi.model.SCANVI")


class Settings(Model):
    """Everything that a factor may vary: the data condition and the settings of both stages."""

    query: str | None = Field(None, description="which query, where it is no factor; the first one if absent")
    query_cells: Annotated[int, Field(strict=True, ge=2)] | Literal["all"] = Field(
        "all", description="the first so many query cells"
    )
    query_draw: Annotated[int, Field(strict=True, ge=0)] = Field(
        0, description="0: the first of its cells in their fixed random order; 1, 2, ...: other random draws"
    )
    budget: Literal["epochs", "steps"] = Field("epochs", description="epochs as stated, or matched in optimiser steps")
    scvi: ScviSettings = Field(description="settings of the pretraining")
    scanvi: ScanviSettings = Field(description="settings of the fine-tuning")


class Resources(Model):
    """What one stage may use, how many run at once, and where."""

    engine: Literal["exact", "fast"] = Field("exact", description="training step: bit for bit scvi-tools', or fast")
    accelerator: Literal["cpu", "gpu"] = Field(description="what a stage trains on")
    cpus: Count = Field(description="CPU threads of a stage")
    gpus: Annotated[float, Field(ge=0)] = Field(description="GPUs of a stage; fractions share one")
    resident: StrictBool = Field(False, description="keep the counts on the GPU: same batches, gathered there")
    memory_gib: Annotated[float, Field(gt=0)] | None = Field(None, description="memory reserved for a stage")
    concurrent: Count | None = Field(None, description="stages at once; as many as fit if absent")
    stage_minutes: Positive | None = Field(None, description="a stage that takes longer fails; no limit if absent")
    address: str = Field("local", description="'local', 'auto', or the address of a Ray cluster")

    @model_validator(mode="after")
    def _gpu_means_gpu(self) -> Self:
        if (self.accelerator == "gpu") != (self.gpus > 0):
            raise ValueError(f"accelerator={self.accelerator} does not go with gpus={self.gpus}")
        if self.resident and self.accelerator == "cpu":
            raise ValueError("resident=true keeps counts on a GPU, and accelerator=cpu uses none")
        return self


class Tracking(Model):
    """Where MLflow keeps runs and artifacts."""

    uri: str | None = Field(None, description="tracking server; mlruns/mlflow.db if absent")
    directory: Path = Field(Path("mlruns"), description="folder of the local database and artifacts")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(5000, description="port of `scanvi-study ui`")

    @model_validator(mode="after")
    def _no_secret(self) -> Self:
        if self.uri is not None and "@" in urlsplit(self.uri).netloc:
            # Not repeated: configurations are written to files, logs and reports, and so would the password be.
            raise ValueError(
                "'uri' holds a user or password before '@'. Leave them out; MLflow reads MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN from the environment, PostgreSQL its own PGPASSWORD"
            )
        return self


class Domain(Model):
    """A range that a random design or a search draws from."""

    type: Literal["uniform", "loguniform", "randint"] = Field(description="how values are drawn from the range")
    low: float = Field(description="lower end")
    high: float = Field(description="upper end")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high <= self.low or (self.type == "loguniform" and self.low <= 0):
            raise ValueError(f"a {self.type} range needs {'0 < ' if self.type == 'loguniform' else ''}low < high")
        if not math.isfinite(self.high - self.low):
            raise ValueError(f"a range from {self.low:g} to {self.high:g} is too wide to draw from")
        ends = (self.low, self.high)
        if self.type == "randint" and not all(end.is_integer() and abs(end) <= WHOLE_LIMIT for end in ends):
            raise ValueError(f"a randint range goes from one integer to another, found {self.low:g} and {self.high:g}")
        return self

    def __str__(self) -> str:
        return f"{self.type} from {self.low:g} to {self.high:g}"


class FactorSpec(Model):
    """The levels of one factor (or the range a random design draws from) and its role."""

    levels: tuple[Level, ...] | Literal["all"] | None = Field(
        None, description="two values or more, the baseline first; 'all': every query (for `query` only)"
    )
    domain: Domain | None = Field(
        None, description="a range instead of levels, in a random design or a search; its keys may stand beside `role`"
    )
    role: Literal["data", "parameter"] | None = Field(None, description="follows from the name if absent")

    @model_validator(mode="before")
    @classmethod
    def _inline_domain(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "type" in value:
            role = {"role": value["role"]} if "role" in value else {}
            return {"domain": {k: v for k, v in value.items() if k != "role"}, **role}
        return value

    @model_validator(mode="after")
    def _levels_or_domain(self) -> Self:
        if (self.levels is None) == (self.domain is None):
            raise ValueError(
                "a factor needs 'levels: [...]', or 'type', 'low' and 'high' unless the design is factorial"
            )
        if isinstance(self.levels, tuple):
            if len(self.levels) < 2:
                raise ValueError(
                    f"a factor needs at least 2 levels, found {list(self.levels)}; a fixed value is no factor"
                )
            if len({(type(level), level) for level in self.levels}) < len(self.levels):
                raise ValueError(f"levels {list(self.levels)} contain a duplicate; name each level once")
        return self


class Crossed(Model):
    """Replicates in which training seeds and held-out folds are crossed."""

    seeds: Count = Field(description="number of training seeds")
    folds: Annotated[int, Field(strict=True, ge=2)] = Field(description="number of held-out folds")


class SearchSpace(Model):
    """What varies, and how often the whole design is repeated."""

    name: str = Field(description="name of the search space; part of the study's name unless `name` says otherwise")
    design: Literal["factorial", "random", "search"] = Field(
        description="all combinations of levels, settings drawn, or settings sought"
    )
    factors: dict[str, FactorSpec] = Field(min_length=1, description="what varies, by its dotted name")
    replicates: Count | Crossed = Field(description="passes over the design, or seeds crossed with folds")
    folds: Annotated[int, Field(strict=True, ge=2)] = Field(3, description="parts of the reference held out in turn")
    points: Count | None = Field(None, description="settings drawn by a random design")
    candidates: Count | None = Field(None, description="settings that a search tries")
    confirm: Annotated[int, Field(strict=True, ge=3)] | None = Field(
        None, description="fresh replicates on which a search compares its winner with the default settings"
    )
    controls: tuple[Control, ...] = Field((), description="trials beside the table, each with an expected outcome")

    @model_validator(mode="after")
    def _design_fits(self) -> Self:
        drawn = [name for name, factor in self.factors.items() if factor.domain is not None]
        if self.design == "factorial" and drawn:
            raise ValueError(f"a factorial design needs levels for {', '.join(drawn)}; or say 'design: random'")
        if [name for name, factor in self.factors.items() if factor.levels == "all" and name != "query"]:
            raise ValueError("'levels: all' means every query, so it belongs to the factor 'query' alone")
        if (self.design == "random") != (self.points is not None):
            raise ValueError("'points' (how many settings to draw) belongs to 'design: random', and only there")
        if len(set(self.controls)) < len(self.controls):
            raise ValueError(f"controls {list(self.controls)} contain a duplicate; name each control once")
        return self

    @model_validator(mode="after")
    def _search_fits(self) -> Self:
        if {self.design == "search"} != {self.candidates is not None, self.confirm is not None}:
            raise ValueError(
                "'candidates' (how many settings to try) and 'confirm' (fresh replicates for the winner, at least 3) "
                "belong to 'design: search', both of them, and only there"
            )
        if self.design == "search" and isinstance(self.replicates, Crossed):
            raise ValueError(
                "a search takes its replicates one after the other: give their number, as in 'replicates: 2'"
            )
        if self.design == "search" and self.controls:
            raise ValueError("controls stand beside a table that is attributed, and a search has none: leave them out")
        return self


def _study_name(name: str) -> str:
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith(".") or len(name) > 100:
        raise ValueError(
            f"study name {name!r} must be 1 to 100 letters, digits, '-', '_' or '.', not starting with '.'"
        )
    return name


class StudyConfig(Settings):
    """A whole study: data, what varies, settings, resources and tracking."""

    name: Annotated[str, AfterValidator(_study_name)] = Field(
        description="its folder and MLflow experiment: letters, digits, '-', '_' and '.'"
    )
    root: Path = Field(Path("studies"), description="folder that holds one folder per study")
    outcomes: tuple[Outcome, ...] = Field(min_length=1, description="what is attributed: cells / per-class metric")
    data: DataConfig = Field(description="where the cells come from")
    space: SearchSpace = Field(description="what varies")
    resources: Resources = Field(description="what the study may use")
    tracking: Tracking = Field(description="where MLflow keeps runs")

    @property
    def directory(self) -> Path:
        """The folder of this study, absolute: Ray changes directory, so no path may stay relative."""
        return self.root.absolute() / self.name

    def settings(self, levels: Mapping[str, Level]) -> Settings:
        """Return the settings with some dotted names set to the levels of a design point.

        Raises
        ------
        InputError
            If a name is no setting, or a level does not fit it.
        """
        values = self.model_dump(include=set(Settings.model_fields))
        for name, level in levels.items():
            *parents, leaf = name.split(".")
            target = values
            for parent in parents:
                target = target.get(parent, {}) if isinstance(target.get(parent), dict) else {}
            if leaf not in target and parents[-1:] != ["extra"]:
                known = list(setting_names(values))
                raise InputError(
                    f"space.factors: {name!r} is no setting that can vary.{nearest(name, known)} "
                    f"Settings are: {', '.join(known)}."
                )
            target[leaf] = level
        try:
            return Settings.model_validate(values)
        except PydanticError as error:
            raise InputError(_explain(error, "space.factors: ", Settings, values)) from None


def setting_names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings that a factor may vary."""
    for key, value in values.items():
        if isinstance(value, Mapping) and key != "extra":
            yield from setting_names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def home() -> Path:
    """The folder with `conf/` and `search_spaces/`: the working directory, or what the package brings."""
    here = Path.cwd()
    if (here / "conf" / "study.yaml").is_file():
        return here
    return packaged_home()


def packaged_home() -> Path:
    """The folder with the `conf/` and `search_spaces/` that came with the package."""
    installed = Path(__file__).parent / "home"
    return installed if installed.is_dir() else Path(__file__).parent.parent


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
            # Search spaces live beside conf/, so that the top level shows what a study varies.
            search_path = f"hydra.searchpath=[file://{root}]"
            composed = hydra_compose("study", [search_path, *map(_as_hydra, overrides)])
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:  # group=3 is a ValueError
        raise InputError(f"configuration: {_hydra_message(error, root)}") from None
    return validate(values)


def load(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a whole configuration from one YAML file (such as `best.yaml`) and apply overrides.

    Raises
    ------
    InputError
        If the file is missing, is no YAML mapping, or does not validate.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error}); expected a file written by 'export'.") from None
    if not isinstance(values, dict):
        raise InputError(
            f"{path}: expected a mapping of settings as written by 'export', found {type(values).__name__}."
        )
    values.pop("chosen", None)
    for override in overrides:
        _as_hydra(override)  # the same form is expected
    try:
        merged = OmegaConf.merge(OmegaConf.create(values), OmegaConf.from_dotlist(list(overrides)))
        values = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise InputError(f"{path} with overrides {list(overrides)}: {' '.join(str(error).split())}") from None
    return validate(values, f"{path}: ")


def validate(values: Any, where: str = "") -> StudyConfig:
    """Validate composed values; raise `InputError` with every problem in one message."""
    try:
        return StudyConfig.model_validate(values)
    except PydanticError as error:
        raise InputError(_explain(error, where, StudyConfig, values)) from None


def dump(config: BaseModel) -> dict[str, Any]:
    """Return a configuration as plain values that YAML and JSON can hold."""
    return config.model_dump(mode="json")


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


def _explain(error: PydanticError, where: str, root: type[BaseModel], values: Any) -> str:
    """Turn pydantic's problems into sentences with the dotted key, what was found and a neighbour."""
    expected: dict[tuple[str, str], dict[str, None]] = {}
    for problem in error.errors(include_url=False):
        keys = _keys(problem["loc"], values, problem["type"] == "missing")
        key = ".".join(keys) or "configuration"
        message, found = problem["msg"].removeprefix("Value error, "), ""
        if problem["type"] == "missing":
            message = f"is missing. Give it, as in '{key}=...'."
        elif problem["type"] == "extra_forbidden":
            message = f"is no known key.{nearest(keys[-1], _fields_at(root, keys[:-1]))}"
            if keys[:2] == ["space", "factors"] and keys[2] in ("scvi", "scanvi"):
                message += " A factor with a dot in its name is changed in the file of the search space."
        elif problem["type"] != "value_error":
            message = message.partition(" or instance of ")[0].replace("dictionary", "mapping {key: value}")
            found = f", found {'a mapping' if isinstance(problem['input'], Mapping) else repr(problem['input'])}."
        expected.setdefault((key, found), {})[message] = None
    lines = []
    for (key, found), (first, *others) in expected.items():
        # What may be one of several things fails as each of them: one sentence.
        either = ", or ".join([first, *(other.removeprefix("Input should be ") for other in others)])
        lines.append(f"{where}{key}: {either}{found}")
    return "\n".join(lines)


def _keys(loc: Sequence[int | str], values: Any, missing: bool) -> list[str]:
    """Keys as they were written: without what pydantic adds for the kinds of value that it tried."""
    keys = []
    for part in loc:
        inside = part in values if isinstance(values, Mapping) else isinstance(part, int)
        if inside:
            values = values[part]
        if inside or (missing and part is loc[-1]):
            keys.append(str(part))
    return keys


def _fields_at(model: type[BaseModel], loc: Sequence[str]) -> list[str]:
    """Names of the fields of the model found by walking down a location."""
    for part in loc:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)
