"""Training: the traps of scvi-tools that would spoil a study without a word, each sprung on purpose."""

from pathlib import Path

import numpy as np
import pytest
import torch

from study.cells.twins import prepare
from study.config.composition import compose
from study.config.study import StudyConfig
from study.plan.split import Split, split_cells
from study.training.building import State, joint_anndata, predict_probabilities, state_of
from study.training.hardware import Hardware
from study.training.models import finetune, operate, pretrain
from study.training.snapshot import Snapshot, TrainingError, undisturbed
from tests.made import TINY, few_cells


def pretrained(config: StudyConfig, parts: Split) -> State:
    states: list[State] = []
    pretrain(few_cells(), parts, config, 0, [1], lambda s: states.append(state_of(s.model)), Hardware())
    return states[0]


def finetuned(config: StudyConfig, epochs: list[int], parts: Split | None = None) -> list[Snapshot]:
    parts = parts or split_cells(few_cells(), 0, 3, config.scvi.batch_size)
    read: list[Snapshot] = []
    state = pretrained(config, parts)
    finetune(few_cells(), parts, config, 0, epochs, read.append, Hardware(), state)
    return read


def test_labelled_cells_are_drawn_anew_each_epoch() -> None:
    """Given callbacks replace scANVI's own; without `SubSampleLabels` the same five cells would come every epoch."""
    config = compose([*TINY, "scanvi.n_samples_per_label=5"])
    first, third = finetuned(config, [1, 3])
    assert first.probes["distinct_labelled"]["Dendritic"] == 5
    assert third.probes["distinct_labelled"]["Dendritic"] > 5
    assert (first.probes["steps"], third.probes["steps"]) == (first.probes["batches"], 3 * first.probes["batches"])


def test_no_labelled_minibatch_of_one_cell() -> None:
    """One labelled cell over the batch size, and BatchNorm would end the training with an error."""
    parts = split_cells(few_cells(), 0, 3, 128)
    labels = few_cells().labels[parts.labelled]
    drawn = sum(min(3, int((labels == code).sum())) for code in np.unique(labels))
    config = compose([*TINY, "scanvi.n_samples_per_label=3", f"scvi.batch_size={drawn - 1}"])
    snapshot = finetuned(config, [1])[0]
    assert sum(snapshot.probes["distinct_labelled"].values()) == drawn - 1


def test_no_joint_minibatch_of_one_cell() -> None:
    n = split_cells(few_cells(), 0, 3, 10_000).train.size
    parts = split_cells(few_cells(), 0, 3, n - 1)
    assert parts.left_out.tolist() == [few_cells().counts.shape[0] - 1], "the last query cell"
    pretrained(compose([*TINY, f"scvi.batch_size={n - 1}"]), parts)


def test_reading_a_snapshot_disturbs_nothing() -> None:
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout())
    module[1].eval()
    torch.manual_seed(0)
    np.random.seed(0)
    expected = (torch.rand(1).item(), np.random.rand())
    torch.manual_seed(0)
    np.random.seed(0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with undisturbed(module):
        assert not any(part.training for part in module.modules())
        module(torch.rand(4, 2))
        np.random.rand(3)
    assert (torch.rand(1).item(), np.random.rand()) == expected
    assert [part.training for part in module.modules()] == [True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    config = compose([*TINY, "scanvi.classification_ratio=1e39", "scvi.batch_size=4096"])
    with pytest.raises(TrainingError, match="loss is"):
        finetuned(config, [2])


def test_probabilities_have_a_column_per_class_in_order() -> None:
    snapshot = finetuned(compose(TINY), [1])[0]
    p = predict_probabilities(snapshot.model, few_cells())
    assert p.shape == (few_cells().counts.shape[0], len(few_cells().classes))
    named = snapshot.model.predict(soft=True)
    for code, name in enumerate(few_cells().classes):
        assert np.allclose(p[:, code], named[name], atol=1e-6)
    for first in (0, 5):
        assert np.array_equal(
            predict_probabilities(snapshot.model, few_cells(), first=first).shape, (first, p.shape[1])
        )


def has_relu(module: torch.nn.Module) -> bool:
    return any(isinstance(part, torch.nn.ReLU) for part in module.modules())


def test_extra_arguments_of_scvi_reach_the_module_of_scanvi() -> None:
    extra = (
        "{log_variational: false, latent_distribution: ln, use_observed_lib_size: false, "
        "deeply_inject_covariates: false, var_activation: softplus, extra_encoder_kwargs: {var_eps: 0.01}, "
        "extra_decoder_kwargs: {use_activation: false}, batch_representation: embedding, "
        "batch_embedding_kwargs: {embedding_dim: 3}}"
    )
    module = finetuned(compose([*TINY, f"scvi.extra={extra}"]), [1])[0].model.module
    assert (module.log_variational, module.latent_distribution) == (False, "ln")
    assert module.use_observed_lib_size is False
    assert not module.decoder.px_decoder.inject_covariates
    assert module.z_encoder.var_activation is torch.nn.functional.softplus
    assert module.z_encoder.var_eps == 0.01
    assert (has_relu(module.z_encoder), has_relu(module.decoder)) == (True, False)
    assert module.get_embedding("batch").embedding_dim == 3


def test_extra_arguments_of_scanvi_reach_its_module() -> None:
    extra = (
        "{log_variational: false, var_activation: softplus, extra_encoder_kwargs: {use_activation: false}, "
        "extra_decoder_kwargs: {use_activation: false}, "
        "classifier_parameters: {n_layers: 2, n_hidden: 5, dropout_rate: 0.3}}"
    )
    config = compose([*TINY, "scanvi.linear_classifier=false", f"scanvi.extra={extra}"])
    module = finetuned(config, [1])[0].model.module
    assert module.log_variational is False
    assert module.z_encoder.var_activation is torch.nn.functional.softplus
    assert not has_relu(module.z_encoder)
    assert not has_relu(module.decoder)
    dropouts = [part.p for part in module.classifier.modules() if isinstance(part, torch.nn.Dropout)]
    assert dropouts == [0.3, 0.3]


def test_the_fast_engine_maps_a_query_and_leaves_the_reference_alone() -> None:
    config = compose([*TINY, "scanvi.linear_classifier=true"])
    reference = few_cells().first(0)
    alone, on = split_cells(reference, 0, 3, 128), Hardware(engine="fast")
    states: list[State] = []
    predicted: list[np.ndarray] = []

    def read(snapshot: Snapshot) -> None:
        states.append(state_of(snapshot.model))
        adata = joint_anndata(reference, alone)
        predicted.append(predict_probabilities(snapshot.model, reference, adata))

    pretrain(reference, alone, config, 0, [1], lambda s: states.append(state_of(s.model)), on)
    finetune(reference, alone, config, 0, [1], read, on, states[0])
    operate(few_cells(), split_cells(few_cells(), 0, 3, 128), config, 0, [2], read, on, states[1])
    assert np.array_equal(*predicted)
    assert any(not torch.equal(states[2][name], value) for name, value in states[1].items()), "something was trained"


def test_a_condition_with_fewer_query_cells_copies_no_counts(tmp_path: Path) -> None:
    data = compose(["data=simulated", "data.simulate.reference_cells=60"]).data
    cells = prepare(data, ["large"], tmp_path)["large"]
    few = cells.first(5)  # scipy copies views of less than half when it makes a matrix of them
    assert 2 * few.counts.nnz < cells.counts.nnz
    adata = joint_anndata(few, split_cells(few, 0, 3, 128))
    for part in ("data", "indices", "indptr"):
        assert np.shares_memory(getattr(adata.X, part), getattr(cells.counts, part))
