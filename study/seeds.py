"""Random numbers with a purpose, and keys: hashes over everything that can change a result."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return random numbers of their own for each purpose, so that no use of them shifts another."""
    digest = hashlib.sha256(purpose.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


# Part of every key: raise it when code changes what a trial gives, so that old results are not taken for new ones.
SCHEMA = 1


def key_of(*parts: Any) -> str:
    """Return the sha256 (hex) of some plain values in canonical JSON."""
    text = json.dumps([SCHEMA, *parts], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
