"""The configuration of a whole study: what it may use, where it is tracked, and all that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    model_validator,
)
from pydantic import ValidationError as PydanticError

from study.config.data import DataConfig
from study.config.engine import refuse_beyond_gpu
from study.config.explain import explain
from study.config.settings import Settings, setting_names
from study.config.space import SearchSpace
from study.config.values import Count, Level, Model, Outcome, Positive, written
from study.errors import InputError, nearest


class Resources(Model):
    """What one stage may use, how many run at once, and where."""

    engine: Literal["exact", "fast", "gpu"] = Field(
        "exact", description="training step: bit for bit scvi-tools', fast, or like stages as one network (gpu)"
    )
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
        if self.resident and self.engine == "gpu":
            raise ValueError("resident=true changes nothing with engine=gpu, which always does so: leave it out")
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


def _study_name(name: str) -> str:
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith(".") or len(name) > 100:
        raise ValueError(
            f"study name {name!r} must be 1 to 100 letters, digits, '-', '_' or '.', not starting with '.'"
        )
    return name


# The epochs that `budget: grow` is about: levels are snapshots of one training.
GROWING = "scanvi.max_epochs"


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

    @model_validator(mode="after")
    def _outcomes_differ(self) -> Self:
        if len(set(self.outcomes)) < len(self.outcomes):
            raise ValueError(f"outcomes {written(self.outcomes)} contain a duplicate; name each outcome once")
        return self

    @model_validator(mode="after")
    def _engine_trains_it(self) -> Self:
        if self.resources.engine == "gpu":
            refuse_beyond_gpu(self)
            if self.budget == "grow":
                raise ValueError(
                    "'budget: grow' goes on with trainings that have ended, which resources.engine=gpu does not: leave "
                    "it out, or choose 'resources.engine=exact' or 'fast'"
                )
            if "surgery" in self.space.beside:
                left = [name for name in self.space.beside if name != "surgery"]
                raise ValueError(
                    "the control 'surgery' cannot be trained with resources.engine=gpu. Leave it out, as in "
                    f"'space.controls={written(left)}', or choose 'resources.engine=exact' or 'fast'"
                )
        return self

    @model_validator(mode="after")
    def _epochs_can_grow(self) -> Self:
        space = self.space
        if space.factors.get("budget") and "grow" in (space.factors["budget"].levels or ()):
            raise ValueError("'grow' is no level of 'budget': it says of the whole study how far epochs are trained")
        if self.budget != "grow":
            return self
        levels = space.factors[GROWING].levels if GROWING in space.factors else None
        whole = [level for level in levels if type(level) is int] if isinstance(levels, tuple) else []
        grows = len(whole) > 2 and whole == sorted(whole) and whole == list(levels or ())
        if space.design != "factorial" or self.scanvi.protocol != "joint" or not grows:
            raise ValueError(
                f"'budget: grow' trains more epochs while they matter: it needs 'design: factorial', joint training, "
                f"and a factor {GROWING} with three or more levels, whole numbers that grow, found {written(levels)}"
            )
        return self

    @property
    def directory(self) -> Path:
        """The folder of this study, absolute: Ray changes directory, so no path may stay relative."""
        return self.root.absolute() / self.name

    @property
    def query_outcomes(self) -> tuple[Outcome, ...]:
        """The outcomes that are measured on query cells, where their true labels are known."""
        return tuple(outcome for outcome in self.outcomes if outcome.startswith("query/"))

    def settings(self, levels: Mapping[str, Level]) -> Settings:
        """Return the settings with some dotted names set to the levels of a design point.

        Raises
        ------
        InputError
            If a name is no setting, or a level does not fit it.
        """
        values = self.model_dump(include=set(Settings.model_fields))
        values["budget"] = "epochs" if self.budget == "grow" else self.budget  # each trial has the epochs of its level
        for name, level in levels.items():
            *parents, leaf = name.split(".")
            target: Any = values
            for parent in parents:
                target = target.get(parent) if isinstance(target, dict) else None
            if not isinstance(target, dict) or (leaf not in target and parents[-1:] != ["extra"]):
                known = list(setting_names(values))
                raise InputError(
                    f"space.factors: {name!r} is no setting that can vary.{nearest(name, known)} "
                    f"Settings are: {', '.join(known)}."
                )
            target[leaf] = level
        try:
            found = Settings.model_validate(values)
        except PydanticError as error:
            raise InputError(explain(error, "space.factors: ", Settings, values)) from None
        if self.resources.engine == "gpu":
            try:
                refuse_beyond_gpu(found)
            except ValueError as error:
                raise InputError(f"space.factors: {error}.") from None
        return found
