"""Kinds of values that a configuration holds, and what all of its models have in common."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
)


def written(value: object) -> str:
    """Return a value as a configuration has it: true, null, [10, all]; text is not quoted."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _level(value: object) -> object:
    if not isinstance(value, bool | int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(
            f"a level is a finite number, text, true or false, found {written(value)}; write one, or leave it out"
        )
    return value


Level = Annotated[bool | int | float | str, PlainValidator(_level)]
# A value of a column: numbers become text by themselves, and a column of true and false has 'True' and 'False'.
Value = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, bool) else value)]
Count = Annotated[int, Field(strict=True, ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Separation = Annotated[float, Field(gt=0, le=20)]
Outcome = Literal[
    "heldout/recall", "train/recall", "train/precision", "heldout/precision", "query/recall", "query/precision"
]
Control = Literal["none", "self", "surgery", "shuffled", "repeat", "logistic", "knn", "novel"]
# Other ways to the same labels, that scANVI is compared with; they cost seconds.
YARDSTICKS: tuple[Control, ...] = ("logistic", "knn")
SEED_LIMIT = 2**32
WHOLE_LIMIT = 2**53  # a float holds every integer up to here
DEEPEST = 1e7  # mean counts of a simulated cell: single ones then stay far below what an int32 holds


class Model(BaseModel):
    """Base of all configuration: frozen, and a key that it does not know is an error.

    No number is infinite or NaN. A name may look like a number, as in `query=4`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)


def dump(config: BaseModel) -> dict[str, Any]:
    """Return a configuration as plain values that YAML and JSON can hold."""
    return config.model_dump(mode="json")
