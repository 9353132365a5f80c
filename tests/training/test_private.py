"""What we rely on of scvi-tools, lightning and torch beyond what they promise to keep.

A release that breaks one of these things fails here, with a sentence that says what we rely on, and who does.
"""

import ast
import inspect
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import scvi
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from scvi import REGISTRY_KEYS
from scvi.dataloaders import AnnDataLoader, DataSplitter, SemiSupervisedDataLoader, SemiSupervisedDataSplitter
from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial
from scvi.model import SCANVI, SCVI
from scvi.module import SCANVAE, VAE
from scvi.module.base import LossOutput
from scvi.nn import Encoder, FCLayers
from scvi.train import SemiSupervisedTrainingPlan, TrainingPlan
from torch.distributions import Normal
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from study.config.composition import compose
from study.plan.audit import KL_WARMUP
from study.plan.split import split_cells
from study.training.building import build_scvi, joint_anndata
from study.training.group import EPS, LR, WEIGHT_DECAY
from study.training.private import (
    MODULE_KEYS,
    SubSampleLabels,
    epsilon_of,
    label_order,
    labelled_rows,
    library_prior,
    log_nb_positive,
    log_zinb_positive,
    steps_taken,
    train_with,
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


TRAIN = {"max_epochs", "batch_size", "accelerator", "devices", "datasplitter_kwargs", "plan_kwargs", "trainer_kwargs"}


@pytest.mark.parametrize(
    ("function", "wanted", "user"),
    [
        (SCVI.setup_anndata, {"adata", "batch_key"}, "models.build_scvi"),
        (SCVI.train, TRAIN, "models._train"),
        (SCANVI.train, {*TRAIN, "n_samples_per_label"}, "models._train"),
        (SCANVI.from_scvi_model, {"scvi_model", "unlabeled_category", "labels_key"}, "models.finetune"),
        (SCANVI.load_query_data, {"adata", "reference_model", "accelerator"}, "models.operate"),
        (SCANVI.predict, {"adata", "indices", "soft", "batch_size"}, "models.predict_probabilities"),
        (SCVI.get_latent_representation, {"adata", "indices", "batch_size"}, "trials/probes, studies/transfer"),
        (DataSplitter, {"adata_manager", "train_size"}, "batches.Splitter"),
        (
            SemiSupervisedDataSplitter,
            {"adata_manager", "train_size", "n_samples_per_label"},
            "batches.LabelledSplitter",
        ),
        (AnnDataLoader, {"adata_manager", "indices", "batch_size", "shuffle", "kwargs"}, "batches.Batches"),
        (SemiSupervisedDataLoader, {"adata_manager", "batch_size", "n_samples_per_label"}, "batches.LabelledBatches"),
        (
            LossOutput,
            {"loss", "reconstruction_loss", "kl_local", "classification_loss", "true_labels", "logits"},
            "fast",
        ),
        (VAE.generative, {"z", "library", "batch_index", "y"}, "fast._FastGenerative"),
        (SCANVAE.classification_loss, {"labelled_dataset"}, "fast._FastSCANVAE"),
    ],
)
def test_functions_take_what_they_are_given(function: Callable[..., Any], wanted: set[str], user: str) -> None:
    lost = wanted - parameters(function)
    assert not lost, f"{function.__qualname__} takes {sorted(lost)} no longer; `training/{user}` gives it"


def test_a_model_trains_by_the_classes_that_it_names() -> None:
    for model, plan, splitter in (
        (SCVI, TrainingPlan, DataSplitter),
        (SCANVI, SemiSupervisedTrainingPlan, SemiSupervisedDataSplitter),
    ):
        by = "`private.train_with` replaces it in one model"
        assert model._training_plan_cls is plan, f"`_training_plan_cls` is what `train` trains by; {by}"
        assert model._data_splitter_cls is splitter, f"`_data_splitter_cls` is what `train` splits cells with; {by}"
        assert model._data_loader_cls is AnnDataLoader, f"`_data_loader_cls` is what predictions read with; {by}"
    assert DataSplitter.data_loader_cls is AnnDataLoader, (
        "`data_loader_cls` is what the splitter loads cells with; `batches.Splitter` names another"
    )


def test_a_seed_is_set_when_it_is_assigned() -> None:
    def drawn() -> tuple[float, ...]:
        scvi.settings.seed = 3
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert drawn() == drawn(), "assigning `settings.seed` seeds python, numpy and torch; `models._prepare` does"


@pytest.mark.parametrize("plan", [TrainingPlan, SemiSupervisedTrainingPlan])
def test_a_plan_is_made_of_the_methods_that_are_replaced(plan: type[TrainingPlan]) -> None:
    assert inspect.signature(plan).parameters["n_epochs_kl_warmup"].default == KL_WARMUP, (
        "the KL weight warms up over so many epochs, however many are trained; `snapshot` reads epoch levels of one run"
    )
    assert isinstance(plan.kl_weight, property), "`kl_weight` is asked for at each step; `exact._Lean` keeps it"
    assert list(inspect.signature(plan.compute_and_log_metrics).parameters)[1:] == ["loss_output", "metrics", "mode"], (
        "`compute_and_log_metrics` is all that is done with a loss beside its gradient; `exact._Lean` replaces it"
    )
    assert parameters(plan.get_optimizer_creator) == {"self"}, (
        "`get_optimizer_creator` gives what makes the optimiser; `exact._Fused` replaces it"
    )
    shown = {"loss", "reconstruction_loss_sum", "kl_local_sum", "n_obs_minibatch", "classification_loss", "true_labels"}
    assert {*dir(LossOutput), *LossOutput.__dataclass_fields__} >= {*shown, "logits"}, (
        "a loss shows these of a step; `exact._Lean` keeps them"
    )


def untrained() -> Any:
    """A scANVI model on tiny cells, not yet trained."""
    parts = split_cells(few_cells(), 0, 3, 128)
    model = build_scvi(joint_anndata(few_cells(), parts), compose(TINY).scvi)
    model.is_trained_ = True  # or scANVI would not be made of it
    return SCANVI.from_scvi_model(model, unlabeled_category="Unknown", labels_key="label")


class Overheard(SemiSupervisedTrainingPlan):  # type: ignore[misc]
    """Notes what is asked of a plan, in order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.heard: list[Any] = []
        self.shown: list[LossOutput] = []
        super().__init__(*args, **kwargs)

    @property
    def kl_weight(self) -> Any:
        """Note it."""
        self.heard.append("kl_weight")
        return super().kl_weight

    def get_optimizer_creator(self) -> Callable[..., torch.optim.Optimizer]:
        """Note it."""
        self.heard.append("get_optimizer_creator")
        made: Callable[..., torch.optim.Optimizer] = super().get_optimizer_creator()
        return made

    def compute_and_log_metrics(self, loss_output: LossOutput, metrics: Any, mode: str) -> None:
        """Note it."""
        self.heard.append("compute_and_log_metrics")
        self.shown.append(loss_output)
        super().compute_and_log_metrics(loss_output, metrics, mode)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Note it."""
        assert isinstance(batch, tuple) and len(batch) == 2, (
            "a minibatch of scANVI is a pair, joint and labelled; `batches.LabelledBatches` makes pairs"
        )
        loss: torch.Tensor = super().training_step(batch, batch_idx)
        assert loss is self.shown[-1].loss and loss.requires_grad, (
            "`training_step` gives back the loss that `compute_and_log_metrics` was shown; `exact._Lean` descends by it"
        )
        self.heard.append(batch_idx)
        return loss


class Kept(Callback):  # type: ignore[misc]
    """Keeps what a training was made of."""

    plan: Any
    watched: tuple[Callback, ...]
    optimiser: torch.optim.Optimizer

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep it."""
        self.plan, self.watched, self.optimiser = pl_module, tuple(trainer.callbacks), trainer.optimizers[0]


def test_a_step_asks_in_this_order() -> None:
    model, kept = untrained(), Kept()
    train_with(model, Overheard, SemiSupervisedDataSplitter, AnnDataLoader)
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    model.train(1, train_size=1.0, batch_size=64, callbacks=[SubSampleLabels(), kept], **quiet)
    assert sum(isinstance(one, SubSampleLabels) for one in kept.watched) == 1, (
        "given callbacks replace scANVI's own `SubSampleLabels`, so `models._train` gives one"
    )
    heard, once = kept.plan.heard, "get_optimizer_creator"
    assert heard.count(once) == 1 and heard.index(once) < heard.index("compute_and_log_metrics"), (
        "the optimiser is made once, before the first step; `exact._Fused` makes it"
    )
    assert isinstance(kept.optimiser, torch.optim.Adam), "it is Adam; `fast.fused_adam` and `fused` are Adam too"
    steps = heard[heard.index(once) + 1 :]
    assert steps[:6] == ["kl_weight", "compute_and_log_metrics", 0, "kl_weight", "compute_and_log_metrics", 1], (
        "a step asks for `kl_weight`, then shows its loss, each once; `exact._Lean` keeps a row a step"
    )
    assert (kept.plan.lr, kept.plan.eps, kept.plan.weight_decay) == (LR, EPS, WEIGHT_DECAY), (
        "Adam has these numbers unless told otherwise; `exact._Fused` asks a plan for them, `fused` knows them"
    )
    assert kept.plan.module is model.module, "`module` is what a plan trains; `exact` and `snapshot.Watch` ask it"


def splitter() -> SemiSupervisedDataSplitter:
    return SemiSupervisedDataSplitter(untrained().adata_manager, train_size=1.0, n_samples_per_label=2)


def test_labelled_cells_are_known_by_their_rows_and_drawn_anew() -> None:
    made = splitter()
    labels = made.adata_manager.adata.obs["label"].to_numpy()
    assert np.array_equal(labelled_rows(made), np.flatnonzero(labels != "Unknown")), (
        "`_labeled_indices` are the rows of labelled cells; `private.labelled_rows` gives them"
    )
    made.setup()
    by = "`batches.LabelledSplitter` sets it"
    assert made.data_loader_class is SemiSupervisedDataLoader, f"`data_loader_class` is what loads; {by}"
    assert made.data_loader_kwargs["n_samples_per_label"] == 2, f"`data_loader_kwargs` is what that is given; {by}"
    assert {"train_idx", "val_idx", "test_idx", "n_train", "n_val"} <= vars(made).keys(), f"parts of cells; {by}"
    loader = made.train_dataloader()
    joint, labelled = loader.dataloaders
    by = "`batches.LabelledBatches` pairs them"
    assert len(joint.indices) == labels.size, f"the first of `dataloaders` is the joint one; {by}"
    assert len(labelled.indices) == 2 * len(few_cells().classes), f"the second, of labelled cells that were drawn; {by}"
    SubSampleLabels().on_train_epoch_start(SimpleNamespace(train_dataloader=loader), None)
    assert loader.dataloaders[1] is not labelled, (
        "`SubSampleLabels` draws labelled cells anew as an epoch starts; `models._train` gives it"
    )
    assert set(loader.subsample_labels()) <= set(labelled_rows(made)), (
        "`subsample_labels` is what draws; `batches.LabelledBatches` replaces it"
    )


def test_cells_lie_in_the_registry_by_these_keys() -> None:
    manager = untrained().adata_manager
    counts, batch, labels = (
        manager.get_from_registry(key)
        for key in (REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY)
    )
    n = manager.adata.n_obs
    assert sp.issparse(counts) and counts.format == "csr", (
        "registered counts are CSR as given; `batches.OnHost` reads them"
    )
    assert batch.shape == labels.shape == (n, 1), "registered columns are codes, (n_cells, 1); `batches` reads them"
    words = np.array([*label_order(few_cells().classes, "Unknown"), "Unknown"])
    assert np.array_equal(words[labels[:, 0]], manager.adata.obs["label"].to_numpy().astype(str)), (
        "labels have codes in sorted order, but that the unlabelled one and the last change places; "
        "`private.label_order` says so to `members.cells_on`"
    )


def test_a_loader_draws_its_order_from_the_global_generator() -> None:
    loader = AnnDataLoader(untrained().adata_manager, indices=np.arange(50), batch_size=16, shuffle=True)
    by = "`batches._minibatches` does the same without a dataset"
    assert np.array_equal(loader.indices, np.arange(50)), f"`indices` are the rows of a loader; {by}"
    assert isinstance(loader.sampler, BatchSampler) and loader.sampler.batch_size == 16, (
        f"a sampler of minibatches; {by}"
    )
    assert isinstance(loader.sampler.sampler, RandomSampler), f"over torch's own random order; {by}"
    torch.manual_seed(0)
    first = next(iter(loader))
    after = torch.get_rng_state()
    torch.manual_seed(0)
    torch.empty((), dtype=torch.int64).random_()
    seed = int(torch.empty((), dtype=torch.int64).random_())
    assert torch.equal(torch.get_rng_state(), after), f"an epoch takes two numbers, for workers and for its order; {by}"
    rows = torch.randperm(50, generator=torch.Generator().manual_seed(seed))[:16]
    counts = few_cells().counts[rows.numpy()].toarray()
    assert np.array_equal(first[REGISTRY_KEYS.X_KEY].numpy(), counts), f"the second seeds a permutation; {by}"


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
    assert torch.equal(found, log_likelihood(counts, mu, theta, *inflation, eps=1e-8)), (
        "eps is 1e-8 unless given; `exact._log_zinb` gives none"
    )
    others = [values for values in asked if values is not theta]
    assert len(asked) == 3 and len(others) == 2, (
        "`lgamma_fn` is called with theta itself, and twice more; `exact._lgamma_of` tells them apart"
    )
    assert torch.equal(others[0], counts + theta) and torch.equal(others[1], counts + 1), (
        "with counts + theta, + 1; `exact._lgamma_of` knows where they are usual"
    )
    assert epsilon_of(NegativeBinomial(mu=mu, theta=theta)) == 1e-8, (
        "`_eps` is what a distribution adds; `private.epsilon_of` gives it"
    )


def module_of(kind: type[VAE], **settings: Any) -> Any:
    return kind(n_input=4, n_batch=2, n_labels=3, n_hidden=5, n_latent=2, **settings)


def test_networks_are_built_of_the_layers_that_our_engines_read() -> None:
    module = module_of(SCANVAE, dispersion="gene-cell")
    for name in ("px_decoder", "px_scale_decoder", "px_dropout_decoder", "px_r_decoder"):
        assert hasattr(module.decoder, name), f"a decoder has `{name}`; `fast._FastGenerative` runs it"
    encoder, decoder = module.encoder_z2_z1, module.decoder_z1_z2
    by = "`fast._each_label` and `layers.Net` run them"
    for layers in (encoder.encoder, decoder.decoder):
        assert isinstance(layers, FCLayers), f"the networks over all labels are `FCLayers`; {by}"
        assert {len(parts) for parts in layers.fc_layers} == {5}, (
            f"a layer is linear, batch norm, layer norm, activation, dropout; {by}"
        )
        assert layers.inject_into_layer(0), f"the label enters the first layer; {by}"
        assert layers.fc_layers[0][0].weight.shape[1] == 2 + 3, f"in the last columns; {by}"
    for head in (encoder.mean_encoder, encoder.var_encoder, decoder.mean_decoder, decoder.var_decoder):
        assert isinstance(head, torch.nn.Linear), "each has two linear heads; `fast._two_heads` joins them"
    assert isinstance(module.z_encoder, Encoder), "cells are encoded by an `Encoder`; `stacked.losses` runs it"
    assert callable(encoder.var_activation) and encoder.var_eps > 0, (
        "a variance is activated, and a little added; `fast._over_labels` and `layers.Net.encode` do so"
    )
    assert module.y_prior.shape == (1, 3), "`y_prior` is the prior of the labels; `fast` and `stacked` ask for it"
    assert module.classifier.logits is True, "`logits` says that a classifier gives no probabilities yet; `exact` asks"
    assert isinstance(module.classifier.classifier, torch.nn.Sequential), (
        "a classifier is a sequence of layers; `stacked._classify` runs them"
    )


def test_networks_tell_what_they_are_made_for() -> None:
    module = module_of(SCANVAE)
    usual = {
        "dispersion": "gene",
        "gene_likelihood": "zinb",
        "latent_distribution": "normal",
        "log_variational": True,
        "encode_covariates": False,
        "batch_representation": "one-hot",
        "use_size_factor_key": False,
        "use_observed_lib_size": True,
        "extra_payload_autotune": False,
        "labels_groups": None,
        "n_batch": 2,
        "n_labels": 3,
        "n_latent": 2,
    }
    for name, value in usual.items():
        assert getattr(module, name, "not there") == value, (
            f"a network has {name}={value!r} unless told otherwise; `fast._covered`, `stacked.check_alike` ask for it"
        )


def test_weights_have_the_names_that_members_are_stacked_by() -> None:
    names = module_of(SCANVAE, linear_classifier=True).state_dict().keys()
    first = "fc_layers.Layer 0.0.weight"
    wanted = {
        *(f"z_encoder.encoder.{first}", "z_encoder.mean_encoder.weight", "z_encoder.var_encoder.weight"),
        *(f"encoder_z2_z1.encoder.{first}", f"decoder_z1_z2.decoder.{first}", "decoder_z1_z2.mean_decoder.weight"),
        *(f"decoder.px_decoder.{first}", "decoder.px_scale_decoder.0.weight", "decoder.px_dropout_decoder.weight"),
        *("px_r", "y_prior", "classifier.classifier.0.weight", f"l_encoder.encoder.{first}"),
    }
    assert not wanted - names, f"no weights of these names: {sorted(wanted - names)}; `stacked` reads them by name"


def test_a_step_hands_on_what_the_fast_engine_reads() -> None:
    module = module_of(SCANVAE)
    x, batch = torch.ones(3, 4), torch.zeros(3, 1, dtype=torch.int64)
    inferred = module.inference(x, batch)
    assert inferred.keys() >= {"z", "qz", "ql", "library"}, (
        "`inference` gives these; `fast._FastSCANVAE.loss` reads them"
    )
    given = {"z", "library", "batch_index", "cont_covs", "cat_covs", "size_factor", "y", "transform_batch"}
    assert parameters(VAE.generative) == {"self", *given}, (
        "`generative` is given these; `fast._FastGenerative` leaves others than the first three and y to scvi-tools"
    )
    made = module.generative(inferred["z"], inferred["library"], batch)
    keys = (MODULE_KEYS.PX_KEY, MODULE_KEYS.PL_KEY, MODULE_KEYS.PZ_KEY)
    assert keys == ("px", "pl", "pz") and made.keys() == set(keys), (
        "`generative` gives the distributions of counts, library size and latent space so; `fast._FastGenerative` too"
    )
    assert isinstance(made["px"], ZeroInflatedNegativeBinomial), (
        "counts are `ZeroInflatedNegativeBinomial`; `exact` reads"
    )
    assert made["px"].theta.stride(0) == 0, (
        "one theta for all cells takes no memory; `exact._lgamma_of` knows it by that"
    )
    assert {"mu", "theta", "zi_logits"} <= {*vars(made["px"]), *dir(made["px"])}, (
        "and their parts; `exact._log_zinb` reads"
    )
    assert list(inspect.signature(SCANVAE.loss).parameters)[1:] == [
        *("tensors", "inference_outputs", "generative_ouputs", "kl_weight", "labelled_tensors", "classification_ratio")
    ], "`loss` is given these, in this order; `fast._FastSCANVAE.loss` takes them"
    assert "log_prob" in vars(NegativeBinomial) and "log_prob" in vars(ZeroInflatedNegativeBinomial), (
        "each has a `log_prob` of its own; `exact.lean_likelihoods` replaces it"
    )


def test_library_sizes_have_a_prior_by_batch() -> None:
    means, variances = np.array([[1.0, 2.0]]), np.array([[0.25, 4.0]])
    module = module_of(VAE, use_observed_lib_size=False, library_log_means=means, library_log_vars=variances)
    prior = library_prior(module, torch.tensor([[1], [0], [1]]))
    assert prior.loc.tolist() == [[2.0], [1.0], [2.0]], (
        "`_compute_local_library_params` gives means of the logarithm; `private.library_prior` asks for them"
    )
    assert prior.scale.tolist() == [[2.0], [0.5], [2.0]], "and variances; `private.library_prior` takes the root"


def test_torch_checks_the_arguments_of_distributions_unless_told_not_to() -> None:
    wrong = (torch.tensor(torch.nan), 1.0)
    with unchecked_distributions():
        Normal(*wrong)
    with pytest.raises(ValueError, match="loc"):
        Normal(*wrong)  # `_validate_args` is what `set_default_validate_args` sets, so it was as before
        pytest.fail("torch's `_validate_args` is as it was before; `private.unchecked_distributions` puts it back")


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
    assert [steps for steps, _ in counting.found] == [3, 6], (
        "`total_batch_idx` is the number of the last minibatch; `private.steps_taken` counts by it"
    )
    assert [steps for _, steps in counting.found] == [0, 0], (
        "`global_step` does not see such steps; if it did, `steps_taken` could ask for it"
    )
