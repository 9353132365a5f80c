"""The report in a real browser: it draws, its switches work, and other people's words stay words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from study.attribution.attribute import attribute_study
from study.plan.factors import strata
from study.report.checked import render_check
from study.trials.tables import count_frame
from tests.scenes import Scene, described, labels_for, large, scene
from tests.system.browser import Visit, chromium, visit
from tests.system.conftest import Workplace

HOSTILE = (
    "<script>window.pwned = 1; alert(1)</script>",
    '"><img src=x onerror="window.pwned = 1; alert(1)">',
    "javascript:window.pwned=1",
    "🧬 </script></title><svg onload=window.pwned=1>",
    '<a href="https://evil.example">%{x} {{ 7 * 7 }}</a>',
    "x" * 300,
)
SIZES = {
    "query": {"levels": ["first", "second"]},
    "query_cells": {"levels": [6, "all"]},
    "scanvi.linear_classifier": {"levels": [True, False]},
    "scanvi.max_epochs": {"levels": [2, 4]},
}


@contextmanager
def opened(browser: Browser, address: str, width: int = 1440, scheme: str = "light") -> Iterator[Visit]:
    """Open a report, with what the tests ask of it."""
    with visit(browser, address, width, scheme) as here:
        here.page.add_script_tag(path=Path(__file__).with_name("page.js"))
        yield here


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


def shown(folder: Path, study: Scene, **changes: Any) -> str:
    """Write the page of a study, and return its address."""
    path = folder / "report.html"
    path.write_text(study.page(**changes).text, encoding="utf-8")
    return path.as_uri()


def drawn(here: Visit, but: set[str] = frozenset()) -> dict[str, Any]:
    """Return the charts of a page, all of them with something in them."""
    here.page.get_by_text("How often each labelled cell was drawn").click()
    here.page.wait_for_function("() => $('draws').data")
    found = here.ask("chartsOf()")
    full = {name for name, one in found.items() if one["traces"] and one["shapes"] and one["height"] > 80}
    assert set(found) - full == but
    return found


def test_every_switch_changes_its_charts_and_no_other(browser: Browser, tmp_path: Path) -> None:
    study = scene(factors=SIZES, replicates=3)
    with opened(browser, shown(tmp_path, study)) as here:
        page = here.page
        before = drawn(here, but={"flips"})
        assert set(before) == set(here.ask("Object.keys(charts)")) - {"map", "embedding"}
        follow = {"recall", "size", "effects", "interaction", "parallel"}

        def changes(name: str, value: str, expected: set[str]) -> None:
            nonlocal before
            if value.startswith("button "):
                page.locator(f"#{name}").get_by_role("button", name=value.removeprefix("button ")).click()
            else:
                page.locator(f"#{name}").select_option(value)
            after = here.ask("chartsOf()")
            assert {chart for chart in after if after[chart]["data"] != before[chart]["data"]} == expected, (
                name,
                value,
            )
            before = after

        changes("class", "3", follow)
        changes("outcome", "button Training precision", {*follow, "shares", "gains"})
        assert page.locator("#s-verdict [data-outcome]:visible").get_attribute("data-outcome") == "train/precision"
        changes("rows", "factor:2", {"recall"})
        changes("split", "none", {"recall"})
        changes("factor-a", "2", {"interaction"})
        changes("factor-b", "3", {"interaction"})
        changes("condition", "1", {"confusion"})
        changes("part", "train", {"confusion"})
        shares = here.ask("$('confusion').data[0].z")
        assert [round(sum(row)) for row in shares] == [100, 100, 100] and "recall" in page.inner_text("#confusion-text")
        changes("metric", "button Precision", {"confusion"})
        shares = here.ask("$('confusion').data[0].z")
        assert [round(sum(column)) for column in zip(*shares, strict=True)] == [100, 100, 100]
        assert "precision" in page.inner_text("#confusion-text")
        changes("which", "best", {"parallel"})
        rows = page.locator("#effect-table tbody tr").count()
        page.get_by_role("button", name="Show all").click()
        assert page.locator("#effect-table tbody tr").count() > rows
        here.assert_well()


def test_cells_are_drawn_by_trust_label_agreement_and_novelty(browser: Browser, tmp_path: Path) -> None:
    study = scene(factors=SIZES, replicates=2)
    trust = {query: labels_for(cells, list(study.results)) for query, cells in study.cells.items() if cells.n_query}
    with opened(browser, shown(tmp_path, study, trust=trust)) as here:
        cells = study.cells[here.ask("D.embedding[0].query")]

        def traces() -> dict[str, int]:
            return {
                one["name"]: one["n"]
                for one in here.ask("$('embedding').data.map(t => ({name: t.name, n: t.x.length}))")
            }

        assert traces() == {"reference": cells.n_reference, "high": cells.n_query - 2, "check": 1, "none": 1}
        here.page.locator("#coloured").select_option("label")
        assert set(traces()) == set(cells.classes)
        for name in ("agreement", "novelty"):
            here.page.locator("#coloured").select_option(name)
            assert len(here.ask("$('embedding').data[1].marker.color")) == cells.n_query
        before = here.ask("$('embedding').data[0].y")
        here.page.locator("#axes").select_option("2")
        assert here.ask("$('embedding').data[0].y") != before
        here.page.locator("#embedded").select_option("1")
        assert here.ask("D.embedding[1].query") in here.page.inner_text("#embedding-note")
        here.assert_well()


@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_of_a_check_shows_the_cells_and_runs_no_names(browser: Browser, tmp_path: Path, width: int) -> None:
    path = tmp_path / "check.html"
    path.write_text(render_check(HOSTILE[0], described(HOSTILE, HOSTILE)), encoding="utf-8")
    with opened(browser, path.as_uri(), width) as here:
        found = here.ask("chartsOf()")
        assert set(found) == {"embedding", "depth", "makeup", "genes"}
        assert all(one["traces"] and one["shapes"] for one in found.values())

        def names() -> list[str]:
            return here.ask("$('embedding').data.map(t => t.name)")

        shown = {"query": 2, "label": 2 * (len(HOSTILE) + 1), "counts": 2}
        for look, traces in shown.items():
            here.page.locator("#coloured").select_option(look)
            assert len(names()) == traces and here.ask("$('embedding').data.flatMap(t => t.x).length") == 18
        before = here.ask("$('embedding').data[1].y")
        here.page.locator("#embedded").select_option("1")
        assert here.ask("$('embedding').data[1].y") != before
        assert here.ask("faintTexts()") == [] and here.ask("document.documentElement.scrollWidth") <= width
        assert here.ask("window.pwned") is None
        here.assert_well()


def test_the_keyboard_reaches_and_works_every_control(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, shown(tmp_path, scene(factors=SIZES, replicates=2))) as here:
        wanted, reached = here.ask("controlsOf()"), []
        for _ in wanted:
            here.page.keyboard.press("Tab")
            at, outline = here.ask("focused()")
            assert outline >= 2
            reached.append(at)
        assert reached == wanted
        before = here.ask("chartsOf()")["recall"]["data"]
        here.page.focus("#class")
        here.page.keyboard.press("ArrowDown")
        here.page.keyboard.press("ArrowDown")
        assert here.ask("chartsOf()")["recall"]["data"] != before
        here.page.locator("#outcome button").nth(1).focus()
        here.page.keyboard.press("Enter")
        assert here.page.locator("#outcome [aria-pressed=true]").inner_text() == "Training recall"
        here.assert_well()


@pytest.mark.parametrize("width", [1440, 390])
def test_names_are_words_whatever_they_hold(browser: Browser, tmp_path: Path, width: int) -> None:
    factors = SIZES | {"query": {"levels": list(HOSTILE)}}
    study = scene(classes=HOSTILE, queries=HOSTILE, factors=factors, replicates=2)
    study = replace(study, config=study.config.model_copy(update={"name": HOSTILE[0]}))
    failed = next(iter(study.results))
    address = shown(
        tmp_path,
        study,
        checks=described(HOSTILE, HOSTILE),
        results={key: one for key, one in study.results.items() if key != failed},
        failures={failed: HOSTILE[1]},
        command=HOSTILE[3],
    )
    with opened(browser, address, width) as here:
        drawn(here, but={"flips"})
        assert here.page.title().startswith(HOSTILE[0]) and here.page.inner_text("h1") == HOSTILE[0]
        for at in range(len(HOSTILE) + 2):
            here.page.select_option("#class", str(at))
        names = here.ask("[...$('class').options].slice(2).map(one => one.textContent)")
        assert sorted(names) == sorted(name[:80] for name in HOSTILE)
        ticks = here.page.locator("#shares .ytick text").all_text_contents()
        assert any(tick.startswith("<script>window") for tick in ticks)
        # A hover shows whole names, and no name is read as a template.
        said = here.ask("hovers()")
        assert all(any(name in text for text in said) for name in HOSTILE)
        assert here.ask("templates()") == ["%{text}"]
        made = "img, iframe, object, embed, svg a, a:not([href^='#']):not([rel]), [onerror], [onload]"
        assert here.ask(f'document.querySelectorAll("{made}").length') == 0
        assert here.ask("window.pwned") is None
        assert here.ask("document.documentElement.scrollWidth") <= width
        here.assert_well()


def test_the_page_can_ask_for_nothing(browser: Browser, tmp_path: Path) -> None:
    made = "document.body.appendChild(Object.assign(document.createElement('{}'), {}))"
    ways = {
        "connect-src": "fetch(there).catch(() => 0)",
        "img-src": made.format("img", "{src: there}"),
        "script-src-elem": made.format("script", "{src: there}"),
        "frame-src": made.format("iframe", "{src: there}"),
        "form-action": made.format("form", "{action: there}") + ".submit()",
    }
    with opened(browser, shown(tmp_path, scene(replicates=2))) as here:
        for rule, way in ways.items():
            assert here.ask(f"refused(there => {way})") == rule


def test_sixty_classes_and_five_thousand_trials_are_drawn(browser: Browser, tmp_path: Path) -> None:
    study = large()
    classes = next(iter(study.cells.values())).classes
    every = ("(macro)", "(overall)", *classes)
    counts = count_frame(study.plan, study.results, ["heldout/recall"])
    one = attribute_study(counts[counts["class_name"] == "(macro)"], study.plan.factors, strata(study.plan.factors))
    first = one.attributions[0]
    found = tuple(replace(first, class_name=name, outcome=key) for key in study.config.outcomes for name in every)
    whole = replace(one, attributions=found)
    address = shown(tmp_path, study, attribution=whole, verdicts=[], checks=described(classes))
    assert (tmp_path / "report.html").stat().st_size < 20e6
    with opened(browser, address) as here:
        drawn(here, but={"flips"})
        here.page.set_viewport_size({"width": 390, "height": 800})
        here.page.wait_for_function("() => $('shares')._fullLayout.width < 390")
        assert here.ask("document.documentElement.scrollWidth") <= 390
        here.assert_well()


@pytest.mark.parametrize("look", ["light", "dark", "print"])
def test_every_text_is_legible(browser: Browser, tmp_path: Path, look: str) -> None:
    address = shown(tmp_path, scene(factors=SIZES, replicates=3))
    # Who reads in the dark prints on white paper all the same.
    with opened(browser, address, scheme="light" if look == "light" else "dark") as here:
        drawn(here, but={"flips"})
        if look == "print":
            here.page.emulate_media(media="print")
            here.page.wait_for_function("() => printing && $('shares')._fullLayout.width === 700")
            assert here.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
            assert not here.page.locator("nav").is_visible()
        assert here.ask("faintTexts()") == []
        if look == "print":
            assert len(here.page.pdf()) > 50_000
            here.page.emulate_media(media="screen")
            here.page.wait_for_function("() => !printing && $('shares')._fullLayout.width > 700")
        here.assert_well()


def test_the_report_of_a_real_study_shows_all_its_parts(browser: Browser, finished: Workplace) -> None:
    path = finished.folder / "studies" / "pbmc68k-tiny" / "report.html"
    with opened(browser, path.as_uri()) as here:
        found = drawn(here)
        # All queries of it have one size, no training had all of one, and none of its trials is missing.
        assert set(here.ask("Object.keys(charts)")) - set(found) == {"size", "map", "embedding"}
        for heading in ("Verdict", "Controls", "Schedule audit", "Flips", "Data", "Provenance"):
            assert here.page.get_by_role("heading", name=heading, exact=True).is_visible()
        trials = json.loads(here.ask("JSON.stringify(T.values['heldout/recall'][0])"))
        assert len(trials) == 16 and all(0 <= value <= 100 for value in trials)
        here.assert_well()
