"""A model that scvi-tools saved, read without running anything that its file could hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from study.diagnosis.pickled import Kept, load
from study.errors import InputError

FILE = "model.pt"
KINDS = ("SCVI", "SCANVI")
MOST_EPOCHS = 1_000_000
# Curves with one value an epoch.
EPOCH_CURVES = ("elbo_train", "train_loss_epoch", "train_classification_loss", "reconstruction_loss_train")


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A saved SCVI or SCANVI.

    Attributes
    ----------
    folder
        Where it is.
    genes
        Names of the genes that it knows.
    registry
        How its data were set up.
    settings
        What it was made with, by scvi-tools' names.
    history
        Training curves, one value per epoch.
    restarted
        Whether its curves show that a training began anew: the epochs of one go back.
    train, validation
        Rows of the cells that its last training used, and that it kept for validation; None if it was never trained.
    called
        Labels of its cells as scANVI itself kept them, in its own order; None where it kept none.
    weights
        Tensors by name.
    """

    folder: Path
    genes: npt.NDArray[np.str_]
    registry: Mapping[str, Any]
    settings: Mapping[str, Any]
    history: Mapping[str, npt.NDArray[np.float64]]
    restarted: bool
    train: npt.NDArray[np.int64] | None
    validation: npt.NDArray[np.int64] | None
    called: npt.NDArray[np.str_] | None
    weights: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """`SCVI` or `SCANVI`."""
        return str(self.registry["model_name"])

    @property
    def version(self) -> str:
        """scvi-tools that made it."""
        return str(self.registry["scvi_version"])

    @property
    def n_cells(self) -> int:
        """Number of cells that it was set up with."""
        return int(self.stats("X")["n_cells"])

    @property
    def layer(self) -> str | None:
        """Layer that it took counts from; None for X."""
        found = self.registry["setup_args"].get("layer")
        return None if found is None else str(found)

    @property
    def batches(self) -> tuple[str, ...]:
        """Names of its batches."""
        return self._categories("batch")

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its labels, with the one for unlabelled cells."""
        return self._categories("labels")

    @property
    def unlabelled(self) -> str | None:
        """The label that stands for none; of scANVI alone."""
        found = self._state("labels").get("unlabeled_category")
        return None if found is None else str(found)

    def key(self, field: str) -> str | None:
        """Return the column of `obs` that a field (`batch`, `labels`) was taken from, as the user named it."""
        found = self.registry["setup_args"].get(f"{field}_key")
        return None if found is None else str(found)

    @property
    def epochs(self) -> int:
        """Epochs that it was trained for, all trainings together: as many as its training loss has values."""
        by_epoch = [len(self.history[name]) for name in EPOCH_CURVES if name in self.history]
        return max(by_epoch, default=0)

    @cached_property
    def steps(self) -> int | None:
        """Minibatches that BatchNorm saw in training mode in the training of this very model; None without BatchNorm.

        Each minibatch passes once through scVI's decoder, and once through the layers that only scANVI has.
        """
        own = ("decoder_z1_z2.", "encoder_z2_z1.") if self.kind == "SCANVI" else ("decoder.", "z_encoder.")
        return next((found for part in own if (found := self._tracked(part)) is not None), None)

    @cached_property
    def inherited(self) -> int | None:
        """The same of the scVI that a scANVI was made from; None without BatchNorm, and of scVI."""
        every, own = self._tracked("decoder."), self.steps
        return None if every is None or own is None or self.kind == "SCVI" else every - own

    @property
    def identity(self) -> str:
        """What scvi-tools gave the set-up; a scANVI has that of the scVI that it was made from."""
        return str(self.registry.get("_scvi_uuid", ""))

    def _tracked(self, part: str) -> int | None:
        found = [int(value) for name, value in self.weights.items()
                 if name.startswith(part) and name.endswith("num_batches_tracked")]  # fmt: skip
        return max(found, default=None)

    def _state(self, field: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.registry["field_registries"].get(field, {}).get("state_registry", {})
        return found

    def stats(self, field: str) -> Mapping[str, Any]:
        """Return what the set-up counted of a field, such as `n_cells` of `X`."""
        found: Mapping[str, Any] = self.registry["field_registries"].get(field, {}).get("summary_stats", {})
        return found

    def _categories(self, field: str) -> tuple[str, ...]:
        return tuple(map(str, self._state(field).get("categorical_mapping", ())))


def read_model(folder: Path, trust_pickle: bool = False) -> SavedModel:
    """Read a model that scvi-tools 1.0 or newer saved.

    Parameters
    ----------
    folder
        What `model.save` was given, or the `model.pt` in it.
    trust_pickle
        Whether objects may be made that could run anything, because the file is the user's own.

    Raises
    ------
    InputError
        If it is no such model, is broken, or holds objects that are not known to be harmless.
    """
    folder = folder.parent if folder.name == FILE else folder
    kept = load(_file_of(folder), trust_pickle)
    attributes, weights, genes = (kept.get(name) for name in ("attr_dict", "model_state_dict", "var_names"))
    if not isinstance(attributes, dict) or not isinstance(weights, Mapping) or genes is None:
        raise InputError(f"{folder / FILE}: is no model that scvi-tools saved. Expected what model.save(...) writes.")
    registry = attributes.get("registry_")
    if not isinstance(registry, Mapping) or not {"model_name", "field_registries", "setup_args"} <= registry.keys():
        raise InputError(f"{folder / FILE}: was saved by scvi-tools before 1.0. Load and save it with a newer one.")
    if registry["model_name"] not in KINDS:
        raise InputError(f"{folder / FILE}: is a {registry['model_name']}. Expected an SCVI or SCANVI.")
    try:
        model = SavedModel(
            folder,
            np.asarray(genes).astype(str),
            registry,
            _flat(attributes.get("init_params_") or {}),
            _curves(attributes.get("history_") or {}),
            any(_falls_back(values) for values in (attributes.get("history_") or {}).values()),
            _rows(attributes.get("train_indices_")),
            _rows(attributes.get("validation_indices_")),
            _labels(attributes.get("labels_")),
            weights,
        )
        _refuse_inconsistent(model)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise InputError(
            f"{folder / FILE}: what it keeps is not what scvi-tools writes ({type(error).__name__}: {error}). "
            "Save the model again."
        ) from None
    return model


def _refuse_inconsistent(model: SavedModel) -> None:
    """Raise `ValueError` where parts of a model do not fit each other; what reads them later may then rely on it."""
    for name, rows in (("train_indices_", model.train), ("validation_indices_", model.validation)):
        if rows is not None and rows.size and not 0 <= rows.min() <= rows.max() < model.n_cells:
            raise ValueError(f"{name} has rows from {rows.min()} to {rows.max()}, and there are {model.n_cells} cells")
    if not all(isinstance(name, str) for name in model.weights):
        raise ValueError("names of weights are no text")
    if model.genes.ndim != 1 or len(model.genes) != int(model.stats("X").get("n_vars", len(model.genes))):
        raise ValueError(f"{len(model.genes)} names of genes")
    _ = (model.kind, model.version, model.layer, model.batches, model.labels, model.unlabelled, model.epochs)
    _ = (model.key("batch"), model.key("labels"), model.steps, model.inherited)


def _curves(history: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float64]]:
    return {str(name): _numbers(values) for name, values in history.items()}


def _numbers(values: Any) -> npt.NDArray[np.float64]:
    """The values of a curve: of a data frame that was only kept, the first of its blocks, which alone have two axes."""
    if isinstance(values, Kept):
        return next((one.astype(float).ravel() for one in _arrays(values) if one.ndim == 2), np.zeros(0))
    return np.asarray(values, dtype=float).ravel()


def _falls_back(values: Any) -> bool:
    """Whether the epochs of a curve go back."""
    size = _numbers(values).size
    if isinstance(values, Kept):
        index = [one for one in _arrays(values) if one.dtype.kind in "iu" and one.shape == (size,)]
    else:
        index = [np.asarray(values.index)] if hasattr(values, "index") and hasattr(values, "columns") else []
    return any((np.diff(one.astype(float)) < 0).any() for one in index)


def _arrays(part: Any) -> Iterator[npt.NDArray[Any]]:
    """All arrays of what was only kept, in order."""
    if isinstance(part, np.ndarray):
        yield part
    elif isinstance(part, Kept):
        yield from _arrays(part.parts)
    elif isinstance(part, Mapping) and {"start", "stop", "step"} <= part.keys():
        # So pandas keeps an even index; no training has more epochs than this.
        yield np.asarray(range(part["start"], part["stop"], part["step"])[:MOST_EPOCHS])
    elif isinstance(part, Mapping):
        yield from _arrays(tuple(part.values()))
    elif isinstance(part, list | tuple):
        for one in part:
            yield from _arrays(one)


def _labels(values: Any) -> npt.NDArray[np.str_] | None:
    return None if values is None else np.asarray(values).astype(str)


def _file_of(folder: Path) -> Path:
    path = folder / FILE
    if path.is_file():
        return path
    if not folder.exists():
        raise InputError(f"{folder}: no such folder. Expected one that model.save(...) wrote.")
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder. Expected one that model.save(...) wrote, with {FILE} in it.")
    others = sorted(one.name for one in folder.glob(f"*{FILE}"))
    if others:
        raise InputError(f"{folder}: has {', '.join(others)}, saved with a prefix. Rename it to {FILE}.")
    below = sorted(str(one.parent) for one in folder.glob(f"*/{FILE}"))
    hint = f" Models are in: {', '.join(below)}." if below else ""
    raise InputError(f"{folder}: has no {FILE}. Expected a folder that model.save(...) wrote.{hint}")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested arguments by their own names: scvi-tools keeps them as kwargs and others."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value) if isinstance(value, Mapping) else {str(name): value}
    return found


def _rows(values: Any) -> npt.NDArray[np.int64] | None:
    return None if values is None else np.asarray(values, dtype=np.int64)
