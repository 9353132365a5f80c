"""A model that scvi-tools saved, read without running anything that its file could hold."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from study.errors import InputError

FILE = "model.pt"
KINDS = ("SCVI", "SCANVI")
# What tensors, data frames, arrays and dictionaries are made of, and activations; none of it runs anything.
HARMLESS = frozenset(
    (
        *("builtins.bytes", "builtins.dict", "builtins.slice", "builtins.set", "_codecs.encode"),
        *("collections.OrderedDict", "collections.defaultdict", "numpy.dtype", "numpy.ndarray"),
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *("pandas._libs.internals._unpickle_block", "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked"),
        *("pandas.core.frame.DataFrame", "pandas.core.series.Series", "pandas.core.internals.blocks.new_block"),
        *(f"pandas.core.indexes.{name}" for name in ("base.Index", "base._new_Index", "range.RangeIndex")),
        *(f"pandas.core.internals.managers.{name}" for name in ("BlockManager", "SingleBlockManager")),
        *(f"pandas.core.arrays.{name}" for name in ("string_.StringDtype", "string_.StringArray")),
        *("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "torch.Size", "torch.device"),
        *(f"torch.{name}" for name in ("float32", "float64", "float16", "int64", "int32", "uint8", "bool", "exp")),
        *(f"torch._C._nn.{name}" for name in ("softplus", "gelu", "elu_")),
        *(f"torch.nn.functional.{name}" for name in ("softplus", "relu", "elu", "gelu", "leaky_relu", "sigmoid")),
        *(f"torch.nn.modules.activation.{name}" for name in ("ReLU", "LeakyReLU", "ELU", "GELU", "Softplus", "Tanh")),
    )
)


class _Refused(Exception):
    """A name that loading would look up, and that is not known to be harmless."""


class _Strict(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)  # older protocols call it so
        # A name with a dot would go on from one object to another.
        if "." in name or f"{module}.{name}" not in HARMLESS:
            raise _Refused(f"{module}.{name}")
        return super().find_class(module, name)


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
    train, validation
        Rows of the cells that its last training used, and that it kept for validation; None if it was never trained.
    weights
        Tensors by name.
    """

    folder: Path
    genes: npt.NDArray[np.str_]
    registry: Mapping[str, Any]
    settings: Mapping[str, Any]
    history: Mapping[str, npt.NDArray[np.float64]]
    train: npt.NDArray[np.int64] | None
    validation: npt.NDArray[np.int64] | None
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
        return int(self._stats("X")["n_cells"])

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
        return self._state("labels").get("unlabeled_category")

    def key(self, field: str) -> str | None:
        """Return the column of `obs` that a field (`batch`, `labels`) was taken from, as the user named it."""
        found = self.registry["setup_args"].get(f"{field}_key")
        return None if found is None else str(found)

    @property
    def epochs(self) -> int:
        """Epochs that it was trained for, all trainings together."""
        return max((len(values) for values in self.history.values()), default=0)

    @cached_property
    def steps(self) -> int | None:
        """Minibatches that BatchNorm saw in training mode in the training of this very model; None without BatchNorm.

        Each minibatch passes once through scVI's decoder, and once through the layers that only scANVI has.
        """
        return self._tracked("decoder_z1_z2." if self.kind == "SCANVI" else "decoder.")

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

    def _stats(self, field: str) -> Mapping[str, Any]:
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
    kept = _read(_file_of(folder), trust_pickle)
    attributes, weights, genes = (kept.get(name) for name in ("attr_dict", "model_state_dict", "var_names"))
    if not isinstance(attributes, dict) or not isinstance(weights, Mapping) or genes is None:
        raise InputError(f"{folder / FILE}: is no model that scvi-tools saved. Expected what model.save(...) writes.")
    registry = attributes.get("registry_")
    if not isinstance(registry, Mapping) or not {"model_name", "field_registries", "setup_args"} <= registry.keys():
        raise InputError(f"{folder / FILE}: was saved by scvi-tools before 1.0. Load and save it with a newer one.")
    if registry["model_name"] not in KINDS:
        raise InputError(f"{folder / FILE}: is a {registry['model_name']}. Expected an SCVI or SCANVI.")
    history = attributes.get("history_") or {}
    return SavedModel(
        folder,
        np.asarray(genes).astype(str),
        registry,
        _flat(attributes.get("init_params_") or {}),
        {str(name): np.asarray(values, dtype=float).ravel() for name, values in history.items()},
        _rows(attributes.get("train_indices_")),
        _rows(attributes.get("validation_indices_")),
        weights,
    )


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


def _read(path: Path, trust_pickle: bool) -> dict[str, Any]:
    """Load the file; unless it is trusted, no object is made but those of `HARMLESS`.

    torch's own `weights_only` refuses the dictionaries and data frames that scvi-tools writes.
    """
    import torch  # slow to import

    strict = SimpleNamespace(Unpickler=_Strict, load=_Strict.load, __name__="strict")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no file that torch.save wrote")
        found = torch.load(
            path, map_location="cpu", weights_only=False, pickle_module=pickle if trust_pickle else strict
        )
    except _Refused as error:
        raise InputError(
            f"{path}: holds {error}, which loading would run. If you made the file, say --trust-pickle."
        ) from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, OSError, ValueError, KeyError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"{path}: cannot be read ({first[:200]}). It may be cut short: copy or save it again."
        ) from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: is no model that scvi-tools saved. Expected what model.save(...) writes.")
    return found


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested arguments by their own names: scvi-tools keeps them as kwargs and others."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value) if isinstance(value, Mapping) else {str(name): value}
    return found


def _rows(values: Any) -> npt.NDArray[np.int64] | None:
    return None if values is None else np.asarray(values, dtype=np.int64)
