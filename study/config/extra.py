"""Further arguments of scvi-tools' models, which have no setting of their own: their names and what they may be.

They are those of scvi-tools' constructors, less what cells, settings and this package give it, and what one of the two
stages would ignore. A test holds them against the signatures.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, StrictBool, model_serializer

from study.config.values import Count, Model, Positive

# Functions of torch.nn.functional under which a variance stays positive.
Activation = Literal["softplus", "relu", "relu6", "sigmoid", "hardsigmoid"]


class Extra(Model):
    """Arguments that scvi-tools has a default for: only those that are given are passed on, and written."""

    @model_serializer(mode="wrap")
    def _given(self, dumped: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dumped(self).items() if name in self.model_fields_set}


class EncoderExtra(Extra):
    """Further arguments of the encoders."""

    var_eps: Positive = Field(default=1e-4, description="added to the variance of the latent space")
    use_activation: StrictBool = Field(default=True, description="ReLU after each hidden layer of the encoders")


class DecoderExtra(Extra):
    """Further arguments of the decoder."""

    use_activation: StrictBool = Field(default=True, description="ReLU after each hidden layer of the decoder")


class EmbeddingExtra(Extra):
    """Further arguments of the embedding of batches."""

    embedding_dim: Count = Field(default=5, description="dimensions of the embedding of batches")


class ClassifierExtra(Extra):
    """Further arguments of a classifier that is a small network."""

    n_layers: Count = Field(default=1, description="hidden layers of the classifier")
    n_hidden: Count = Field(default=128, description="nodes of each hidden layer of the classifier")
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1, description="share of the classifier's nodes left out in each step"
    )


class EitherExtra(Extra):
    """Arguments that either stage takes; scANVI has what scVI was given."""

    log_variational: StrictBool = Field(default=True, description="log1p of the counts before they are encoded")
    var_activation: Activation | None = Field(
        default=None, description="function of torch.nn.functional that makes variances positive; exp if absent"
    )
    extra_encoder_kwargs: EncoderExtra = Field(default=EncoderExtra(), description="further arguments of the encoders")
    extra_decoder_kwargs: DecoderExtra = Field(default=DecoderExtra(), description="further arguments of the decoder")


class ScviExtra(EitherExtra):
    """Further arguments of `scvi.model.SCVI`; scANVI has them too."""

    latent_distribution: Literal["normal", "ln"] = Field(default="normal", description="normal, or logistic normal")
    use_observed_lib_size: StrictBool = Field(default=True, description="library size as counted, or inferred")
    encode_covariates: StrictBool = Field(default=False, description="the encoders see the batch")
    deeply_inject_covariates: StrictBool = Field(
        default=True, description="every hidden layer sees the batch, not the first"
    )
    batch_representation: Literal["one-hot", "embedding"] = Field(
        default="one-hot", description="how the batch is given"
    )
    batch_embedding_kwargs: EmbeddingExtra = Field(default=EmbeddingExtra(), description="arguments of its embedding")


class ScanviExtra(EitherExtra):
    """Further arguments of `scvi.model.SCANVI`."""

    classifier_parameters: ClassifierExtra = Field(
        default=ClassifierExtra(), description="arguments of the classifier, where it is a small network"
    )
