"""The fast engine's mathematics: losses, gradients and statistics of scvi-tools' own modules, up to rounding."""

import copy
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scvi.module import SCANVAE, VAE
from scvi.module.base import LossOutput
from torch import Tensor

from study.cells.prepared import Cells
from study.cells.twins import prepare
from study.config.composition import compose
from study.training.fast import accelerate, fused_adam
from study.training.likelihood import CountLikelihood
from tests.made import FINE

BATCH = {"use_batch_norm": "both", "use_layer_norm": "none"}
LAYER = {"use_batch_norm": "none", "use_layer_norm": "both"}
BOTH = {"use_batch_norm": "both", "use_layer_norm": "both"}
NONE = {"use_batch_norm": "none", "use_layer_norm": "none"}
TWO_LAYERS = {"n_layers": 2, "encode_covariates": True, "var_activation": torch.nn.functional.softplus}


@cache
def pbmc() -> Cells:
    with tempfile.TemporaryDirectory() as folder:
        return prepare(compose(FINE).data, ["asis"], Path(folder))["asis"]


def minibatch(rows: range, dtype: torch.dtype) -> dict[str, Tensor]:
    cells = pbmc()
    return {
        "X": torch.from_numpy(cells.counts[list(rows)].toarray()).to(dtype),
        "batch": torch.from_numpy(np.asarray(cells.batch[list(rows)], dtype=np.int64)).view(-1, 1),
        "labels": torch.from_numpy(np.asarray(cells.labels[list(rows)], dtype=np.int64)).view(-1, 1),
    }


def build(kind: type[VAE], dtype: torch.dtype = torch.float64, **settings: Any) -> VAE:
    torch.manual_seed(0)
    shape = {"n_input": pbmc().counts.shape[1], "n_batch": len(pbmc().batches), "n_labels": len(pbmc().classes)}
    module: VAE = kind(**{**shape, "n_hidden": 16, "n_latent": 5, **settings}).to(dtype)
    return module.train()


def accelerated(module: VAE) -> VAE:
    twin = copy.deepcopy(module)
    accelerate(twin)
    return copy.deepcopy(twin)


def step(module: VAE, dtype: torch.dtype) -> LossOutput:
    """Loss and gradients of a first step; the next random number is left as a trace of all that were drawn."""
    torch.manual_seed(1)
    options: dict[str, Any] = {"kl_weight": torch.tensor(0.3)}
    if isinstance(module, SCANVAE):
        options |= {"labelled_tensors": minibatch(range(40, 100), dtype), "classification_ratio": 50}
    # The labelled rows stop before the query, which has no labels.
    output: LossOutput = module(minibatch(range(0, 64), dtype), loss_kwargs=options)[2]
    output.loss.backward()
    return output


def distance(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).norm() / expected.norm()).detach())


def gradients(module: VAE) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def assert_same_step(stock: VAE, quick: VAE, dtype: torch.dtype, limit: float) -> None:
    expected, after = step(stock, dtype), torch.rand(1)
    found, after_quick = step(quick, dtype), torch.rand(1)
    assert after == after_quick, "other random numbers were drawn"
    for name in ("loss", "reconstruction_loss_sum", "kl_local_sum"):
        assert distance(getattr(found, name), getattr(expected, name)) <= limit, name
    assert found.n_obs_minibatch == expected.n_obs_minibatch
    with_gradient = [[n for n, p in m.named_parameters() if p.grad is not None] for m in (stock, quick)]
    assert with_gradient[0] == with_gradient[1], "Adam would decay a weight in one of them alone"
    assert distance(gradients(quick), gradients(stock)) <= limit
    states = stock.state_dict(), quick.state_dict()
    assert list(states[0]) == list(states[1])
    for name, value in states[0].items():
        assert torch.allclose(states[1][name], value, rtol=limit, atol=limit), name


@pytest.mark.parametrize("kind", [VAE, SCANVAE])
@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
@pytest.mark.parametrize("norm", [BATCH, LAYER], ids=["batch", "layer"])
def test_first_step_is_that_of_scvi_tools(kind: type[VAE], likelihood: str, norm: dict[str, str]) -> None:
    """In double precision, where rounding hides no mistake; on real cells."""
    classifier = {"linear_classifier": norm is BATCH} if kind is SCANVAE else {}
    stock = build(kind, gene_likelihood=likelihood, **norm, **classifier)
    assert_same_step(stock, accelerated(stock), torch.float64, 1e-12)


@pytest.mark.parametrize("settings", [{**BATCH, **TWO_LAYERS}, {**LAYER, **TWO_LAYERS}, BOTH, NONE])
def test_other_networks(settings: dict[str, Any]) -> None:
    stock = build(SCANVAE, **settings)
    assert_same_step(stock, accelerated(stock), torch.float64, 1e-12)


@pytest.mark.parametrize(
    ("kind", "dispersion"),
    [*((kind, d) for kind in (VAE, SCANVAE) for d in ("gene", "gene-batch", "gene-cell")), (VAE, "gene-label")],
)
def test_single_precision_differs_by_rounding(kind: type[VAE], dispersion: str) -> None:
    """As it is trained. `gene-label` is scvi-tools' own reconstruction loss, which knows single precision alone."""
    stock = build(kind, torch.float32, dispersion=dispersion)
    assert_same_step(stock, accelerated(stock), torch.float32, 1e-6)


def test_extreme_dropout_logits_stay_finite() -> None:
    x = torch.tensor([[0.0, 0.0, 3.0, 0.0, 2.0]])
    logits = torch.tensor([[0.0, 9.0, 0.0, -90.0, 1.0]], requires_grad=True)
    dropout = torch.tensor([[-120.0, -200.0, 120.0, 120.0, -120.0]], requires_grad=True)
    px = CountLikelihood(logits, torch.tensor([[7.0]]), torch.full((5,), 9.0), dropout)
    px.log_prob(x).sum().backward()
    assert logits.grad is not None and dropout.grad is not None
    assert torch.isfinite(torch.cat((px.log_prob(x), logits.grad, dropout.grad), dim=1)).all()


def test_surgery_moves_only_what_is_free() -> None:
    """Hooks on weights and parts frozen in eval mode, as `load_query_data` leaves them, work as before."""
    stock = build(SCANVAE, **BATCH)
    for layers in (stock.encoder_z2_z1.encoder, stock.decoder_z1_z2.decoder):
        layers.fc_layers[0][1].eval()
    stock.encoder_z2_z1.encoder.fc_layers[0][4].eval()
    stock.classifier.requires_grad_(False)
    assert_same_step(stock, accelerated(stock), torch.float64, 1e-12)


@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
def test_predictions_are_scvi_tools_own(likelihood: str) -> None:
    stock = build(SCANVAE, torch.float32, gene_likelihood=likelihood).eval()
    quick = accelerated(stock)
    assert isinstance(quick, SCANVAE)
    cells = minibatch(range(32), torch.float32)
    outputs = []
    for module in (stock, quick):
        torch.manual_seed(1)
        with torch.no_grad():
            inferred, generated, loss = module(cells, loss_kwargs={"kl_weight": 0.3})
            outputs.append(
                (module.classify(cells["X"], cells["batch"]), inferred["z"], generated["px"].mean, loss.loss)
            )
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


def test_optimizer_is_adam() -> None:
    values = []
    for kind in (fused_adam, torch.optim.Adam):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(50, dtype=torch.float64))
        adam = kind([weight], lr=1e-3, eps=0.01, weight_decay=1e-2)
        for _ in range(5):
            adam.zero_grad()
            (weight.square() * torch.rand(50, dtype=torch.float64)).sum().backward()
            adam.step()
        values.append(weight.detach())
    assert distance(values[0], values[1]) <= 1e-12
