"""The minibatches of an epoch for stages that train together: row numbers alone, of one shape in all steps.

What scvi-tools' loaders draw: all training cells in a new order, and beside each minibatch one of labelled cells, drawn
anew for each epoch and given again and again while it lasts. Where a minibatch has fewer cells than others, its rows go
on with one of its cells, and its size says how many count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from study.plan import Indices


@dataclass(frozen=True, eq=False)
class Draw:
    """Minibatches.

    Attributes
    ----------
    rows
        Shape (n_steps, batch_size), int64.
    sizes
        How many rows of each step count, shape (n_steps,).
    """

    rows: Indices
    sizes: Indices


def steps_of(n_cells: int, batch_size: int) -> int:
    """Return how many minibatches some cells make."""
    return -(-n_cells // batch_size)


def draw(rows: Indices, batch_size: int, random: np.random.Generator) -> Draw:
    """Put cells in a new order, in minibatches.

    Raises
    ------
    ValueError
        If one has a single cell, which BatchNorm cannot learn from.
    """
    order, steps = random.permutation(rows), steps_of(rows.size, batch_size)
    starts = np.arange(steps) * batch_size
    sizes = np.minimum(rows.size - starts, batch_size)
    if sizes[-1] == 1:
        raise ValueError("a minibatch of a single cell")
    place = np.arange(batch_size)
    return Draw(order[starts[:, None] + np.where(place < sizes[:, None], place, 0)], sizes)


def again(one: Draw, n_steps: int) -> Draw:
    """Return minibatches for so many steps, from the first again after the last."""
    at = np.arange(n_steps) % one.sizes.size
    return Draw(one.rows[at], one.sizes[at])


def stacked(draws: Sequence[Draw]) -> Draw:
    """Put the minibatches of members together, shape (n_steps, n_members, batch_size)."""
    return Draw(np.stack([one.rows for one in draws], axis=1), np.stack([one.sizes for one in draws], axis=1))


def drawn_labelled(
    labelled: Mapping[str, Indices], samples: int | None, batch_size: int, random: np.random.Generator
) -> Indices:
    """Draw the labelled cells of an epoch: up to `samples` of each label, all where None; never one left alone.

    As `study.training.batches.LabelledBatches` does: a last minibatch of a single cell is left out.
    """
    kept = [
        rows if samples is None or rows.size < samples else random.choice(rows, samples, replace=False)
        for rows in labelled.values()
    ]
    rows = np.concatenate(kept)
    return rows[:-1] if rows.size % batch_size == 1 and rows.size > 1 else rows
