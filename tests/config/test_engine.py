"""What the engine `gpu` does not train is refused before anything is, by its name and with what to do."""

import pytest

from study.config.composition import compose, validate
from study.config.values import dump
from study.errors import InputError
from study.plan.trials import trials_of
from tests.made import study_of

GPU = "resources.engine=gpu"


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (["scvi.dispersion=gene-batch"], "scvi.dispersion=gene-batch"),
        (["scanvi.protocol=surgery"], "scanvi.protocol=surgery"),
        (["scvi.extra.latent_distribution=ln"], "scvi.extra.latent_distribution=ln"),
        (["scvi.extra.use_observed_lib_size=false"], "scvi.extra.use_observed_lib_size=false"),
        (["scvi.extra.encode_covariates=true"], "scvi.extra.encode_covariates=true"),
        (["scvi.extra.batch_representation=embedding"], "scvi.extra.batch_representation=embedding"),
        (["scvi.extra.log_variational=false"], "scvi.extra.log_variational=false"),
        (["scanvi.extra.log_variational=false"], "scanvi.extra.log_variational=false"),
        (
            ["scvi.extra.extra_encoder_kwargs.use_activation=false"],
            "scvi.extra.extra_encoder_kwargs.use_activation=false",
        ),
        (
            ["scanvi.linear_classifier=false", "scanvi.extra.classifier_parameters.dropout_rate=0.4"],
            "scanvi.extra.classifier_parameters.dropout_rate=0.4",
        ),
        (["space=controls"], "the control 'surgery' cannot be trained with resources.engine=gpu"),
        (["resources=gpu_node", "resources.resident=true"], "resident=true changes nothing with engine=gpu"),
    ],
)
def test_what_it_does_not_train_is_refused(overrides: list[str], found: str) -> None:
    compose(overrides)
    with pytest.raises(InputError) as refused:
        compose([*overrides, GPU])
    assert found in str(refused.value)
    assert "leave" in str(refused.value).lower() or "or choose 'resources.engine=exact' or 'fast'" in str(refused.value)


def test_so_are_levels_that_it_does_not_train() -> None:
    factors = "{scvi.dispersion: {levels: [gene, gene-cell]}}"
    trials_of(study_of(factors), ["asis"])
    with pytest.raises(InputError, match="dispersion=gene-cell cannot be trained"):
        trials_of(study_of(factors, GPU), ["asis"])


def test_so_are_trainings_that_go_on() -> None:
    values = dump(study_of("{scanvi.max_epochs: {levels: [1, 2, 3]}}", GPU)) | {"budget": "grow"}
    with pytest.raises(InputError, match="'budget: grow' goes on with trainings"):
        validate(values)


def test_other_numbers_and_classifiers_are_trained() -> None:
    compose(
        [
            *(GPU, "scvi.norm=layer", "scvi.gene_likelihood=nb", "scvi.n_layers=2", "scvi.dropout_rate=0.3"),
            *("scvi.extra.var_activation=softplus", "scvi.extra.deeply_inject_covariates=false"),
            *("scanvi.linear_classifier=false", "scanvi.extra.classifier_parameters.n_hidden=7"),
        ]
    )
