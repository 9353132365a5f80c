"""The balanced table: sums of squares in closed form, strata of the stage tree, planted variances."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from statsmodels.stats.anova import anova_lm

from study.attribution.intervals import group_p_values, piece_squares
from study.attribution.layout import (
    CAUSES,
    effect_variances,
    f_test,
    layout_of,
    squares,
)
from study.attribution.tables import logit
from study.plan.factors import Factor, Stratum, strata
from tests.made import attribute
from tests.simulated_tables import (
    SMALL,
    Planted,
    chance_for,
    draw,
    forum_design,
    layout_for,
    plant_effects,
    simulated,
)


def test_sums_of_squares_are_those_of_statsmodels(table: pd.DataFrame) -> None:
    layout = layout_for(SMALL)
    frame = table.rename(columns=lambda name: name.replace(".", "_")).assign(eta=logit(table.correct, table.total))
    names = [factor.name.replace(".", "_") for factor in SMALL]
    model = smf.ols("eta ~ C(replicate) + " + " * ".join(f"C({n}, Sum)" for n in names), data=frame).fit()
    theirs = anova_lm(model, typ=2)
    found = squares(np.asarray(frame.eta).reshape(3, -1), layout)
    for term, ss in zip(layout.terms, found.effect, strict=True):
        if term.order <= 3:
            key = ":".join(f"C({n.replace('.', '_')}, Sum)" for n in term.name.split(" x "))
            assert ss == pytest.approx(theirs.loc[key, "sum_sq"], rel=1e-8)
            assert term.df == theirs.loc[key, "df"]
    assert found.block == pytest.approx(theirs.loc["C(replicate)", "sum_sq"], rel=1e-8)
    assert found.error.sum() == pytest.approx(theirs.loc["Residual", "sum_sq"], rel=1e-8)
    assert found.error_df.sum() == theirs.loc["Residual", "df"]


def test_an_effect_is_tested_at_its_deepest_stratum() -> None:
    layout = layout_for(SMALL)
    home = {term.name: layout.strata[term.stratum].name for term in layout.terms}
    assert home["query"] == "pretraining"
    assert home["query x scanvi.linear_classifier"] == "fine-tuning"
    assert home["query x scanvi.max_epochs"] == "fine-tuning snapshots"
    assert layout.sharing == (8, 2, 1)


def test_a_stratum_without_factors_disappears() -> None:
    settings = [factor for factor in SMALL if factor.role == "parameter"]
    layout = layout_for(settings)
    assert [stratum.name for stratum in layout.strata] == ["fine-tuning", "fine-tuning snapshots"]
    assert layout.groups == ("parameter",)
    found = attribute(simulated(Planted((0.1, 0.05), {"parameter": 0.2}), layout)[0], settings, strata(settings))
    assert [share.group for share in found.shares] == ["parameter", "chance"]


def test_a_factor_needs_one_stratum_and_two_levels() -> None:
    with pytest.raises(ValueError, match="belongs to 0 strata"):
        layout_of(SMALL, [Stratum("pretraining", "", ("query",))])
    with pytest.raises(ValueError, match="nothing to attribute"):
        layout_of([Factor("query", ("A",), "data")], [Stratum("pretraining", "", ("query",))])


@pytest.mark.parametrize("replicates", [3, 6])
def test_planted_components_are_recovered_without_bias(replicates: int) -> None:
    layout = layout_for(SMALL)
    planted = Planted((0.20, 0.10, 0.05), {"data": 0.08, "parameter": 0.05, "data x parameter": 0.03}, block=0.3)
    rng = np.random.default_rng(3)
    effects = plant_effects(planted, layout, rng)
    drawn = draw(planted, effects, layout, replicates, 1500, rng)
    found = squares(logit(drawn.correct, drawn.total), layout)
    errors = found.error_mean_squares
    # The unclipped estimates: clipping is for display, and is not unbiased.
    raw = (errors - np.column_stack([errors[:, 1:], np.zeros(len(errors))])) / layout.sharing
    columns = effect_variances(found, layout)
    groups = np.array(["", *(layout.terms[t].group for t in layout.column_term[1:])])
    causes = np.column_stack([columns[:, groups == group].sum(axis=1) for group in CAUSES])
    block = (found.block / (replicates - 1) - errors[:, 0]) / layout.cells
    estimates = np.column_stack([raw, causes, block])
    truth = [*planted.chance, *(planted.causes[group] for group in CAUSES), planted.block]
    error = estimates.std(axis=0) / np.sqrt(len(estimates))
    assert np.abs((estimates.mean(axis=0) - truth) / error).max() < 4


def test_a_pooled_residual_blames_the_query_and_the_strata_do_not() -> None:
    layout = layout_for(forum_design())
    planted = Planted(chance_for(8, layout), {})
    drawn = draw(planted, np.zeros(layout.cells), layout, 3, 1500, np.random.default_rng(0))
    found = squares(logit(drawn.correct, drawn.total), layout)
    query = next(t for t, term in enumerate(layout.terms) if term.name == "query")
    pooled = f_test(found.effect[:, query], 2, found.error.sum(axis=1), found.error_df.sum())
    own = f_test(found.effect[:, query], 2, found.error[:, 0], found.error_df[0])
    assert (pooled < 0.05).mean() > 0.25
    assert 0.03 < (own < 0.05).mean() < 0.07
    gates = group_p_values(*piece_squares(found, layout), found, layout)
    assert ((gates < 0.05).mean(axis=0) < 0.07).all()
