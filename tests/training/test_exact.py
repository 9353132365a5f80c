"""The lean training step: stock scvi-tools' weights, curves and minibatches, and no more memory than a minibatch."""

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch import Callback
from scvi.dataloaders import DataSplitter, SemiSupervisedDataSplitter
from scvi.model import SCANVI, SCVI

from study.config.composition import compose
from study.config.study import StudyConfig
from study.errors import InputError
from study.plan.split import split_cells
from study.training.batches import Batch, LabelledSplitter, Splitter, check_fits
from study.training.building import State, build_scvi, joint_anndata, state_of
from study.training.exact import lean_likelihoods
from study.training.hardware import Hardware
from study.training.models import finetune, pretrain
from study.training.private import SubSampleLabels
from study.training.snapshot import Snapshot
from tests.made import TINY, few_cells

Curves = dict[str, list[float]]
Trained = tuple[State, Curves]


class Logged(Callback):
    """What stock scvi-tools logs of each epoch."""

    def __init__(self) -> None:
        self.curves: Curves = {}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep it."""
        for name, value in trainer.callback_metrics.items():
            self.curves.setdefault(name, []).append(float(value))


def stock(config: StudyConfig, epochs: int) -> list[Trained]:
    """Both stages as a user of scvi-tools trains them; nothing of our training is used."""
    parts = split_cells(few_cells(), 0, 3, 128)
    adata = joint_anndata(few_cells(), parts)
    rest = np.setdiff1d(np.arange(adata.n_obs), parts.train)
    common = {
        "max_epochs": epochs,
        "datasplitter_kwargs": {"external_indexing": [parts.train, np.array([], dtype=int), rest]},
        "accelerator": "cpu",
        "enable_progress_bar": False,
    }
    norms = ("both", "none") if config.scvi.norm == "batch" else ("none", "both")
    kept: list[Trained] = []
    torch.set_num_threads(1)
    scvi.settings.seed = 0
    SCVI.setup_anndata(adata, batch_key="batch")
    vae = SCVI(
        adata,
        n_hidden=8,
        n_latent=3,
        use_batch_norm=norms[0],
        use_layer_norm=norms[1],
        gene_likelihood=config.scvi.gene_likelihood,
        dispersion=config.scvi.dispersion,
    )
    vae.train(callbacks=[logged := Logged()], **common)
    kept.append((state_of(vae), logged.curves))
    scvi.settings.seed = 0
    lvae = SCANVI.from_scvi_model(
        vae, unlabeled_category="Unknown", labels_key="label", linear_classifier=config.scanvi.linear_classifier
    )
    samples = config.scanvi.n_samples_per_label
    lvae.train(
        n_samples_per_label=None if samples == "all" else samples,
        callbacks=[SubSampleLabels(), logged := Logged()],
        **common,
    )
    kept.append((state_of(lvae), logged.curves))
    return kept


def ours(config: StudyConfig, epochs: int, engine: str) -> list[Trained]:
    parts, on = split_cells(few_cells(), 0, 3, 128), Hardware(engine=engine)
    kept: list[Trained] = []

    def read(snapshot: Snapshot) -> None:
        kept.append((state_of(snapshot.model), snapshot.curves))

    pretrain(few_cells(), parts, config, 0, [epochs], read, on)
    finetune(few_cells(), parts, config, 0, [epochs], read, on, kept[0][0])
    return kept


@pytest.mark.parametrize(
    "overrides",
    [
        ["scvi.norm=batch", "scanvi.n_samples_per_label=5", "scanvi.linear_classifier=true"],
        ["scvi.norm=layer", "scanvi.n_samples_per_label=all", "scanvi.linear_classifier=false"],
        ["scvi.norm=batch", "scvi.gene_likelihood=nb", "scanvi.linear_classifier=false"],
        ["scvi.norm=layer", "scvi.dispersion=gene-batch", "scanvi.n_samples_per_label=5"],
    ],
)
def test_weights_and_curves_are_those_of_stock_scvi_tools(overrides: list[str]) -> None:
    config = compose([*TINY, *overrides])
    for stage, (state, curves), (expected, logged) in zip(
        ["scvi", "scanvi"], ours(config, 3, "exact"), stock(config, 3), strict=True
    ):
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected), stage
        # Its sum over bins is rounded in another order.
        error, of_stock = (one.pop("train_calibration_error", [0.0]) for one in (curves, logged))
        assert error == pytest.approx(of_stock, rel=1e-6)
        assert curves == logged, stage


def test_the_fast_engine_differs_by_rounding_alone() -> None:
    config = compose([*TINY, "scanvi.n_samples_per_label=5"])
    for (state, curves), (expected, logged) in zip(ours(config, 2, "fast"), ours(config, 2, "exact"), strict=True):
        assert state.keys() == expected.keys()
        assert all(torch.allclose(state[name], expected[name], rtol=1e-3, atol=1e-4) for name in expected)
        assert curves["train_loss"] == pytest.approx(logged["train_loss"], rel=1e-4)


def epochs_of(splitter: Any) -> Iterator[list[Any]]:
    """Two epochs of minibatches, drawn as lightning does, and the state of the global generator after each."""
    scvi.settings.seed = 3
    splitter.setup()
    loader = splitter.train_dataloader()
    for _ in range(2):
        if hasattr(loader, "resample_labels"):
            loader.resample_labels()
        iterator = iter(loader)
        yield [next(iterator) for _ in range(len(loader))] + [torch.get_rng_state()]


def splitters(device: str | None, batch_size: int = 32) -> tuple[list[Any], list[Any]]:
    """Splitters of stock scvi-tools and ours, for unlabelled and labelled cells."""
    parts = split_cells(few_cells(), 0, 3, batch_size)
    adata = joint_anndata(few_cells(), parts)
    rest = np.setdiff1d(np.arange(adata.n_obs), parts.train)
    vae = build_scvi(adata, compose(TINY).scvi)
    vae.is_trained_ = True
    lvae = SCANVI.from_scvi_model(vae, unlabeled_category="Unknown", labels_key="label")
    arguments: list[dict[str, Any]] = [{}, {"n_samples_per_label": 5}]
    managers = (vae.adata_manager, lvae.adata_manager)
    made = []
    for kinds, more in (
        (
            (DataSplitter, SemiSupervisedDataSplitter),
            {"external_indexing": [parts.train, np.array([], dtype=int), rest]},
        ),
        ((Splitter, LabelledSplitter), {"rows": parts.train, "device": device}),
    ):
        made.append(
            [
                kind(manager, batch_size=batch_size, **argument, **more)
                for kind, manager, argument in zip(kinds, managers, arguments, strict=True)
            ]
        )
    return made[0], made[1]


def equal(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


@pytest.mark.parametrize("device", [None, "cpu"], ids=["from the host", "from a device"])
def test_minibatches_are_those_of_stock_scvi_tools(device: str | None) -> None:
    for theirs, mine in zip(*splitters(device), strict=True):
        for expected, epoch in zip(list(epochs_of(theirs)), list(epochs_of(mine)), strict=True):
            assert len(expected) == len(epoch) > 3
            assert torch.equal(expected.pop(), epoch.pop()), "random numbers are drawn alike"
            for one, other in zip(expected, epoch, strict=True):
                assert type(one) is type(other)
                pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
                assert all(equal(a, b) for a, b in pairs)


def test_labelled_minibatches_are_not_kept() -> None:
    splitter = splitters(None, batch_size=8)[1][1]
    splitter.setup()
    loader = splitter.train_dataloader()
    assert 4 < len(loader.dataloaders[1]) < len(loader) / 2, "labelled minibatches come more than once"
    seen: list[weakref.ref[torch.Tensor]] = []
    for _, labelled in zip(range(len(loader)), loader, strict=False):
        seen.append(weakref.ref(labelled[1]["X"]))
        assert sum(one() is not None for one in seen) <= 2


def test_counts_that_do_not_fit_on_the_gpu_are_refused_with_the_numbers() -> None:
    check_fits(2 * 2**30, 4 * 2**30)
    with pytest.raises(InputError, match=r"resources\.resident.* 7\.50 GiB .* 8\.00 GiB"):
        check_fits(15 * 2**29, 8 * 2**30)


def test_likelihoods_are_stock_again_after_training() -> None:
    kinds = (scvi.distributions.NegativeBinomial, scvi.distributions.ZeroInflatedNegativeBinomial)
    before = [kind.log_prob for kind in kinds]
    with pytest.raises(KeyError), lean_likelihoods():
        torch.distributions.Normal(torch.tensor(torch.nan), 1.0)
        raise KeyError
    assert [kind.log_prob for kind in kinds] == before
    with pytest.raises(ValueError, match="loc"):
        torch.distributions.Normal(torch.tensor(torch.nan), 1.0)
