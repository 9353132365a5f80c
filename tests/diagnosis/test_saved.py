"""Saved models as they come: broken, of another kind, or made to do harm when they are loaded."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from study.diagnosis.saved import read_model
from study.errors import InputError


class Harm:
    """What runs a command when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def kept(kind: str = "SCVI", **attributes: Any) -> dict[str, Any]:
    """What `model.save` of scvi-tools keeps."""
    fields: dict[str, Any] = defaultdict(dict)
    fields["X"] = {"state_registry": {}, "summary_stats": {"n_cells": 3, "n_vars": 2}}
    fields["batch"] = {"state_registry": {"categorical_mapping": np.array(["a", "b"], dtype=object)}}
    registry = {
        "scvi_version": "1.4.2",
        "model_name": kind,
        "setup_args": {"layer": "counts"},
        "field_registries": fields,
    }
    made = {
        "registry_": registry,
        "init_params_": {"non_kwargs": {"n_latent": 5}, "kwargs": {"model_kwargs": {"n_hidden": 8}}},
        "history_": {"elbo_train": pd.DataFrame({"elbo_train": [3.0, 2.0]})},
        "train_indices_": np.array([0, 2]),
        "validation_indices_": np.array([1]),
    }
    weights = {"decoder.norm.num_batches_tracked": torch.tensor(2)}
    return {"model_state_dict": weights, "var_names": np.array(["g1", "g2"]), "attr_dict": {**made, **attributes}}


def saved(folder: Path, what: object) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(what, folder / "model.pt")
    return folder


def test_a_model_is_read_with_what_it_keeps(tmp_path: Path) -> None:
    model = read_model(saved(tmp_path / "m", kept()))
    assert (model.kind, model.version, model.n_cells, model.layer) == ("SCVI", "1.4.2", 3, "counts")
    assert (model.batches, model.epochs, model.steps) == (("a", "b"), 2, 2)
    assert model.settings == {"n_latent": 5, "n_hidden": 8}
    assert model.train is not None and model.train.tolist() == [0, 2]
    assert read_model(tmp_path / "m" / "model.pt").genes.tolist() == ["g1", "g2"]


@pytest.mark.parametrize("index", [[4, 1], [4, 5, 1]])
def test_epochs_that_begin_anew_are_seen_however_pandas_keeps_them(tmp_path: Path, index: list[int]) -> None:
    curve = pd.DataFrame({"kl_weight": [0.01] * len(index)}, index=pd.Index(index, name="epoch"))
    assert read_model(saved(tmp_path / "m", kept(history_={"kl_weight": curve}))).restarted
    even = curve.set_axis(pd.RangeIndex(index[0], index[0] - 3 * len(index), -3))
    assert read_model(saved(tmp_path / "even", kept(history_={"kl_weight": even}))).restarted
    rising = curve.set_axis(sorted(index))
    found = read_model(saved(tmp_path / "rising", kept(history_={"kl_weight": rising})))
    assert not found.restarted and found.history["kl_weight"].tolist() == [0.01] * len(index)


@pytest.mark.parametrize("where", ["init_params_", "history_", "registry_"])
def test_what_would_run_something_is_named_and_not_run(tmp_path: Path, where: str) -> None:
    mark = tmp_path / "done"
    folder = saved(tmp_path / "m", kept(**{where: {"x": Harm(mark)}}))
    with pytest.raises(InputError, match=r"holds posix\.system, which loading would run.*--trust-pickle"):
        read_model(folder)
    assert not mark.exists()
    if where == "init_params_":
        read_model(folder, trust_pickle=True)
        assert mark.exists(), "so the file was one that does harm"


@pytest.mark.parametrize("name", ["eval", "exec", "getattr", "__import__", "open"])
def test_no_builtin_is_called(tmp_path: Path, name: str) -> None:
    class Call:
        def __reduce__(self) -> tuple[Any, ...]:
            return getattr(__builtins__, name, None) or __builtins__[name], ("1",)  # type: ignore[index]

    with pytest.raises(InputError, match=rf"\.{name}, which loading would run"):
        read_model(saved(tmp_path / "m", kept(history_={"x": Call()})))


def test_what_is_no_model_is_refused_with_one_message(tmp_path: Path) -> None:
    whole = (saved(tmp_path / "whole", kept()) / "model.pt").read_bytes()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "model.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "model.pt").write_text("no model")
    (tmp_path / "empty").mkdir()
    (tmp_path / "prefixed").mkdir()
    (tmp_path / "prefixed" / "my_model.pt").write_bytes(whole)
    saved(tmp_path / "weights", {"a": torch.zeros(2)})
    saved(tmp_path / "other", kept("TOTALVI"))
    old = kept()
    del old["attr_dict"]["registry_"]
    saved(tmp_path / "old", old)
    for name, words in {
        "nowhere": "no such folder",
        "cut": "cannot be read",
        "text": "cannot be read",
        "empty": "has no model.pt",
        "prefixed": "my_model.pt, saved with a prefix",
        "weights": "is no model that scvi-tools saved",
        "other": "is a TOTALVI. Expected an SCVI or SCANVI",
        "old": "before 1.0",
        ".": "Models are in: .*other",
    }.items():
        with pytest.raises(InputError, match=words):
            read_model(tmp_path / name)
