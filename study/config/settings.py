"""What a factor may vary: the data condition and the settings of both stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    StrictBool,
    model_validator,
)

from study.config.extra import ScanviExtra, ScviExtra
from study.config.values import Count, Model


class ScviSettings(Model):
    """Settings of the scVI pretraining (and of the networks and minibatches of both stages)."""

    n_layers: Count = Field(description="hidden layers of encoder and decoder")
    n_latent: Count = Field(description="dimensions of the latent space")
    n_hidden: Count = Field(description="nodes of each hidden layer")
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] = Field(description="share of nodes left out in each step")
    norm: Literal["batch", "layer", "none"] = Field(description="normalisation inside the networks")
    gene_likelihood: Literal["zinb", "nb", "poisson"] = Field(description="distribution of the counts")
    dispersion: Literal["gene", "gene-batch", "gene-cell"] = Field(
        description="whether the dispersion of the counts is one per gene, per gene and batch, or per gene and cell"
    )
    batch_size: Annotated[int, Field(strict=True, ge=2)] = Field(description="minibatch size of both stages")
    max_epochs: Count = Field(description="epochs of the pretraining")
    extra: ScviExtra = Field(default=ScviExtra(), description="further arguments of scvi.model.SCVI")

    @model_validator(mode="after")
    def _embedding_is_of_use(self) -> Self:
        embedding = self.extra.batch_representation == "embedding"
        if "batch_embedding_kwargs" in self.extra.model_fields_set and not embedding:
            raise ValueError(
                "extra.batch_embedding_kwargs changes nothing where batches have no embedding: leave it out, or say "
                "'scvi.extra.batch_representation=embedding'"
            )
        if embedding and self.extra.encode_covariates:
            raise ValueError(
                "extra: scANVI cannot classify with batch_representation=embedding and encode_covariates=true: "
                "leave one out"
            )
        return self


class ScanviSettings(Model):
    """Settings of the scANVI fine-tuning."""

    linear_classifier: StrictBool = Field(description="linear classifier, or a small network (MLP)")
    n_samples_per_label: Count | Literal["all"] = Field(description="labelled cells drawn per label, anew each epoch")
    max_epochs: Count = Field(description="epochs of the fine-tuning")
    classification_ratio: Annotated[float, Field(ge=0)] = Field(description="weight of the classification loss")
    protocol: Literal["joint", "surgery"] = Field(description="train with the query, or map it onto the reference")
    surgery_epochs: Count = Field(description="epochs on the query (protocol: surgery)")
    extra: ScanviExtra = Field(default=ScanviExtra(), description="further arguments of scvi.model.SCANVI")

    @model_validator(mode="after")
    def _parameters_have_a_network(self) -> Self:
        if "classifier_parameters" in self.extra.model_fields_set and self.linear_classifier:
            raise ValueError(
                "extra.classifier_parameters are those of a small network, and linear_classifier is true: leave them "
                "out, or say 'scanvi.linear_classifier=false'"
            )
        return self


class Settings(Model):
    """Everything that a factor may vary: the data condition and the settings of both stages."""

    query: str | None = Field(None, description="which query, where it is no factor; the first one if absent")
    query_cells: Annotated[int, Field(strict=True, ge=2)] | Literal["all"] = Field(
        "all", description="the first so many query cells"
    )
    query_draw: Annotated[int, Field(strict=True, ge=0)] = Field(
        0, description="0: the first of its cells in their fixed random order; 1, 2, ...: other random draws"
    )
    budget: Literal["epochs", "steps", "grow"] = Field(
        "epochs",
        description="epochs as stated, matched in optimiser steps, or levels of them trained while they matter",
    )
    scvi: ScviSettings = Field(description="settings of the pretraining")
    scanvi: ScanviSettings = Field(description="settings of the fine-tuning")

    @model_validator(mode="after")
    def _no_second_value(self) -> Self:
        if twice := sorted(self.scvi.extra.model_fields_set & self.scanvi.extra.model_fields_set):
            raise ValueError(
                f"scvi.extra and scanvi.extra both have {', '.join(twice)}, and scANVI has what scVI was given: leave "
                f"one out, as with '~scanvi.extra.{twice[0]}'"
            )
        return self


def setting_names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings that a factor may vary."""
    for key, value in values.items():
        if isinstance(value, Mapping) and key != "extra":
            yield from setting_names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
