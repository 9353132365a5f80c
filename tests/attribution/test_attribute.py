"""What attribution must get right: closed forms, strata, recovery, intervals, effects, refusals, the fallback."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from scipy.special import expit
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from study.attribution.attribute import attribute_study
from study.attribution.balanced import block_variances
from study.attribution.effects import adjust_effects, compare, contrasts_of, holm, weights_of
from study.attribution.intervals import group_p_values, piece_squares, share_bounds
from study.attribution.layout import (
    CAUSES,
    Floats,
    Layout,
    chance_variances,
    effect_variances,
    f_test,
    layout_of,
    squares,
)
from study.attribution.mixed import fit_unbalanced, reml
from study.attribution.tables import MIN_SUPPORT, ClassTable, logit, missing_not_at_random, percent, slope
from study.plan.factors import Factor, Stratum, strata
from tests.made import attribute
from tests.simulated_tables import (
    Planted,
    chance_for,
    draw,
    forum_design,
    layout_for,
    plant_effects,
    small_design,
    true_points,
)

SMALL = small_design()


def frame_of(correct: Floats, total: Floats, factors: Sequence[Factor]) -> pd.DataFrame:
    """Return one class's table in long form; `correct` and `total` are ``[replicate, cell]``."""
    cells = list(itertools.product(*(factor.levels for factor in factors)))
    rows = [
        {f.name: level for f, level in zip(factors, cell, strict=True)}
        | {"replicate": r, "seed": r, "fold": r, "correct": correct[r, c], "total": total[r, c]}
        for r in range(len(correct))
        for c, cell in enumerate(cells)
    ]
    return pd.DataFrame(rows)


def simulated(planted: Planted, layout: Layout, replicates: int = 3, seed: int = 0) -> tuple[pd.DataFrame, Floats]:
    """Return one simulated class in long form, and the planted effects on its cells."""
    rng = np.random.default_rng(seed)
    effects = plant_effects(planted, layout, rng)
    drawn = draw(planted, effects, layout, replicates, 1, rng)
    return frame_of(drawn.correct[0], drawn.total[0], layout.factors), effects


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """A class with everything in it: causes of all groups, chance at every stratum."""
    causes = {"data": 0.1, "parameter": 0.1, "data x parameter": 0.05}
    return simulated(Planted((0.15, 0.15, 0.05), causes, cells=400), layout_for(SMALL))[0]


# Closed forms against statsmodels


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


# The strata


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


def test_seeds_and_folds_crossed_split_the_block() -> None:
    layout = layout_for(SMALL)
    rng = np.random.default_rng(5)
    seeds, folds = (grid.ravel() for grid in np.meshgrid(range(3), range(8), indexing="ij"))
    parts = []
    for _ in range(400):
        block = rng.normal(scale=0.3, size=3)[seeds] + rng.normal(scale=0.4, size=8)[folds]
        eta = 1 + (block + rng.normal(scale=0.7, size=24))[:, None] + rng.normal(scale=0.3, size=(24, layout.cells))
        root = float(squares(eta, layout).error_mean_squares[0])
        found = block_variances(eta.mean(axis=1), root, seeds, folds, layout)
        parts.append([found["seed"], found["fold"], found["both"]])
    table = frame_of(1e6 * expit(eta), np.full(eta.shape, 1e6), SMALL)
    table["seed"], table["fold"] = seeds[table.replicate], folds[table.replicate]
    block_found = attribute(table, SMALL, strata(SMALL)).block
    assert block_found is not None
    assert [block_found.seed, block_found.fold, block_found.both] == pytest.approx(parts[-1], abs=1e-3)
    error = np.std(parts, axis=0) / np.sqrt(len(parts))
    assert np.abs((np.mean(parts, axis=0) - [0.09, 0.16, 0.49]) / error).max() < 4


def test_seed_and_fold_together_are_one_block(table: pd.DataFrame) -> None:
    block = attribute(table, SMALL, strata(SMALL)).block
    assert block is not None
    assert (block.seed, block.fold, block.both) == (None, None, None)


# Null studies and intervals


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


@pytest.mark.parametrize("causes", [{}, {"data": 0.3}, {"data": 0.1, "parameter": 0.1, "data x parameter": 0.05}])
def test_intervals_hold_the_truth_as_often_as_they_say(causes: dict[str, float]) -> None:
    layout = layout_for(SMALL)
    planted = Planted(chance_for(4, layout), causes)
    rng = np.random.default_rng(1)
    effects = plant_effects(planted, layout, rng)
    drawn = draw(planted, effects, layout, 3, 250, rng)
    bounds = share_bounds(squares(logit(drawn.correct, drawn.total), layout), layout, draws=256)
    truth = np.array([*(causes.get(group, 0.0) for group in CAUSES), sum(planted.chance)])
    truth /= truth.sum()
    inside = ((bounds.lower <= truth + 1e-9) & (truth <= bounds.upper + 1e-9)).mean(axis=0)
    assert (inside > 0.95 - 3.5 * np.sqrt(0.05 * 0.95 / 250)).all()
    assert (bounds.upper - bounds.lower).mean() < 0.5


def test_effects_in_points_hold_the_truth_where_levels_differ_in_noise() -> None:
    """Near 100% nothing moves; an error pooled in points would be too small for the level that does move."""
    layout = layout_for(forum_design())
    planted = Planted(chance_for(4, layout), {}, recall=0.98, cells=500)
    effects = np.where(np.arange(layout.cells) < layout.cells // 3, -1.7, 0.0)
    drawn = draw(planted, effects, layout, 3, 300, np.random.default_rng(2))
    table = ClassTable(drawn.correct, drawn.total, np.arange(3), np.arange(3))
    contrasts = contrasts_of(layout)
    weights = weights_of(contrasts, layout)
    compared = compare(weights, table.points, table.slopes, squares(table.eta, layout), layout)
    truth = true_points(planted, effects, drawn.block) @ weights.T
    inside = ((compared.lower <= truth) & (truth <= compared.upper)).mean(axis=0)
    differences = np.array([contrast.kind != "mean" for contrast in contrasts])
    assert inside[differences].min() > 0.89
    assert inside[differences].mean() > 0.93


def test_shares_add_up_and_lie_in_their_intervals(table: pd.DataFrame) -> None:
    found = attribute(table, SMALL, strata(SMALL))
    assert sum(share.share for share in found.shares) == pytest.approx(1)
    assert all(share.lower <= share.share <= share.upper for share in found.shares)
    assert sum(part.share for part in found.chance) == pytest.approx(found.share("chance").share)
    causes = 1 - found.share("chance").share
    assert sum(one.shapley for one in found.sensitivity) == pytest.approx(causes, abs=0.02)
    assert all(one.total >= one.shapley - 1e-9 for one in found.sensitivity)


def test_nothing_but_a_cause_gives_it_everything() -> None:
    eta = np.tile(np.repeat([2.0, 0.0, -1.0], 8), (3, 1)) + np.array([[0.5], [0.0], [-0.5]])
    found = attribute(frame_of(1e6 * expit(eta) - 0.5, np.full(eta.shape, 1e6 - 1), SMALL), SMALL, strata(SMALL))
    assert found.share("data").lower == pytest.approx(1, abs=1e-3)
    assert found.share("data").p == 0
    assert found.share("chance").upper == pytest.approx(0, abs=1e-3)


# Effects


def test_effects_are_differences_of_means(table: pd.DataFrame) -> None:
    found = attribute(table, SMALL, strata(SMALL), baselines={"query": "B"})
    points = 100 * table.correct / table.total
    means = points.groupby(table["query"]).mean()
    local = points.groupby([table["query"], table["scanvi.max_epochs"]]).mean()
    for effect in found.effects:
        if effect.factor == "query":
            assert effect.baseline == "B"
            if effect.kind == "marginal":
                assert effect.points == pytest.approx(means[effect.level] - means["B"])
                assert (effect.strata, effect.df) == ("pretraining", pytest.approx(4, abs=0.5))
            if effect.at_factor == "scanvi.max_epochs":
                at = effect.at_level
                assert effect.points == pytest.approx(local[effect.level, at] - local["B", at])
                assert effect.strata == "pretraining + fine-tuning snapshots"
    sizes = [abs(effect.points) for effect in found.effects]
    assert sizes == sorted(sizes, reverse=True)
    with pytest.raises(ValueError, match="no level of 'query'"):
        attribute(table, SMALL, strata(SMALL), baselines={"query": "Z"})


def test_holm_is_that_of_statsmodels_and_weights_shift_it() -> None:
    p = np.random.default_rng(0).uniform(size=30) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm(p, np.full(30, 7.0)) == pytest.approx(holm(p))
    weights = np.ones(30)
    weights[p.argmin()] = 29.0
    assert holm(p, weights).min() == pytest.approx(p.min() * 58 / 29)


def test_degrees_of_freedom_across_strata_are_capped() -> None:
    """With little chance at the root, Satterthwaite's would be those of the leaves, on the word of 4."""
    table, _ = simulated(Planted((0.0, 0.0, 0.2), {}), layout_for(SMALL))
    found = attribute(table, SMALL, strata(SMALL))
    across = [e.df for e in found.effects if e.strata == "pretraining + fine-tuning snapshots"]
    assert max(across) == pytest.approx(12)
    assert min(e.df for e in found.effects if e.strata == "fine-tuning snapshots") > 20


def test_marginal_and_simple_effects_share_the_error() -> None:
    contrasts = contrasts_of(layout_for(SMALL))
    kinds = np.array([contrast.kind for contrast in contrasts])
    for kind in ("marginal", "simple"):
        p = np.ones((2, len(kinds)))
        first = int(np.flatnonzero(kinds == kind)[0])
        p[1, first] = 1e-4
        adjusted = adjust_effects(p, contrasts)
        # Two kinds, two tables: the smallest p is multiplied by the number of its kind, twice two times.
        assert adjusted[1, first] == pytest.approx(1e-4 * 2 * 2 * (kinds == kind).sum())
        assert np.isnan(adjusted[:, kinds == "mean"]).all()


def test_the_correction_is_over_all_classes_of_an_outcome(table: pd.DataFrame) -> None:
    one = table.assign(outcome="heldout/recall", class_name="a")
    alone = attribute_study(one, SMALL, strata(SMALL)).attributions[0]
    other_outcome = pd.concat([one, one.assign(outcome="train/recall")])
    twelve = pd.concat([one.assign(class_name=str(k)) for k in range(12)])
    effect = min(alone.effects, key=lambda e: e.p)
    same = attribute_study(other_outcome, SMALL, strata(SMALL)).attributions[0]
    more = attribute_study(twelve, SMALL, strata(SMALL)).attributions[0]
    assert min(same.effects, key=lambda e: e.p).p_adjusted == pytest.approx(effect.p_adjusted)
    assert min(more.effects, key=lambda e: e.p).p_adjusted > effect.p_adjusted
    doubtful = [e for e in more.effects if e.p < 0.05 < e.p_adjusted]
    assert doubtful
    assert not any(e.real for e in doubtful)


# What must not matter, and what must not be decomposed


def test_the_order_of_rows_and_factors_does_not_matter(table: pd.DataFrame) -> None:
    straight = attribute(table, SMALL, strata(SMALL))
    shuffled = attribute(table.sample(frac=1, random_state=1), SMALL[::-1], strata(SMALL[::-1]))
    for share in straight.shares:
        other = shuffled.share(share.group)
        assert (other.share, other.p) == pytest.approx((share.share, share.p))
        assert (other.lower, other.upper) == pytest.approx((share.lower, share.upper), abs=0.02)
    assert [e.points for e in shuffled.effects] == pytest.approx([e.points for e in straight.effects])


def test_levels_that_a_file_turned_into_text_are_found(table: pd.DataFrame) -> None:
    text = table.astype({"scanvi.linear_classifier": str, "scanvi.max_epochs": str})
    assert attribute(text, SMALL, strata(SMALL)).shares == attribute(table, SMALL, strata(SMALL)).shares
    with pytest.raises(ValueError, match="'Z' is none of its levels"):
        attribute(table.replace({"query": {"A": "Z"}}), SMALL, strata(SMALL))
    with pytest.raises(ValueError, match="twice"):
        attribute(pd.concat([table, table.iloc[:1]]), SMALL, strata(SMALL))
    with pytest.raises(ValueError, match="more cells right than counted"):
        attribute(table.assign(correct=table.total + 1), SMALL, strata(SMALL))


def test_what_cannot_be_decomposed_says_why(table: pd.DataFrame) -> None:
    def reason(changed: pd.DataFrame) -> str:
        found = attribute(changed, SMALL, strata(SMALL))
        assert found.method == "none"
        assert not (found.shares or found.effects)
        return found.reason

    assert reason(table.assign(correct=table.total)) == "nothing varies: 100% in every trial"
    assert "within replicates" in reason(table.assign(correct=200.0 + 10 * table.replicate))
    assert "one replicate only" in reason(table[table.replicate == 0])
    few = MIN_SUPPORT - 1
    assert f"too few cells: {few}" in reason(table.assign(total=float(few), correct=table.correct.clip(upper=few)))
    never = table.assign(
        total=table.total.where(table.index > 1, 0.0), correct=table.correct.where(table.index > 1, 0.0)
    )
    assert "undefined in 2 of 72 trials" in reason(never)


def test_a_stratum_with_few_degrees_of_freedom_says_so(table: pd.DataFrame) -> None:
    pretraining, fine_tuning, _ = attribute(table, SMALL, strata(SMALL)).chance
    assert pretraining.note.startswith("3 query x 3 replicates: 4 degrees of freedom")
    assert fine_tuning.note == ""


def test_logits_are_finite_and_even() -> None:
    total = np.array([0.0, 1.0, 50.0, 1e6])
    assert np.isfinite(logit(np.zeros(4), total)).all()
    assert logit(total, total) == pytest.approx(-logit(np.zeros(4), total))
    assert logit(np.array([300.0]), np.array([400.0])) == pytest.approx(np.log(3), abs=0.01)
    assert np.isnan(percent(np.zeros(1), np.zeros(1))).all()
    assert slope(np.array([0.5])) == pytest.approx(25)


# Missing trials


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
    layout = layout_for(forum_design())
    rng = np.random.default_rng(0)
    drawn = draw(Planted(chance_for(8, layout), {}), np.zeros(layout.cells), layout, 3, 60, rng)
    eta = logit(drawn.correct, drawn.total)
    query = next(t for t, term in enumerate(layout.terms) if term.name == "query")
    ours, pooled = [], []
    for table in eta:
        table.flat[rng.choice(table.size, 4, replace=False)] = np.nan
        found = fit_unbalanced(table, layout).squares
        ours.append(float(f_test(found.effect[query], 2, found.error[0], found.error_df[0])))
        per_query = np.split(table - np.nanmean(table, axis=1, keepdims=True), 3, axis=1)
        pooled.append(stats.f_oneway(*(q[np.isfinite(q)] for q in per_query)).pvalue)
    assert np.mean(np.array(pooled) < 0.05) > 0.2
    assert np.mean(np.array(ours) < 0.05) < 0.15
    assert np.mean(np.array(ours) < 0.5) > 0.3


def test_what_is_not_missing_at_random_is_refused(table: pd.DataFrame) -> None:
    layout = layout_for(SMALL)
    present = np.ones((5, layout.cells), dtype=bool)
    assert missing_not_at_random(present, layout) == ""
    present[[0, 2, 4], [0, 11, 20]] = False
    assert missing_not_at_random(present, layout) == ""
    largest = np.ones((5, layout.cells), dtype=bool)
    largest[:4, -8:-3] = False  # out of memory: query C in four replicates
    assert "failures go with query = C" in missing_not_at_random(largest, layout)
    one_run = np.ones((5, layout.cells), dtype=bool)
    one_run[0, :8] = False  # one failed pretraining is one accident, however many trials it takes along
    assert missing_not_at_random(one_run, layout) == ""
    lost = table[(table["query"] != "A") | table["scanvi.linear_classifier"] | (table["scanvi.max_epochs"] != 30)]
    found = attribute(lost, SMALL, strata(SMALL))
    assert found.method == "none"
    assert "2 of 24 design points have no result in any replicate" in found.reason


def test_frames_hold_every_number(table: pd.DataFrame) -> None:
    long = pd.concat(
        [
            table.assign(outcome="heldout/recall", class_name="B cell"),
            table.assign(outcome="heldout/recall", class_name="rare", total=9.0, correct=3.0),
        ]
    )
    study = attribute_study(long, SMALL, strata(SMALL))
    frames = study.to_frames()
    assert list(frames) == ["tables", "shares", "chance", "block", "means", "effects", "anova", "sensitivity"]
    assert list(frames["tables"].method) == ["balanced", "none"]
    assert set(frames["shares"].class_name) == {"B cell"}
    found = study.of("heldout/recall", "B cell")
    assert frames["shares"].share.tolist() == [share.share for share in found.shares]
    assert len(frames["effects"]) == len(found.effects)
    ss = frames["anova"].groupby("stratum").df.sum()
    assert ss.sum() == 3 * (24 - 1)
    with pytest.raises(KeyError):
        study.of("heldout/recall", "T cell")
