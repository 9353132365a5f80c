"""Minibatches for scvi-tools: its cells in its order, gathered from counts that lie on the host or on the GPU."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from lightning.pytorch import LightningDataModule
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.dataloaders import AnnDataLoader, DataSplitter, SemiSupervisedDataLoader, SemiSupervisedDataSplitter
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from study.errors import InputError
from study.plan import Indices
from study.training.private import labelled_rows

Batch = dict[str, torch.Tensor]
GIB = 2**30
# What a GPU must still hold beside the counts: the model, its optimiser and a minibatch.
BESIDE = GIB


@dataclass(frozen=True, eq=False)
class OnHost:
    """The cells of a model in the memory of the host.

    Attributes
    ----------
    counts
        Shape (n_cells, n_genes), float32.
    columns
        Everything else that is registered, such as batches and labels, each of shape (n_cells, 1).
    """

    counts: sp.csr_matrix
    columns: dict[str, npt.NDArray[np.integer]]

    @classmethod
    def of(cls, manager: AnnDataManager) -> OnHost:
        """Take the cells that are registered; counts are not copied."""
        return cls(manager.get_from_registry(REGISTRY_KEYS.X_KEY), _columns(manager))

    def batch(self, rows: Indices) -> Batch:
        """Return the minibatch of some cells; counts are dense, shape (n_rows, n_genes)."""
        counts = torch.from_numpy(self.counts[rows].toarray())
        columns = {key: torch.from_numpy(values[rows].astype(np.int64)) for key, values in self.columns.items()}
        return {REGISTRY_KEYS.X_KEY: counts, **columns}


@dataclass(frozen=True, eq=False)
class Resident:
    """The cells of a model in the memory of a device, where minibatches are made without asking the host.

    Attributes
    ----------
    starts
        Where the counts of each cell start, shape (n_cells,), int64.
    sizes
        How many counts each cell has, shape (n_cells,), int64; on the host, where the sizes of tensors are needed.
    genes
        Gene of each count, shape (n_counts,).
    counts
        Counts above 0, shape (n_counts,), float32.
    columns
        As in `OnHost`, int64.
    """

    starts: torch.Tensor
    sizes: Indices
    genes: torch.Tensor
    counts: torch.Tensor
    columns: dict[str, torch.Tensor]
    n_genes: int

    @classmethod
    def of(cls, manager: AnnDataManager, device: torch.device) -> Resident:
        """Copy the cells that are registered to a device.

        Raises
        ------
        InputError
            If they do not fit on the GPU.
        """
        matrix = manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        if device.type == "cuda":
            check_fits(matrix.data.nbytes + matrix.indices.nbytes, torch.cuda.mem_get_info(device)[0])
        starts = matrix.indptr[:-1].astype(np.int64)
        sizes = np.diff(matrix.indptr).astype(np.int64)
        columns = {key: _tensor(values).to(device, torch.int64) for key, values in _columns(manager).items()}
        genes, counts = _tensor(matrix.indices).to(device), _tensor(matrix.data).to(device)
        return cls(_tensor(starts).to(device), sizes, genes, counts, columns, matrix.shape[1])

    def batch(self, rows: Indices) -> Batch:
        """Return the minibatch of some cells; counts are dense, shape (n_rows, n_genes)."""
        device = self.counts.device
        total = int(self.sizes[rows].sum())
        sizes = torch.from_numpy(self.sizes[rows]).to(device, non_blocking=True)
        chosen = torch.from_numpy(rows).to(device, non_blocking=True)
        cell = torch.repeat_interleave(sizes, output_size=total)
        before = sizes.cumsum(0) - sizes
        place = (self.starts[chosen] - before)[cell] + torch.arange(total, device=device)
        dense = torch.zeros(rows.size * self.n_genes, device=device)
        dense[cell * self.n_genes + self.genes[place]] = self.counts[place]
        counts = dense.view(rows.size, self.n_genes)
        return {REGISTRY_KEYS.X_KEY: counts, **{key: values[chosen] for key, values in self.columns.items()}}


def gather(manager: AnnDataManager, device: str | None) -> Callable[[Indices], Batch]:
    """Return what makes the minibatch of some cells: on the host, or on the device that shall hold the counts."""
    cells = OnHost.of(manager) if device is None else Resident.of(manager, torch.device(device))
    return cells.batch


def check_fits(needed: int, free: int) -> None:
    """Raise `InputError` unless counts of so many bytes leave room on a GPU with so many free ones."""
    if needed + BESIDE > free:
        raise InputError(
            f"resources.resident=true: the counts take {needed / GIB:.2f} GiB and the GPU has {free / GIB:.2f} GiB "
            f"free, of which {BESIDE / GIB:.0f} GiB stay for the model. Set resources.resident=false, take fewer genes "
            "(data.genes), or let fewer stages share a GPU (resources.gpus)."
        )


def _columns(manager: AnnDataManager) -> dict[str, npt.NDArray[np.integer]]:
    return {key: manager.get_from_registry(key) for key in (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY)}


def _tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    with warnings.catch_warnings():
        # Shared counts are read-only, and torch warns of what nobody does here: writing to them.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


class Batches(AnnDataLoader):  # type: ignore[misc]
    """The minibatches of scvi-tools' own loader, in the same order, gathered on a device.

    Sampling is left to scvi-tools, so the random generators are drawn from as it does.
    """

    def __init__(self, manager: AnnDataManager, *args: Any, device: str | None = None, **kwargs: Any) -> None:
        self.gather = gather(manager, device)
        super().__init__(manager, *args, **kwargs)

    def __iter__(self) -> Iterator[Batch]:
        """Gather the minibatches of an epoch."""
        return map(self.gather, _rows(self))


class LabelledBatches(SemiSupervisedDataLoader):  # type: ignore[misc]
    """Pairs of minibatches, joint and labelled, as scvi-tools' own loader makes them, gathered on a device.

    Labelled minibatches come again and again while an epoch lasts; only their row numbers are kept for that. The last
    one never has a single cell, and epochs are counted by cell, shape (n_cells,), in `draws`.
    """

    def __init__(
        self, manager: AnnDataManager, *args: Any, batch_size: int = 128, device: str | None = None, **kwargs: Any
    ) -> None:
        self._size = batch_size
        self.draws: Indices = np.zeros(manager.adata.n_obs, dtype=np.int64)
        self.gather = gather(manager, device)
        super().__init__(manager, *args, batch_size=batch_size, **kwargs)

    def subsample_labels(self) -> Indices:
        """Draw the labelled cells of an epoch."""
        rows: Indices = super().subsample_labels()
        return rows[:-1] if rows.size % self._size == 1 and rows.size > 1 else rows

    def __iter__(self) -> Iterator[tuple[Batch, Batch]]:
        """Gather the pairs of an epoch."""
        joint, labelled = self.dataloaders
        # Here, because labelled cells may be drawn anew after lightning has begun an epoch.
        self.draws[np.asarray(labelled.indices)] += 1
        # In this order, which is that of scvi-tools: each takes a number from the global generator.
        again = itertools.cycle(_rows(labelled))
        pairs = zip(_rows(joint), again, strict=False)
        return ((self.gather(one), self.gather(other)) for one, other in pairs)


def _rows(loader: AnnDataLoader) -> Iterator[Indices]:
    """Rows of each minibatch that a loader would load."""
    # Unused, but it takes a seed for workers from the global generator.
    DataLoader.__iter__(loader)
    return _minibatches(np.asarray(loader.indices, dtype=np.int64), loader.sampler)


def _minibatches(rows: Indices, sampler: BatchSampler) -> Iterator[Indices]:
    if isinstance(sampler.sampler, RandomSampler):
        # What torch's sampler does, but for its list of all numbers, five times as large as an array of them.
        seed = int(torch.empty((), dtype=torch.int64).random_().item())
        rows = rows[torch.randperm(rows.size, generator=torch.Generator().manual_seed(seed)).numpy()]
    for start in range(0, rows.size, sampler.batch_size):
        yield rows[start : start + sampler.batch_size]


class _Given(LightningDataModule):  # type: ignore[misc]
    """Splitters that train on the rows they are given, ascending, and leave it at that.

    scvi-tools' own `external_indexing` would check them as sets of numbers, which take more memory than the rest of
    what is known of the cells.
    """

    def __init__(self, adata_manager: AnnDataManager, *, rows: Indices, **kwargs: Any) -> None:
        super().__init__(adata_manager, **{**kwargs, "train_size": 1.0})
        self.rows, self.n_train, self.n_val = rows, rows.size, 0
        self.val_idx = self.test_idx = rows[:0]


class Splitter(_Given, DataSplitter):  # type: ignore[misc]
    """For unlabelled cells."""

    data_loader_cls = Batches

    def setup(self, stage: str | None = None) -> None:
        """Take all rows."""
        self.train_idx = self.rows


class LabelledSplitter(_Given, SemiSupervisedDataSplitter):  # type: ignore[misc]
    """For labelled cells."""

    def setup(self, stage: str | None = None) -> None:
        """Take all rows, labelled cells first, as scvi-tools does."""
        labelled = np.isin(self.rows, labelled_rows(self))
        self.train_idx = np.concatenate([self.rows[labelled], self.rows[~labelled]])
        self.data_loader_class = Batches
        if labelled.any():
            self.data_loader_class = LabelledBatches
            self.data_loader_kwargs["n_samples_per_label"] = self.n_samples_per_label
