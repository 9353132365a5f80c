"""One stage of training: scVI pretraining, scANVI fine-tuning with snapshots, or surgery on a query.

Each function trains a new module once, from a seed set at its start, and calls `read` at each epoch level, with the
module in eval mode and every random state put back afterwards. So a snapshot at epoch 3 of 6 equals, bit for bit, a
separate run of 3 epochs: nothing in a schedule depends on `max_epochs` (the KL weight warms up over 400 epochs).
"""

from __future__ import annotations

import inspect
import logging
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scvi
import torch
from anndata import AnnData
from lightning.pytorch import Callback
from scipy import sparse
from scvi.dataloaders import SemiSupervisedDataLoader, SemiSupervisedDataSplitter
from scvi.model import SCANVI, SCVI
from scvi.module import SCANVAE, VAE
from scvi.train._callbacks import SubSampleLabels

from study.audit import KL_WARMUP
from study.config import InputError, Resources, ScanviSettings, ScviSettings, Settings, nearest
from study.data import UNLABELLED, Cells
from study.split import Split, query_rows

State = dict[str, torch.Tensor]
_NORM = {"batch": ("both", "none"), "layer": ("none", "both"), "none": ("none", "none")}


class TrainingError(Exception):
    """A training that went wrong, such as a loss that is not finite."""


@dataclass(frozen=True)
class Hardware:
    """What a stage trains on, and with which training step."""

    accelerator: str = "cpu"
    threads: int = 1
    engine: str = "exact"
    resident: bool = False

    @classmethod
    def of(cls, resources: Resources) -> Hardware:
        """What the resources of a study say."""
        return cls(resources.accelerator, resources.cpus, resources.engine, resources.resident)


@dataclass(frozen=True)
class Snapshot:
    """A stage at one epoch level.

    Attributes
    ----------
    model
        The model, in eval mode; valid only while it is being read.
    curves
        Training curves so far, name to one value per epoch.
    probes
        What the schedule did: optimiser steps, final KL weight, labelled cells drawn.
    """

    epoch: int
    model: SCVI | SCANVI
    curves: dict[str, list[float]]
    probes: dict[str, Any]


Read = Callable[[Snapshot], None]


def pretrain(
    cells: Cells, parts: Split, settings: Settings, seed: int, epochs: Sequence[int], read: Read, on: Hardware
) -> None:
    """Train scVI on the training cells of a condition, without labels.

    Parameters
    ----------
    cells
        Reference and query.
    parts
        Training, held-out and left-out rows; only the first are trained on.
    settings
        Settings of the trial; `max_epochs` is not looked at.
    seed
        Set for torch, numpy and python before anything is made.
    epochs
        Epoch levels to read, ascending; training ends at the last.
    read
        Called with a `Snapshot` at each level.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    _prepare(seed, on)
    model = build_scvi(joint_anndata(cells, parts), settings.scvi)
    watch = _Watch(model, epochs, read)
    model.train(
        max_epochs=epochs[-1],
        datasplitter_kwargs={"external_indexing": _external(parts, cells)},
        callbacks=[watch],
        **_trainer(settings.scvi, on),
    )
    watch.confirm()


def finetune(
    cells: Cells,
    parts: Split,
    settings: Settings,
    seed: int,
    epochs: Sequence[int],
    read: Read,
    on: Hardware,
    scvi_state: State,
) -> None:
    """Train scANVI from pretrained scVI weights, on the same training cells. Parameters as in `pretrain`."""
    adata = joint_anndata(cells, parts)
    pretrained = build_scvi(adata, settings.scvi)
    pretrained.module.load_state_dict(scvi_state)
    pretrained.is_trained_ = True
    _prepare(seed, on)
    model = SCANVI.from_scvi_model(
        pretrained,
        unlabeled_category=UNLABELLED,
        labels_key="label",
        **_scanvi_arguments(settings.scanvi),
    )
    assert model.n_labels == len(cells.classes), "a class without a training cell, or a phantom class"
    model._data_splitter_cls = _Splitter
    watch = _Watch(model, epochs, read, classes=cells.classes)
    samples = settings.scanvi.n_samples_per_label
    model.train(
        max_epochs=epochs[-1],
        n_samples_per_label=None if samples == "all" else samples,
        datasplitter_kwargs={"external_indexing": _external(parts, cells)},
        # Given callbacks replace scANVI's own, and without SubSampleLabels the labelled cells are drawn once for all.
        callbacks=[SubSampleLabels(), watch],
        plan_kwargs={"classification_ratio": settings.scanvi.classification_ratio},
        **_trainer(settings.scvi, on),
    )
    watch.confirm()


def operate(
    cells: Cells,
    parts: Split,
    settings: Settings,
    seed: int,
    epochs: Sequence[int],
    read: Read,
    on: Hardware,
    scanvi_state: State,
) -> None:
    """Map a query onto a finished reference model (surgery). Parameters as in `pretrain`.

    `scanvi_state` belongs to a scANVI fine-tuned on the reference alone; only the weights of new batches are trained.
    """
    reference = joint_anndata(cells.first(0), parts)
    SCANVI.setup_anndata(reference, batch_key="batch", labels_key="label", unlabeled_category=UNLABELLED)
    trained = SCANVI(reference, **_scvi_arguments(settings.scvi), **_scanvi_arguments(settings.scanvi))
    trained.module.load_state_dict(scanvi_state)
    trained.is_trained_ = True
    _prepare(seed, on)
    query = _anndata(cells, np.arange(cells.n_reference, cells.counts.shape[0]), np.repeat(UNLABELLED, cells.n_query))
    model = SCANVI.load_query_data(query, trained, accelerator=on.accelerator)
    train = query_rows(parts, settings.scvi.batch_size) - cells.n_reference
    rest = np.setdiff1d(np.arange(cells.n_query), train)
    # Some parts of a model under surgery are frozen in eval mode on purpose.
    watch = _Watch(model, epochs, read, partly_frozen=True)
    model.train(
        max_epochs=epochs[-1],
        datasplitter_kwargs={"external_indexing": [train, np.array([], dtype=int), rest]},
        callbacks=[watch],
        plan_kwargs={"weight_decay": 0.0, "classification_ratio": settings.scanvi.classification_ratio},
        **_trainer(settings.scvi, on),
    )
    watch.confirm()


def joint_anndata(cells: Cells, parts: Split) -> AnnData:
    """Reference and query over the shared counts, held-out cells labelled as unknown."""
    labels = np.concatenate(
        [np.asarray(cells.classes, dtype=object)[cells.labels], np.repeat(UNLABELLED, cells.n_query)]
    )
    labels[parts.held_out] = UNLABELLED
    return _anndata(cells, np.arange(cells.counts.shape[0]), labels)


def build_scvi(adata: AnnData, settings: ScviSettings) -> SCVI:
    """Return a new scVI model for cells made by `joint_anndata`."""
    SCVI.setup_anndata(adata, batch_key="batch")
    return SCVI(adata, **_scvi_arguments(settings))


def probabilities(model: SCANVI, cells: Cells, adata: AnnData | None = None) -> npt.NDArray[np.float32]:
    """Return the probability of each class for each cell, shape (n_cells, n_classes), columns as in `cells.classes`."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        soft = model.predict(adata, soft=True, batch_size=1024)
    array: npt.NDArray[np.float32] = soft[list(cells.classes)].to_numpy(dtype=np.float32)
    return array


def state_of(model: SCVI | SCANVI) -> State:
    """Return a copy of the weights on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.module.state_dict().items()}


def check_extra(settings: Settings) -> None:
    """Raise `InputError` for `extra` arguments that scvi-tools does not know, or would silently ignore."""
    _check_extra(
        "scvi", settings.scvi.extra, (SCVI.__init__, VAE.__init__), _scvi_arguments(settings.scvi, extra=False)
    )
    taken = {**_scvi_arguments(settings.scvi), **_scanvi_arguments(settings.scanvi, extra=False)}
    _check_extra("scanvi", settings.scanvi.extra, (SCANVI.__init__, SCANVAE.__init__, VAE.__init__), taken)


def _check_extra(
    stage: str, extra: Mapping[str, Any], takers: Sequence[Callable[..., Any]], taken: Mapping[str, Any]
) -> None:
    known = {name for taker in takers for name in inspect.signature(taker).parameters} - {"self", "adata", "registry"}
    for name in extra:
        if name in taken:
            raise InputError(
                f"{stage}.extra: {name!r} is set already by a setting of scvi or scanvi; scANVI ignores a second value."
            )
        if name not in known:
            raise InputError(
                f"{stage}.extra: {name!r} is no argument of scvi-tools here.{nearest(name, sorted(known))}"
            )
    _resolve(extra)


def _resolve(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the name of an activation into the function."""
    resolved = dict(extra)
    name = resolved.get("var_activation")
    if isinstance(name, str):
        if not callable(getattr(torch.nn.functional, name, None)):
            raise InputError(f"extra.var_activation: torch.nn.functional has no {name!r}; for example 'softplus'.")
        resolved["var_activation"] = getattr(torch.nn.functional, name)
    return resolved


def _scvi_arguments(settings: ScviSettings, extra: bool = True) -> dict[str, Any]:
    batch_norm, layer_norm = _NORM[settings.norm]
    return {
        "n_layers": settings.n_layers,
        "n_latent": settings.n_latent,
        "n_hidden": settings.n_hidden,
        "dropout_rate": settings.dropout_rate,
        "gene_likelihood": settings.gene_likelihood,
        "dispersion": settings.dispersion,
        "use_batch_norm": batch_norm,
        "use_layer_norm": layer_norm,
        **(_resolve(settings.extra) if extra else {}),
    }


def _scanvi_arguments(settings: ScanviSettings, extra: bool = True) -> dict[str, Any]:
    return {"linear_classifier": settings.linear_classifier, **(_resolve(settings.extra) if extra else {})}


def _anndata(cells: Cells, rows: npt.NDArray[np.int64], labels: npt.NDArray[Any]) -> AnnData:
    """AnnData over some consecutive rows of the shared counts, without a copy where they start at 0."""
    counts = cells.counts if rows.size == cells.counts.shape[0] else cells.counts[rows[0] : rows[-1] + 1]
    batch = np.asarray(cells.batches, dtype=object)[cells.batch[rows]]
    index = pd.RangeIndex(rows.size).astype(str)
    # Categories are only those that occur: scvi-tools makes phantom classes and batches of unused ones.
    obs = pd.DataFrame({"batch": pd.Categorical(batch), "label": pd.Categorical(labels)}, index=index)
    return AnnData(sparse.csr_matrix(counts, copy=False), obs=obs)


def _external(parts: Split, cells: Cells) -> list[npt.NDArray[np.int64]]:
    """Both stages get the same rows. An empty validation part; what is not trained on is the test part."""
    rest = np.setdiff1d(np.arange(cells.counts.shape[0]), parts.train)
    return [parts.train, np.array([], dtype=np.int64), rest]


def _trainer(settings: ScviSettings, on: Hardware) -> dict[str, Any]:
    return {
        "batch_size": settings.batch_size,
        "accelerator": on.accelerator,
        "devices": 1,
        "enable_progress_bar": False,
    }


def _prepare(seed: int, on: Hardware) -> None:
    """Seed everything. `settings.seed` seeds only when it is assigned, so each stage assigns it."""
    for chatty in ("lightning.pytorch", "lightning.fabric", "scvi"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    torch.set_num_threads(on.threads)
    scvi.settings.seed = seed


class _LabelledLoader(SemiSupervisedDataLoader):  # type: ignore[misc]
    """The stock loader, but never with a last labelled minibatch of one cell, and counting what it draws."""

    def __init__(self, *args: Any, batch_size: int = 128, **kwargs: Any) -> None:
        self._size = batch_size
        self.draws: dict[int, int] = {}
        super().__init__(*args, batch_size=batch_size, **kwargs)

    def subsample_labels(self) -> npt.NDArray[np.int64]:
        """Draw the labelled cells of an epoch."""
        rows: npt.NDArray[np.int64] = super().subsample_labels()
        return rows[:-1] if rows.size % self._size == 1 and rows.size > 1 else rows

    def resample_labels(self) -> None:
        """Draw anew, at the start of each epoch, and count."""
        super().resample_labels()
        for row in self.dataloaders[1].indices:
            self.draws[int(row)] = self.draws.get(int(row), 0) + 1


class _Splitter(SemiSupervisedDataSplitter):  # type: ignore[misc]
    """The stock splitter with that loader."""

    def setup(self, stage: str | None = None) -> None:
        """Split, then replace the loader."""
        super().setup(stage)
        self.data_loader_class = _LabelledLoader


# No repr: lightning asks for that of its callbacks, and a model's prints itself.
@dataclass(eq=False, repr=False)
class _Watch(Callback):  # type: ignore[misc]
    """Reads a stage at its epoch levels without disturbing it, and checks that it trains as it should."""

    model: SCVI | SCANVI
    epochs: Sequence[int]
    read: Read
    classes: Sequence[str] = ()
    partly_frozen: bool = False
    curves: dict[str, list[float]] = field(default_factory=dict)
    reached: int = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self.classes:
            assert any(isinstance(c, SubSampleLabels) for c in trainer.callbacks), "labelled cells would be drawn once"
        assert pl_module.n_epochs_kl_warmup == KL_WARMUP, "a schedule that depends on the epochs cannot be shared"

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        # A second train() on a model, or one after load, would run without dropout and with BatchNorm frozen.
        if batch_idx == 0 and not self.partly_frozen:
            assert all(part.training for part in pl_module.module.modules()), "training in eval mode"

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        epoch = trainer.current_epoch + 1
        for name, value in trainer.callback_metrics.items():
            self.curves.setdefault(name, []).append(float(value))
        loss = self.curves["train_loss"][-1]
        if not math.isfinite(loss):
            raise TrainingError(f"the training loss is {loss} in epoch {epoch}")
        if epoch in self.epochs:
            with undisturbed(pl_module.module):
                curves = {name: list(values) for name, values in self.curves.items()}
                self.model.is_trained_ = True  # or scvi-tools refuses to read the latent space
                self.read(Snapshot(epoch, self.model, curves, self._probes(trainer, pl_module)))
                self.model.is_trained_ = False
            self.reached = epoch

    def confirm(self) -> None:
        """Raise unless every level was read: scvi-tools ends a training early without an error on an interrupt."""
        if self.reached != self.epochs[-1]:
            raise TrainingError(f"training ended after epoch level {self.reached} of {self.epochs[-1]}")

    def _probes(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        probes: dict[str, Any] = {"steps": int(trainer.global_step), "kl_weight": float(pl_module.kl_weight)}
        loader = trainer.train_dataloader
        if isinstance(loader, _LabelledLoader):
            labels = np.asarray(self.model.adata.obs["label"])
            rows = np.fromiter(loader.draws, dtype=int)
            drawn = np.array([loader.draws[row] for row in rows])
            of = {name: labels[rows] == name for name in self.classes}
            probes["labelled_batches"] = len(loader.dataloaders[1])
            probes["batches"] = len(loader)
            probes["distinct_labelled"] = {name: int(mask.sum()) for name, mask in of.items()}
            probes["draws_per_cell"] = {name: float(drawn[mask].mean()) for name, mask in of.items() if mask.any()}
        return probes


@contextmanager
def undisturbed(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into eval mode; afterwards restore the mode of each part and all random states.

    Prediction in train mode would change BatchNorm statistics, and its loader draws from the global generator.
    """
    modes = [(part, part.training) for part in module.modules()]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
