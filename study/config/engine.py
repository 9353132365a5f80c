"""What `resources.engine=gpu` trains, and what it does not: it has losses of its own, for most settings but not all."""

from __future__ import annotations

from study.config.extra import EitherExtra
from study.config.settings import Settings
from study.config.values import written


def refuse_beyond_gpu(settings: Settings) -> None:
    """Raise `ValueError` for a setting that the engine `gpu` does not train with."""
    scvi, extra = settings.scvi, settings.scvi.extra
    needed: list[tuple[str, object, object]] = [
        ("scvi.dispersion", scvi.dispersion, "gene"),
        ("scanvi.protocol", settings.scanvi.protocol, "joint"),
        ("scvi.extra.latent_distribution", extra.latent_distribution, "normal"),
        ("scvi.extra.use_observed_lib_size", extra.use_observed_lib_size, True),
        ("scvi.extra.encode_covariates", extra.encode_covariates, False),
        ("scvi.extra.batch_representation", extra.batch_representation, "one-hot"),
        *_of_either("scvi.extra", extra),
        *_of_either("scanvi.extra", settings.scanvi.extra),
    ]
    rate = settings.scanvi.extra.classifier_parameters
    if "dropout_rate" in rate.model_fields_set:
        needed.append(("scanvi.extra.classifier_parameters.dropout_rate", rate.dropout_rate, scvi.dropout_rate))
    for name, found, wanted in needed:
        if found != wanted:
            raise ValueError(
                f"{name}={written(found)} cannot be trained with resources.engine=gpu. Write "
                f"'{name}={written(wanted)}', or choose 'resources.engine=exact' or 'fast'"
            )


def _of_either(where: str, extra: EitherExtra) -> list[tuple[str, object, object]]:
    return [
        (f"{where}.log_variational", extra.log_variational, True),
        (f"{where}.extra_encoder_kwargs.use_activation", extra.extra_encoder_kwargs.use_activation, True),
        (f"{where}.extra_decoder_kwargs.use_activation", extra.extra_decoder_kwargs.use_activation, True),
    ]
