"""MLflow's pages in a real browser, as `scanvi-study ui` serves them: what docs/mlflow.md tells its readers to do."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import mlflow
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.system.browser import Visit, chromium, visit
from tests.system.conftest import SMALL, Workplace, kill_group

PATIENCE = 60_000  # milliseconds; a React application on a busy machine
FACTORS = ["query", "scanvi.max_epochs", "scanvi.n_samples_per_label"]
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def served(finished: Workplace) -> Iterator[tuple[str, Path]]:
    """`scanvi-study ui` on the finished study, where it listens and what it prints; told to end, it leaves nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "study", "ui", "--open", *SMALL, f"tracking.port={port}"]
    said, opens = finished.folder / "ui.log", finished.folder / "opens"
    opens.write_text('#!/bin/sh\necho "$1" > "$0.ed"\n')  # for a browser: the address is kept
    opens.chmod(0o755)
    environment = {**finished.environment, "BROWSER": str(opens)}
    quiet = {"stdout": subprocess.DEVNULL, "text": True, "start_new_session": True}
    with (
        said.open("w") as log,
        subprocess.Popen(command, cwd=finished.folder, env=environment, stderr=log, **quiet) as server,
    ):
        try:
            where = f"http://127.0.0.1:{port}"
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"{where}/health", timeout=5).read()
                    break
                except OSError:
                    time.sleep(0.5)
            yield where, said
        finally:
            server.terminate()
            try:
                server.wait(60)
            finally:
                kill_group(server)  # a server that does not end shall fail the test, not hold it up
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"{where}/health", timeout=5)


@pytest.fixture(scope="module")
def address(served: tuple[str, Path]) -> str:
    return served[0]


@pytest.fixture(scope="module")
def printed(served: tuple[str, Path]) -> str:
    return served[1].read_text()


@pytest.fixture(scope="module")
def runs(finished: Workplace) -> dict[str, str]:
    """The experiment, the run of the study and a run of a trial, by their numbers."""
    client = mlflow.MlflowClient(f"sqlite:///{finished.folder / 'mlruns' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pbmc68k-tiny")
    assert experiment is not None
    found = {"experiment": experiment.experiment_id}
    for kind in ("study", "trial"):
        found[kind] = client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'")[0].info.run_id
    return found


@pytest.fixture
def table(browser: Browser, address: str, runs: dict[str, str]) -> Iterator[Visit]:
    """The table of trials, best first: sorted by a metric, so that MLflow does not fold them into the study's run."""
    trials, order = quote("tags.kind = 'trial'"), quote("metrics.`heldout/macro_recall`")
    words = f"searchFilter={trials}&orderByKey={order}&orderByAsc=false"
    where = f"{address}/#/experiments/{runs['experiment']}/runs?workflowType=machine_learning&{words}"
    with visit(browser, where, width=2000) as here:
        here.page.set_default_timeout(PATIENCE)
        here.page.get_by_role("button", name="Close").click()  # an assistant, open at the first visit
        expect(count(here.page)).to_have_text("16 matching runs")
        yield here
        assert {part.split("/")[2] for part in here.asked if part.startswith("http")} == {address.split("/")[2]}


def count(page: Page) -> Locator:
    return page.get_by_text("matching runs")


def test_trials_show_their_factors_and_recalls_and_can_be_filtered(table: Visit) -> None:
    page = table.page
    recalls = ["heldout/recall/Dendritic cell", "heldout/recall/B cell"]
    page.get_by_role("button", name="Columns", exact=True).click()
    for name in (*recalls, *FACTORS):
        page.get_by_placeholder("Search columns").fill(name)
        found = page.get_by_test_id("column-selector-tree").locator("[class*=tree-title]")
        found.filter(has_text=re.compile(f"^{re.escape(name)}$")).click()
    page.keyboard.press("Escape")

    def column(name: str) -> list[str]:
        cells = page.locator(f".ag-center-cols-container .ag-cell[col-id='{name}']")
        expect(cells).to_have_count(16)
        return cells.all_inner_texts()

    assert [set(column(f"params.`{name}`")) for name in FACTORS] == [{"asis", "shallow"}, {"1", "3"}, {"5", "all"}]
    for name in recalls:
        assert all(0 <= float(cell) <= 1 for cell in column(f"metrics.`{name}`"))
    words = page.get_by_test_id("runs-search-autocomplete").locator("input")
    for query, expected in (
        ("params.\"scanvi.max_epochs\" = '3'", 8),
        ("params.`scanvi.n_samples_per_label` = 'all' and params.query = 'asis'", 4),
        ("tags.kind = 'trial' and tags.replicate = '1'", 8),
        ("params.\"scvi.norm\" = 'layer'", 0),
        ("params.\"scvi.norm\" = 'batch'", 16),
    ):
        words.fill(query)
        words.press("Enter")
        expect(count(page)).to_have_text(re.compile(rf"^{expected} matching runs?$"))


def test_trials_are_grouped_by_a_factor(table: Visit) -> None:
    page = table.page
    page.get_by_role("button", name="Group by").click()
    page.locator("[role=menu] input").fill("n_samples")
    page.locator("[role=menu] [role^=menuitem]").filter(has_text="scanvi.n_samples_per_label").click()
    for level in ("5", "all"):
        expect(page.get_by_text(f"Group: {level}", exact=True)).to_be_visible()


def test_trials_are_compared_in_parallel_coordinates_over_the_factors(table: Visit) -> None:
    page = table.page
    page.locator(".ag-header input[type=checkbox]").first.check(force=True)
    page.get_by_test_id("runs-compare-button").click()
    expect(page.get_by_text("Comparing 16 Runs from 1 Experiment")).to_be_visible()
    # Without a click these are the factors, and nothing else.
    expect(page.locator(".parcoords .axis-title")).to_have_text([*FACTORS, re.compile("heldout/")])


def test_the_link_that_ui_prints_shows_factors_and_recalls_of_the_trials(
    browser: Browser, printed: str, finished: Workplace
) -> None:
    address = next(
        line.partition(": ")[2] for line in printed.splitlines() if line.startswith("Trials of pbmc68k-tiny")
    )
    report = next(line.partition(": ")[2] for line in printed.splitlines() if line.startswith("Report: "))
    assert urllib.request.urlopen(report).read(15) == b"<!doctype html>"
    assert (finished.folder / "opens.ed").read_text().strip() == address
    with visit(browser, address, width=2000) as here:
        here.page.set_default_timeout(PATIENCE)
        expect(count(here.page)).to_have_text("16 matching runs")
        cards = here.page.get_by_test_id("experiment-view-compare-runs-card")
        for name in ("query", "scanvi.max_epochs", "heldout/macro_recall"):
            expect(cards.nth(0)).to_contain_text(name)
        # A factor of numbers and "all" would hide half of the trials.
        expect(cards.nth(0)).not_to_contain_text("scanvi.n_samples_per_label")
        expect(cards.nth(1)).to_contain_text("heldout/recall/Dendritic cell")


def test_curves_go_by_epoch(table: Visit, address: str, runs: dict[str, str]) -> None:
    page = table.page
    page.goto(f"{address}/#/experiments/{runs['experiment']}/runs/{runs['trial']}/model-metrics")
    chart = page.get_by_test_id("experiment-view-compare-runs-card").filter(has_text="elbo_train").first
    expect(chart.locator(".scatterlayer path.js-line").first).to_be_attached()
    expect(chart).to_contain_text("Step")


def test_matrices_and_the_report_open_among_the_artifacts(table: Visit, address: str, runs: dict[str, str]) -> None:
    page = table.page
    run = f"{address}/#/experiments/{runs['experiment']}/runs"
    page.goto(f"{run}/{runs['trial']}/artifacts/confusion.html")
    expect(page.frame_locator("iframe").get_by_text("Held-out cells: recall")).to_be_visible()
    page.goto(f"{run}/{runs['study']}/artifacts/report.html")
    report = page.frame_locator("iframe")
    expect(report.get_by_role("heading", name="Verdict")).to_be_visible()
    expect(report.locator("#shares .barlayer path").first).to_be_attached()
    report.get_by_role("button", name="Precision", exact=True).click()
    expect(report.locator("#confusion-text")).to_contain_text("The diagonal is precision")


def test_pages_of_other_addresses_are_still_refused(address: str) -> None:
    body = urllib.request.Request(address, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(body)
    assert refused.value.code == 403
