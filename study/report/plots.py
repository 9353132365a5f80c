"""Pictures for notebooks: tidy tables in, matplotlib axes out. Whoever calls decides when they are shown.

Colours are those of the report and can be told apart by colour-blind people; marks differ in shape as well.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from study.trials import MACRO
from study.trust import TRUST
from study.verdict import GROUPS, LABELS, PLACES, SUMMARIES, class_label, outcome_label, phrase, short, word

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6e7781")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#6e7781"
GROUP_COLOURS = dict(zip(GROUPS, ("#0072b2", "#e69f00", "#009e73", "#cc79a7", GREY), strict=True))
ROLE_COLOURS = {role: GROUP_COLOURS[role] for role in ("data", "parameter")}
TRUST_COLOURS = dict(zip(TRUST, ("#0072b2", "#e69f00", GREY), strict=True))
MOST_NUMBERS = 20  # classes of a confusion matrix in which numbers can still be read


def plot_shares(found: pd.DataFrame, tables: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how much of the differences between runs each group explains, in percent, with its interval.

    Parameters
    ----------
    found
        Shares of one outcome: `class_name`, `group`, `share`, `lower`, `upper`.
    tables
        One row per class and summary, decomposed or not: `class_name`.
    ax
        Where to draw; new axes if absent.
    """
    every = list(tables["class_name"])
    names = sorted(dict.fromkeys(found["class_name"]), key=lambda name: (name not in SUMMARIES, every.index(name)))
    ax = _axes(ax, 7, 1.6 + 0.5 * len(names))
    groups = [group for group in GROUPS if group in set(found["group"])]
    for at, group in enumerate(groups):
        rows = found[found["group"] == group].set_index("class_name")
        y = np.array([names.index(name) + _offset(at, len(groups)) for name in rows.index])
        _interval(ax, 100 * rows[["share", "lower", "upper"]].to_numpy(), y, GROUP_COLOURS[group], MARKERS[at])
        ax.plot([], [], marker=MARKERS[at], color=GROUP_COLOURS[group], label=GROUPS[group])
    _rows(ax, [class_label(name) for name in names])
    ax.set_xlim(-2, 102)
    left = len(every) - len(names)
    ax.set_xlabel(
        "share of the differences between runs (%), with 95% interval"
        + (f"\n{left} of {len(every)} rows are not decomposed and not shown" if left else "")
    )
    return _legend(ax, "explained by") if groups else ax


def plot_recall(table: pd.DataFrame, part: str, by: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the recall of every class: a pale dot per trial, and the mean, in percent.

    Parameters
    ----------
    table
        One row per trial, class and part: `part`, `class_name`, `recall`, and the column `by`.
    part
        ``heldout``, ``train`` or ``query``.
    by
        A factor; its levels are drawn apart.
    ax
        Where to draw; new axes if absent.
    """
    mine = table[table["part"] == part]
    names = list(dict.fromkeys(mine["class_name"]))
    levels = _levels(mine, by)
    ax = _axes(ax, 7, 1.2 + (0.3 + 0.15 * len(levels)) * len(names))
    for at, (level, rows) in enumerate(levels.items()):
        colour, marker = _mark(at)
        where = rows["class_name"].map(names.index) + _offset(at, len(levels))
        ax.scatter(100 * rows["recall"], where, s=14, color=colour, marker=marker, alpha=0.3, linewidths=0)
        means = 100 * rows.groupby("class_name", sort=False)["recall"].mean()
        y = np.array([names.index(name) for name in means.index]) + _offset(at, len(levels))
        ax.plot(means, y, linestyle="", marker=marker, color=colour, markeredgecolor="white", markersize=8, label=level)
    _rows(ax, [class_label(name) for name in names])
    ax.set_xlabel(f"recall on {PLACES[part]} (%)")
    return _legend(ax, by) if by else ax


def plot_effects(found: pd.DataFrame, outcome: str, class_name: str = MACRO, ax: Axes | None = None) -> Axes:
    """Draw what each level does instead of its baseline, on average over the other factors, largest first.

    Parameters
    ----------
    found
        Effects of one outcome: `class_name`, `kind`, `factor`, `level`, `baseline`, `role`, `points`, `lower`, `upper`
        and `real`.
    outcome
        Which, for the label.
    class_name
        A class, or a summary of all.
    ax
        Where to draw; new axes if absent.
    """
    mine = found[(found["class_name"] == class_name) & (found["kind"] == "marginal")]
    mine = mine.sort_values("points", key=lambda points: -points.abs(), kind="stable")
    ax = _axes(ax, 7, 1.4 + 0.4 * len(mine))
    rows = mine.to_dict("records")
    for y, row in enumerate(rows):
        values = np.array([[row["points"], row["lower"], row["upper"]]])
        _interval(ax, values, np.array([y]), ROLE_COLOURS[row["role"]], MARKERS[0], hollow=not row["real"])
    for role in dict.fromkeys(mine["role"]):
        ax.plot([], [], marker=MARKERS[0], color=ROLE_COLOURS[role], linestyle="", label=GROUPS[role])
    if not mine["real"].all():
        ax.plot([], [], marker=MARKERS[0], color=GREY, linestyle="", markerfacecolor="white", label="not certain")
    ax.axvline(0, color=GREY, linewidth=1, zorder=0)
    _rows(ax, [phrase(row["factor"], row["level"], row["baseline"]) for row in rows])
    ax.set_xlabel(f"change of {_outcome(outcome)} (points), with 95% interval")
    ax.set_title(_plain(class_label(class_name)), fontsize="medium")
    return _legend(ax, None) if len(mine) else ax


def plot_confusion(counts: pd.DataFrame, part: str, ax: Axes | None = None) -> Axes:
    """Draw cells by true and called class, in percent of the true class; numbers where there is room.

    Parameters
    ----------
    counts
        Cells, rows = true, columns = called.
    part
        ``heldout``, ``train`` or ``query``.
    ax
        Where to draw; new axes if absent.
    """
    cells = counts.to_numpy(float)
    total = cells.sum(axis=1, keepdims=True)
    percent = 100 * np.divide(cells, total, out=np.full_like(cells, np.nan), where=total > 0)
    ax = _axes(ax, 2.5 + 0.5 * counts.shape[1], 2 + 0.42 * len(counts))
    image = ax.imshow(percent, vmin=0, vmax=100, cmap="Blues", aspect="auto")
    ax.set_xticks(range(counts.shape[1]), [_plain(name) for name in counts.columns], rotation=90)
    ax.set_yticks(range(len(counts)), [_plain(name) for name in counts.index])
    ax.set_xlabel("called")
    ax.set_ylabel("true")
    ax.set_title(PLACES[part], fontsize="medium")
    if max(counts.shape) <= MOST_NUMBERS:
        for row, column in zip(*np.nonzero(percent >= 0.5), strict=True):
            shade = "white" if percent[row, column] > 60 else "black"
            text = f"{percent[row, column]:.0f}"
            ax.text(column, row, text, ha="center", va="center", fontsize="small", color=shade)
    ax.figure.colorbar(image, ax=ax, label="% of the true class", shrink=0.7)
    return ax


def plot_query_size(trials: pd.DataFrame, metric: str, by: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw a metric against the number of query cells: a pale dot per trial, and a line through the means.

    Parameters
    ----------
    trials
        One row per trial: `cells`, the column of the metric, and the column `by`.
    metric
        A metric between 0 and 1, such as ``heldout/macro_recall``.
    by
        A factor; a line for each of its levels.
    ax
        Where to draw; new axes if absent.
    """
    ax = _axes(ax, 5.5, 3.6)
    for at, (level, rows) in enumerate(_levels(trials, by).items()):
        colour, marker = _mark(at)
        ax.scatter(rows["cells"], 100 * rows[metric], s=14, color=colour, marker=marker, alpha=0.3, linewidths=0)
        means = 100 * rows.groupby("cells")[metric].mean()
        ax.plot(means.index, means, marker=marker, color=colour, markeredgecolor="white", markersize=8, label=level)
    ax.set_xscale("log")
    sizes = sorted(set(trials["cells"]))
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.minorticks_off()
    ax.set_xlabel("query cells")
    part, _, name = metric.partition("/")
    ax.set_ylabel(f"{name.replace('_', ' ')} on {PLACES.get(part, part)} (%)")
    return _legend(ax, by) if by else ax


def plot_trust(by_label: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how many cells of a query get each label, and how far these are to be trusted.

    Parameters
    ----------
    by_label
        One row per label: `label`, and the cells of each level of trust, `high`, `check` and `none`.
    ax
        Where to draw; new axes if absent.
    """
    ax = _axes(ax, 7, 1.2 + 0.4 * len(by_label))
    y, left = np.arange(len(by_label)), np.zeros(len(by_label))
    for level, colour in TRUST_COLOURS.items():
        cells = by_label[level].to_numpy()
        ax.barh(y, cells, left=left, color=colour, height=0.7, label=level)
        left += cells
    _rows(ax, list(by_label["label"]))
    ax.set_xlabel("query cells")
    return _legend(ax, "trust")


def _axes(ax: Axes | None, width: float, height: float) -> Axes:
    return plt.figure(figsize=(width, height), layout="constrained").subplots() if ax is None else ax


def _levels(table: pd.DataFrame, by: str | None) -> dict[str, pd.DataFrame]:
    """Rows of each level of a factor in words, in order of appearance; all of them where there is none."""
    if by is None:
        return {"": table}
    return {_plain(word(level)): table[table[by] == level] for level in table[by].drop_duplicates().tolist()}


def _mark(at: int) -> tuple[str, str]:
    """Colour and shape of the series at a place; their numbers differ, so that pairs come again late."""
    return COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]


def _offset(at: int, of: int) -> float:
    """Where one of some series lies within a row, so that none covers another."""
    return 0.7 * ((at + 0.5) / of - 0.5)


def _interval(ax: Axes, values: np.ndarray, y: np.ndarray, colour: str, marker: str, hollow: bool = False) -> None:
    """Draw estimates with their intervals: columns estimate, lower end, upper end."""
    middle, low, high = values.T
    ax.hlines(y, low, high, color=colour, linewidth=1.8)
    face = "white" if hollow else colour
    ax.plot(middle, y, linestyle="", marker=marker, color=colour, markerfacecolor=face, markersize=6)


def _rows(ax: Axes, names: list[str]) -> None:
    """Label rows, the first one on top."""
    ax.set_yticks(range(len(names)), [_plain(name) for name in names])
    ax.set_ylim(max(len(names), 1) - 0.5, -0.5)
    ax.grid(axis="x", color="#dde1e5", linewidth=0.8)
    ax.set_axisbelow(True)


def _legend(ax: Axes, title: str | None) -> Axes:
    """Put the legend beside the axes, where it covers nothing."""
    shown = short(title) if title else None
    ax.legend(title=shown, loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize="small")
    return ax


def _outcome(outcome: str) -> str:
    label = outcome_label(outcome)[0]
    return label[0].lower() + label[1:] if outcome in LABELS else label


def _plain(text: object) -> str:
    """Other people's words: matplotlib would read a $ as mathematics."""
    return str(text).replace("$", r"\$")
