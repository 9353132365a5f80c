"""Kinds of values that a configuration holds, and what all of its models have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)

Level = StrictBool | StrictInt | StrictFloat | StrictStr
Count = Annotated[int, Field(strict=True, ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Separation = Annotated[float, Field(gt=0, le=20)]
Outcome = Literal[
    "heldout/recall", "train/recall", "train/precision", "heldout/precision", "query/recall", "query/precision"
]
Control = Literal["none", "self", "surgery", "shuffled", "repeat", "logistic", "novel"]
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
