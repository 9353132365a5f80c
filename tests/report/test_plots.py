"""What is drawn is what the tables say."""

from collections.abc import Iterator

import matplotlib
import numpy as np
import pandas as pd
import pytest

from study.report.plots import (
    ROLE_COLOURS,
    plot_confusion,
    plot_effects,
    plot_query_size,
    plot_recall,
    plot_shares,
    plot_trust,
)
from study.trials.metrics import MACRO

matplotlib.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    yield
    plt.close("all")


def ticks(ax: plt.Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def test_shares_are_drawn_with_their_intervals() -> None:
    found = pd.DataFrame(
        [("T$_1$", "data", 0.2, 0.1, 0.4), ("T$_1$", "chance", 0.8, 0.6, 0.9), (MACRO, "chance", 1.0, 0.7, 1.0)],
        columns=["class_name", "group", "share", "lower", "upper"],
    )
    ax = plot_shares(found, pd.DataFrame({"class_name": ["rare", "T$_1$", MACRO]}))
    assert ticks(ax) == ["Mean of all classes (macro)", r"T\$_1\$"], "the mean first; names are no mathematics"
    assert "1 of 3 rows are not decomposed" in ax.get_xlabel()
    drawn = {(round(float(x), 6), round(float(y))) for line in ax.lines for x, y in line.get_xydata()}
    assert drawn == {(20, 1), (80, 1), (100, 0)}
    bars = {tuple(segment[:, 0].round(6)) for one in ax.collections for segment in one.get_segments()}
    assert bars == {(10, 40), (60, 90), (70, 100)}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["data", "chance"]


def test_nothing_decomposed_is_empty_axes() -> None:
    columns = ["class_name", "group", "share", "lower", "upper"]
    ax = plot_shares(pd.DataFrame(columns=columns), pd.DataFrame({"class_name": ["a", "b"]}))
    assert ticks(ax) == [] and "2 of 2 rows are not decomposed" in ax.get_xlabel()


def test_recall_shows_every_trial_and_the_means_of_each_level() -> None:
    table = pd.DataFrame(
        {
            "part": ["heldout"] * 6 + ["train"],
            "class_name": ["B", "T", "B", "T", "B", "T", "B"],
            "query_cells": [30, 30, "all", "all", "all", "all", 30],
            "recall": [0.5, 0.9, 0.6, 1.0, 0.8, np.nan, 0.1],
        }
    )
    figure, mine = plt.subplots()
    ax = plot_recall(table, "heldout", "query_cells", mine)
    assert ax is mine and ticks(ax) == ["B", "T"] and ax.get_xlabel() == "recall on held-out cells (%)"
    means = {line.get_label(): line.get_xdata().tolist() for line in ax.lines}
    assert means == {"30": [50, 90], "all": [70, 100]}
    dots = sorted(float(x) for one in ax.collections for x in one.get_offsets()[:, 0] if np.isfinite(x))
    assert dots == [50, 60, 80, 90, 100]
    places = [{round(float(y)) for y in line.get_ydata()} for line in ax.lines]
    assert places == [{0, 1}, {0, 1}], "each beside its class"
    assert len({line.get_marker() for line in ax.lines}) == 2, "not by colour alone"
    assert len(figure.axes) == 1


def test_effects_are_largest_first_and_hollow_where_not_certain() -> None:
    rows = [
        (MACRO, "marginal", "query_cells", "all", 30, "data", 3.0, 1.0, 5.0, True),
        (MACRO, "marginal", "scanvi.max_epochs", 30, 15, "parameter", -4.0, -9.0, 1.0, False),
        (MACRO, "simple", "query_cells", "all", 30, "data", 50.0, 40.0, 60.0, True),
        ("B", "marginal", "query_cells", "all", 30, "data", 60.0, 50.0, 70.0, True),
    ]
    columns = ["class_name", "kind", "factor", "level", "baseline", "role", "points", "lower", "upper", "real"]
    ax = plot_effects(pd.DataFrame(rows, columns=columns), "train/recall")
    assert ticks(ax) == ["30 scANVI epochs instead of 15", "all query cells instead of 30"]
    points = [line for line in ax.lines if len(line.get_xdata()) == 1]
    assert [float(line.get_xdata()[0]) for line in points] == [-4, 3]
    assert [line.get_markerfacecolor() for line in points] == ["white", ROLE_COLOURS["data"]]
    bars = [tuple(segment[:, 0]) for one in ax.collections for segment in one.get_segments()]
    assert bars == [(-9, 1), (1, 5)]
    assert "training recall" in ax.get_xlabel() and "Mean of all classes" in ax.get_title()


def test_a_confusion_matrix_is_in_percent_of_the_true_class() -> None:
    counts = pd.DataFrame([[3, 1], [0, 8], [0, 0]], index=["B", "T", "none"], columns=["B", "T"])
    ax = plot_confusion(counts, "query")
    drawn = np.ma.filled(ax.images[0].get_array(), np.nan)
    assert np.array_equal(drawn, [[75, 25], [0, 100], [np.nan, np.nan]], equal_nan=True)
    written = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in ax.texts}
    assert written == {(0, 0): "75", (0, 1): "25", (1, 1): "100"}
    assert (ticks(ax), [label.get_text() for label in ax.get_xticklabels()]) == (["B", "T", "none"], ["B", "T"])


def test_query_size_is_a_line_through_the_means_of_each_level() -> None:
    trials = pd.DataFrame(
        {"cells": [30, 30, 400, 30], "scanvi.max_epochs": [5, 5, 5, 9], "train/macro_recall": [0.5, 0.7, 0.9, 1.0]}
    )
    ax = plot_query_size(trials, "train/macro_recall", "scanvi.max_epochs")
    lines = {line.get_label(): np.round(line.get_xydata(), 6).tolist() for line in ax.lines}
    assert lines == {"5": [[30, 60], [400, 90]], "9": [[30, 100]]}
    assert ax.get_ylabel() == "macro recall on training cells (%)"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["30", "400"]


def test_trust_is_stacked_up_to_all_cells_of_a_label() -> None:
    table = pd.DataFrame({"label": ["B", "T$_1$"], "high": [3, 0], "check": [1, 4], "none": [2, 0]})
    ax = plot_trust(table)
    assert ticks(ax) == ["B", r"T\$_1\$"]
    drawn = [[(bar.get_x(), bar.get_width()) for bar in bars] for bars in ax.containers]
    assert drawn == [[(0, 3), (0, 0)], [(3, 1), (0, 4)], [(4, 2), (4, 0)]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["high", "check", "none"]
