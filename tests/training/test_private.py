"""What we rely on of scvi-tools, lightning and torch beyond what they promise to keep.

A release that breaks one of these things fails here, with a sentence that says what we rely on.
"""

import ast
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from scvi.dataloaders import AnnDataLoader, DataSplitter, SemiSupervisedDataLoader, SemiSupervisedDataSplitter
from scvi.distributions import NegativeBinomial
from scvi.model import SCANVI, SCVI
from scvi.module import SCANVAE, VAE
from scvi.module.base import LossOutput
from scvi.nn import FCLayers
from scvi.train import SemiSupervisedTrainingPlan, TrainingPlan
from torch.distributions import Normal
from torch.utils.data import DataLoader

from study.config.composition import compose
from study.plan.audit import KL_WARMUP
from study.plan.split import split_cells
from study.training.models import build_scvi, joint_anndata
from study.training.private import (
    MODULE_KEYS,
    SubSampleLabels,
    epsilon_of,
    labelled_rows,
    library_prior,
    log_nb_positive,
    log_zinb_positive,
    steps_taken,
    unchecked_distributions,
)
from tests.made import TINY, few_cells

HOUSE = Path(__file__).parents[2] / "study"


def hidden(path: Path) -> Iterator[str]:
    """Private names that a module imports, or asks of something other than itself."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            names = [node.attr]
        else:
            continue
        yield from (name for name in names if name.startswith("_") and not name.endswith("__"))


def test_what_is_private_to_a_library_is_named_in_one_module() -> None:
    found = {str(path.relative_to(HOUSE)) for path in HOUSE.rglob("*.py") if any(hidden(path))}
    assert found == {"training/private.py", "sweep/cluster.py"}


def parameters(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_a_model_trains_by_the_classes_that_it_names() -> None:
    for model, plan, splitter in (
        (SCVI, TrainingPlan, DataSplitter),
        (SCANVI, SemiSupervisedTrainingPlan, SemiSupervisedDataSplitter),
    ):
        assert model._training_plan_cls is plan, "`_training_plan_cls` is what `train` trains by"
        assert model._data_splitter_cls is splitter, "`_data_splitter_cls` is what `train` splits cells with"
        assert model._data_loader_cls is AnnDataLoader, "`_data_loader_cls` is what predictions read cells with"
        wanted = {"max_epochs", "batch_size", "accelerator", "devices", "datasplitter_kwargs", "plan_kwargs"}
        assert parameters(model.train) >= wanted, "`train` hands `datasplitter_kwargs` and `plan_kwargs` on"
    assert "n_samples_per_label" in parameters(SCANVI.train), "labelled cells are drawn, so many of each class"
    assert DataSplitter.data_loader_cls is AnnDataLoader, "`data_loader_cls` is what the splitter loads cells with"


@pytest.mark.parametrize("plan", [TrainingPlan, SemiSupervisedTrainingPlan])
def test_a_plan_is_made_of_the_methods_that_are_replaced(plan: type[TrainingPlan]) -> None:
    default = inspect.signature(plan).parameters["n_epochs_kl_warmup"].default
    assert default == KL_WARMUP, "the KL weight warms up over so many epochs, however many are trained: so epochs nest"
    assert isinstance(plan.kl_weight, property), "`kl_weight` is asked for at each step, and may be kept for an epoch"
    assert list(inspect.signature(plan.compute_and_log_metrics).parameters)[1:] == ["loss_output", "metrics", "mode"], (
        "`compute_and_log_metrics` is all that is done with a loss beside its gradient"
    )
    assert parameters(plan.get_optimizer_creator) == {"self"}, "`get_optimizer_creator` gives what makes the optimiser"
    shown = {"loss", "reconstruction_loss_sum", "kl_local_sum", "n_obs_minibatch", "classification_loss", "true_labels"}
    assert {*dir(LossOutput), *LossOutput.__dataclass_fields__} >= {*shown, "logits"}, "a loss shows these of a step"


def splitter() -> SemiSupervisedDataSplitter:
    parts = split_cells(few_cells(), 0, 3, 128)
    model = build_scvi(joint_anndata(few_cells(), parts), compose(TINY).scvi)
    model.is_trained_ = True
    model = SCANVI.from_scvi_model(model, unlabeled_category="Unknown", labels_key="label")
    return SemiSupervisedDataSplitter(model.adata_manager, train_size=1.0, n_samples_per_label=2)


def test_labelled_cells_are_known_by_their_rows_and_drawn_anew() -> None:
    made = splitter()
    labels = made.adata_manager.adata.obs["label"].to_numpy()
    assert np.array_equal(labelled_rows(made), np.flatnonzero(labels != "Unknown")), "`_labeled_indices` are their rows"
    made.setup()
    assert made.data_loader_class is SemiSupervisedDataLoader, "`data_loader_class` is what the splitter loads with"
    assert made.data_loader_kwargs["n_samples_per_label"] == 2, "and `data_loader_kwargs` what that is given"
    loader = made.train_dataloader()
    joint, labelled = loader.dataloaders
    assert len(joint.indices) == labels.size, "`dataloaders` are the joint one"
    assert len(labelled.indices) == 2 * len(few_cells().classes), "and that of the labelled cells that were drawn"
    SubSampleLabels().on_train_epoch_start(SimpleNamespace(train_dataloader=loader), None)
    assert loader.dataloaders[1] is not labelled, "`SubSampleLabels` draws labelled cells anew as an epoch starts"
    assert set(loader.subsample_labels()) <= set(labelled_rows(made)), "`subsample_labels` is what it draws with"


@pytest.mark.parametrize("log_likelihood", [log_nb_positive, log_zinb_positive])
def test_a_count_likelihood_asks_for_three_log_gammas(log_likelihood: Callable[..., torch.Tensor]) -> None:
    counts, mu = torch.tensor([[0.0, 3.0]]), torch.tensor([[1.0, 2.0]])
    theta = torch.tensor([0.5, 4.0]).expand(1, 2)
    inflation = [torch.zeros(1, 2)] if log_likelihood is log_zinb_positive else []
    asked: list[torch.Tensor] = []

    def lgamma(values: torch.Tensor) -> torch.Tensor:
        asked.append(values)
        return torch.lgamma(values)

    found = log_likelihood(counts, mu, theta, *inflation, lgamma_fn=lgamma)
    assert torch.equal(found, log_likelihood(counts, mu, theta, *inflation, eps=1e-8)), "eps is 1e-8 unless given"
    others = [values for values in asked if values is not theta]
    assert len(asked) == 3 and len(others) == 2, "`lgamma_fn` is called with theta itself, and twice more"
    assert torch.equal(others[0], counts + theta) and torch.equal(others[1], counts + 1), "with counts + theta, + 1"
    assert epsilon_of(NegativeBinomial(mu=mu, theta=theta)) == 1e-8, "`_eps` is what a distribution adds"


def module_of(kind: type[VAE], **settings: Any) -> Any:
    return kind(n_input=4, n_batch=2, n_labels=3, n_hidden=5, n_latent=2, **settings)


def test_networks_are_built_of_the_layers_that_the_fast_engine_reads() -> None:
    module = module_of(SCANVAE, dispersion="gene-cell")
    keys = (MODULE_KEYS.PX_KEY, MODULE_KEYS.PL_KEY, MODULE_KEYS.PZ_KEY)
    assert keys == ("px", "pl", "pz"), "a decoder gives the distributions of counts, library size and latent space so"
    given = {"z", "library", "batch_index", "cont_covs", "cat_covs", "size_factor", "y", "transform_batch"}
    assert parameters(VAE.generative) == {"self", *given}, "`generative` is given these"
    for name in ("px_decoder", "px_scale_decoder", "px_dropout_decoder", "px_r_decoder"):
        assert hasattr(module.decoder, name), f"a decoder has `{name}`"
    encoder, decoder = module.encoder_z2_z1, module.decoder_z1_z2
    for layers in (encoder.encoder, decoder.decoder):
        assert isinstance(layers, FCLayers), "the networks over all labels are `FCLayers`"
        assert {len(parts) for parts in layers.fc_layers} == {5}, "a layer: linear, batch and layer norm, ReLU, dropout"
        assert layers.inject_into_layer(0), "the label enters the first one"
        assert layers.fc_layers[0][0].weight.shape[1] == 2 + 3, "in the last columns"
    for head in (encoder.mean_encoder, encoder.var_encoder, decoder.mean_decoder, decoder.var_decoder):
        assert isinstance(head, torch.nn.Linear), "each with two linear heads"
    assert callable(encoder.var_activation) and encoder.var_eps > 0, "a variance is activated, and this is added"
    assert module.y_prior.shape == (1, 3), "`y_prior` is the prior of the labels"
    assert module.extra_payload_autotune is False, "nothing is kept for autotune unless asked for"
    assert module.classifier.logits is True, "`logits` says that a classifier gives no probabilities yet"


def test_library_sizes_have_a_prior_by_batch() -> None:
    means, variances = np.array([[1.0, 2.0]]), np.array([[0.25, 4.0]])
    module = module_of(VAE, use_observed_lib_size=False, library_log_means=means, library_log_vars=variances)
    prior = library_prior(module, torch.tensor([[1], [0], [1]]))
    assert prior.loc.tolist() == [[2.0], [1.0], [2.0]], "`_compute_local_library_params` gives means of the logarithm"
    assert prior.scale.tolist() == [[2.0], [0.5], [2.0]], "and variances"


def test_torch_checks_the_arguments_of_distributions_unless_told_not_to() -> None:
    wrong = (torch.tensor(torch.nan), 1.0)
    with unchecked_distributions():
        Normal(*wrong)
    with pytest.raises(ValueError, match="loc"):
        Normal(*wrong)  # `_validate_args` is what `set_default_validate_args` sets, so it was as before


class Stepping(LightningModule):  # type: ignore[misc]
    """Takes its steps by itself, as our plans do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.automatic_optimization = False

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make one."""
        return torch.optim.SGD([self.weight], lr=0.1)

    def training_step(self, batch: torch.Tensor) -> None:
        """Take a step."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        (self.weight * batch).sum().backward()
        optimizer.step()


class Counting(Callback):  # type: ignore[misc]
    """Notes steps at the end of each epoch."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note them."""
        self.found.append((steps_taken(trainer), trainer.global_step))


def test_lightning_counts_the_steps_of_a_plan_that_steps_by_itself() -> None:
    counting = Counting()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=2, callbacks=[counting], enable_model_summary=False, **quiet)  # type: ignore[arg-type]
    trainer.fit(Stepping(), DataLoader(torch.ones(3, 1)))
    assert [steps for steps, _ in counting.found] == [3, 6], "`total_batch_idx` is the number of the last minibatch"
    assert [steps for _, steps in counting.found] == [0, 0], "`global_step` does not see them"
