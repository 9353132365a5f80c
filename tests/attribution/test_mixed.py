"""Missing trials: the mixed model is the closed form where none is, and keeps what trials share."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from study.attribution.layout import (
    chance_variances,
    f_test,
    squares,
)
from study.attribution.mixed import fit_unbalanced, reml
from study.attribution.tables import logit
from study.plan.factors import strata
from tests.made import attribute
from tests.simulated_tables import (
    SMALL,
    Planted,
    draw,
    layout_for,
    simulated,
)


def test_chance_by_stratum_is_that_of_a_mixed_model() -> None:
    layout = layout_for(SMALL)
    table, _ = simulated(Planted((0.3, 0.2, 0.05), {"data": 0.2}), layout, replicates=5, seed=4)
    eta = logit(table.correct.to_numpy(), table.total.to_numpy()).reshape(5, -1)
    ours = chance_variances(squares(eta, layout).error_mean_squares, layout.sharing)
    frame = table.rename(columns=lambda name: name.replace(".", "_")).assign(eta=eta.ravel())
    names = [factor.name.replace(".", "_") for factor in SMALL]
    runs = {"pre": "0 + C(query)", "fine": f"0 + {':'.join(f'C({n})' for n in names[:3])}"}
    formula = "eta ~ C(replicate) + " + " * ".join(f"C({n}, Sum)" for n in names)
    model = smf.mixedlm(formula, frame, groups="replicate", vc_formula=runs).fit(reml=True)
    theirs = dict(zip(model.model.exog_vc.names, model.vcomp, strict=True))
    assert ours == pytest.approx([theirs["pre"], theirs["fine"], model.scale], rel=0.02)
    lost = frame.drop(index=[3, 40, 77])  # and the fallback's, where trials are missing
    model = smf.mixedlm(formula, lost, groups="replicate", vc_formula=runs).fit(reml=True)
    theirs = dict(zip(model.model.exog_vc.names, model.vcomp, strict=True))
    units = [lost.groupby(["replicate", *names[:n]]).ngroup().to_numpy() for n in (1, 3)]
    ours = reml(lost.eta.to_numpy(), model.model.exog, units)
    assert ours == pytest.approx([theirs["pre"], theirs["fine"], model.scale], rel=0.02)


def test_the_fallback_on_a_whole_table_is_the_closed_form() -> None:
    layout = layout_for(SMALL)
    table, _ = simulated(Planted((0.3, 0.2, 0.05), {"data": 0.2, "parameter": 0.1}), layout, replicates=4, seed=4)
    eta = logit(table.correct.to_numpy(), table.total.to_numpy()).reshape(4, -1)
    ours, theirs = squares(eta, layout), fit_unbalanced(eta, layout).squares
    assert (theirs.error_df == ours.error_df).all()
    assert theirs.error == pytest.approx(ours.error, rel=0.02)
    assert theirs.effect == pytest.approx(ours.effect, rel=0.02)
    assert theirs.mean == pytest.approx(ours.mean)


def test_a_few_failed_trials_change_little_and_are_said(table: pd.DataFrame) -> None:
    whole = attribute(table, SMALL, strata(SMALL))
    failed = table.assign(correct=table.correct.where(~table.index.isin([3, 40, 61])))
    for part in (failed, failed.dropna()):
        found = attribute(part, SMALL, strata(SMALL))
        assert found.method == "mixed model"
        assert "3 of 72 trials are missing" in found.reason
        for share in whole.shares:
            assert found.share(share.group).share == pytest.approx(share.share, abs=0.08)
        mine = {(e.factor, e.level, e.at_level): e.points for e in found.effects}
        gap = [abs(mine[e.factor, e.level, e.at_level] - e.points) for e in whole.effects]
        assert np.mean(gap) < 1


def test_the_fallback_keeps_shared_trainings() -> None:
    """Null tables with missing trials: least squares over trials as if independent would blame the query."""
    layout = layout_for(SMALL)
    rng = np.random.default_rng(0)
    drawn = draw(Planted((0.3, 0.2, 0.05), {}), np.zeros(layout.cells), layout, 3, 60, rng)
    place = {term.name: t for t, term in enumerate(layout.terms)}
    ours, pooled = [], []
    for table in logit(drawn.correct, drawn.total):
        table.flat[rng.choice(table.size, 4, replace=False)] = np.nan
        found = fit_unbalanced(table, layout).squares
        tests = ((place["query"], 2, 0), (place["scanvi.linear_classifier"], 1, 1))
        ours.append([float(f_test(found.effect[t], df, found.error[s], found.error_df[s])) for t, df, s in tests])
        per_query = np.split(table - np.nanmean(table, axis=1, keepdims=True), 3, axis=1)
        pooled.append(stats.f_oneway(*(q[np.isfinite(q)] for q in per_query)).pvalue)
    assert np.mean(np.array(pooled) < 0.05) > 0.4
    assert (np.mean(np.array(ours) < 0.05, axis=0) < 0.15).all()
    assert (np.mean(np.array(ours) < 0.5, axis=0) > 0.3).all()
