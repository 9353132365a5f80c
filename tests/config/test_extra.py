"""Further arguments of scvi-tools: those that it has, with its own defaults, each given to a stage that heeds it."""

import inspect
from typing import Any, Literal, get_args

import pytest
import torch
from pydantic import BaseModel
from scvi.model import SCVI
from scvi.module import SCANVAE, VAE, Classifier
from scvi.nn import DecoderSCVI, Encoder, FCLayers

from study.config.composition import compose
from study.config.extra import (
    Activation,
    ClassifierExtra,
    DecoderExtra,
    EmbeddingExtra,
    EncoderExtra,
    ScanviExtra,
    ScviExtra,
)
from study.config.values import dump
from study.errors import InputError
from study.training.arguments import scanvi_arguments, scvi_arguments

# What cells and models give a module, or only scvi-tools' own tuner looks at.
GIVEN = {"n_input", "n_batch", "n_labels", "n_continuous_cov", "n_cats_per_cov", "use_size_factor_key"}
GIVEN |= {"library_log_means", "library_log_vars", "extra_payload_autotune"}
# Arguments of scANVI that follow the classes of the reference: no value of a configuration.
BY_CLASS = {"y_prior", "labels_groups", "use_labels_groups"}


def arguments_of(*takers: Any) -> dict[str, inspect.Parameter]:
    found = {name: one for taker in takers for name, one in inspect.signature(taker.__init__).parameters.items()}
    return {name: one for name, one in found.items() if one.kind is not one.VAR_KEYWORD and name != "self"}


def test_every_argument_of_scvi_tools_is_a_setting_or_extra() -> None:
    """A new version with a new argument fails here, and somebody decides what becomes of it."""
    config = compose()
    scvi, scanvi = set(scvi_arguments(config.scvi)), {"linear_classifier"}
    assert set(ScviExtra.model_fields) == set(arguments_of(VAE)) - scvi - GIVEN
    assert set(ScanviExtra.model_fields) <= set(arguments_of(SCANVAE, VAE)) - scvi - scanvi - GIVEN - BY_CLASS
    assert set(arguments_of(SCANVAE)) - set(arguments_of(VAE)) - BY_CLASS - scanvi == {"classifier_parameters"}


def test_scanvi_ignores_none_of_its_arguments() -> None:
    """What `SCVI` names itself it hands on with its default, and scANVI's own value is dropped without a word."""
    assert not set(ScanviExtra.model_fields) & set(arguments_of(SCVI))


@pytest.mark.parametrize(
    ("model", "takers"),
    [
        (ScviExtra, [VAE]),
        (EncoderExtra, [FCLayers, Encoder]),
        (DecoderExtra, [FCLayers, DecoderSCVI]),
        (EmbeddingExtra, [VAE.init_embedding]),
        (ClassifierExtra, [Classifier]),
    ],
)
def test_defaults_and_values_are_those_of_scvi_tools(model: type[BaseModel], takers: list[Any]) -> None:
    signature = {name: one for taker in takers for name, one in _signature(taker).items()}
    for name, field in model.model_fields.items():
        theirs = signature[name]
        if not name.endswith("_kwargs"):
            assert field.default == theirs.default, name
        if "Literal" in str(theirs.annotation):
            assert get_args(field.annotation) == get_args(eval(theirs.annotation, {"Literal": Literal})), name
        elif theirs.annotation in ("bool", bool):
            assert field.annotation is bool, name


def _signature(taker: Any) -> Any:
    return inspect.signature(taker if inspect.isfunction(taker) else taker.__init__).parameters


def test_a_variance_stays_positive_under_every_activation() -> None:
    x = torch.linspace(-50, 50, 1001)
    for name in get_args(Activation):
        assert (getattr(torch.nn.functional, name)(x) >= 0).all(), name


def test_only_what_is_given_is_passed_on_and_written() -> None:
    config = compose(["scvi.extra.extra_encoder_kwargs.var_eps=0.01", "scanvi.extra.log_variational=true"])
    assert dump(config.scvi)["extra"] == {"extra_encoder_kwargs": {"var_eps": 0.01}}
    assert scanvi_arguments(config.scanvi) == {"linear_classifier": True, "log_variational": True}
    assert dump(compose().scvi)["extra"] == {}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["scvi.extra.latent_distribution=foo"], ["scvi.extra.latent_distribution", "'normal' or 'ln'", "found 'foo'"]),
        (["scvi.extra.log_variational=3"], ["scvi.extra.log_variational", "true or false", "found 3"]),
        (["scvi.extra.log_variatinal=true"], ["Did you mean 'log_variational'?"]),
        (["scvi.extra.x=1"], ["scvi.extra.x: is no known key", "Known there: ", "log_variational"]),
        (["scvi.extra.n_layers=2"], ["scvi.extra.n_layers", "Did you mean 'scvi.n_layers'"]),
        (["scvi.extra=2"], ["scvi.extra", "mapping", "found 2"]),
        (["scvi.extra.extra_encoder_kwargs={vareps: 1}"], ["extra_encoder_kwargs.vareps", "Did you mean 'var_eps'?"]),
        (["scanvi.extra.latent_distribution=ln"], ["Did you mean 'scvi.extra.latent_distribution'?"]),
        (["scanvi.extra.use_labels_groups=true"], ["is no known key", "Known there: "]),
        (["scvi.extra.batch_embedding_kwargs={embedding_dim: 3}"], ["scvi", "'scvi.extra.batch_representation="]),
        (["scvi.extra={batch_representation: embedding, encode_covariates: true}"], ["scvi", "leave one out"]),
        (["scanvi.extra.classifier_parameters={n_layers: 2}"], ["scanvi", "'scanvi.linear_classifier=false'"]),
        (
            ["model=forum", "scvi.extra.var_activation=relu"],
            ["both have var_activation", "'~scanvi.extra.var_activation'"],
        ),
    ],
)
def test_what_scvi_tools_would_not_heed_is_refused(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        compose(overrides)
    for word in words:
        assert word in str(refused.value)
