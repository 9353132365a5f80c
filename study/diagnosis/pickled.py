"""A file that torch saved, loaded without running anything that it could hold."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from study.errors import InputError

# What tensors, arrays and dictionaries are made of, and activations; none of it runs anything.
HARMLESS = frozenset(
    (
        *(f"builtins.{name}" for name in ("bytes", "bytearray", "dict", "slice", "set")),
        "_codecs.encode",
        *("collections.OrderedDict", "collections.defaultdict", "numpy.dtype", "numpy.ndarray"),
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "torch.Size", "torch.device"),
        *(f"torch.{name}" for name in ("float32", "float64", "float16", "int64", "int32", "uint8", "bool", "exp")),
        *(f"torch._C._nn.{name}" for name in ("softplus", "gelu", "elu_")),
        *(f"torch.nn.functional.{name}" for name in ("softplus", "relu", "elu", "gelu", "leaky_relu", "sigmoid")),
        *(f"torch.nn.modules.activation.{name}" for name in ("ReLU", "LeakyReLU", "ELU", "GELU", "Softplus", "Tanh")),
    )
)
# Data frames differ between versions of pandas; nothing of these is called, what they are made of is only kept.
KEPT_ONLY = ("pandas", "pyarrow")


class Kept:
    """Stands for an object of `KEPT_ONLY`: what it would have been made of, and never more."""

    def __new__(cls, *parts: Any, **named: Any) -> Kept:
        """Keep what it would have been called with."""
        made = super().__new__(cls)
        made.parts = (*parts, *named.values())
        return made

    parts: tuple[Any, ...]

    def __init__(self, *parts: Any, **named: Any) -> None:
        """Take what `__new__` has kept."""

    def __setstate__(self, state: Any) -> None:
        """Keep what its state would have been."""
        self.parts = (*self.parts, state)


class _Refused(Exception):
    """A name that loading would look up, and that is not known to be harmless."""


class _Strict(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)  # older protocols call it so
        if module.split(".")[0] in KEPT_ONLY:
            return Kept
        # A name with a dot would go on from one object to another.
        if "." in name or f"{module}.{name}" not in HARMLESS:
            raise _Refused(f"{module}.{name}")
        return super().find_class(module, name)


# What loading a broken file raises: whatever its harmless parts say when they get the wrong arguments.
BROKEN = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, LookupError),
    *(TypeError, AttributeError, ImportError, MemoryError, OverflowError),
)


def load(path: Path, trust_pickle: bool) -> dict[str, Any]:
    """Load a file of torch; unless it is trusted, no object is made but those of `HARMLESS`.

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
    except BROKEN as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"{path}: cannot be read ({first[:200]}). It may be cut short: copy or save it again."
        ) from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: is no model that scvi-tools saved. Expected what model.save(...) writes.")
    return found
