"""MLflow's pages in a real browser: the numbers that people read there are those of metrics.json."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.tracking.champions import Champions
from flows.tracking.publish import Published
from flows.tracking.record import PipelineRecord
from flows.tracking.tracker import Tracker
from tests.servers import mlflow_server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed; Debian: apt-get install chromium")
PATIENCE = 30_000  # milliseconds
SHOWN = ("accuracy", "macro_f1", "agreement_with_teacher", "megabytes", "parameters")
SPEEDS = {"latency_p50_ms": 2.0, "throughput_per_s": 500.0}  # as conftest.benchmark has them
NAMES = {
    "teacher": "teacher",
    "student without distillation": "student_without_distillation",
    "student": "student",
    "LoRA student": "lora",
}


@pytest.fixture(scope="module")
def published(
    tmp_path_factory: pytest.TempPathFactory, finished_run: PipelineRecord
) -> Iterator[tuple[Published, Champions]]:
    """A run on a server of its own; its candidate has been turned down."""
    root = tmp_path_factory.mktemp("pages")
    with mlflow_server(root / "mlflow") as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.address)
        tracker = Tracker(root, "demo")
        done = tracker.publish(finished_run)
        champions = Champions(tracker, "stillhouse")
        decision = {
            "promoted": False,
            "outcome": "worse",
            "reasons": ["It is 3.0 points worse."],
            "time": "2026-11-23T09",
        }
        champions.tell(champions.versions()[0], decision)
        yield done, champions


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own rule for root
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """A page that is 2400 pixels wide, so that the table draws all columns; leaves a screenshot, as ``page.png``."""
    page = browser.new_page(viewport={"width": 2400, "height": 1200})
    page.set_default_timeout(PATIENCE)
    yield page
    page.screenshot(path=tmp_path / "page.png")
    page.close()


@pytest.fixture
def expected(finished_run: PipelineRecord) -> Any:
    """metrics.json, as evaluation wrote it."""
    return json.loads(finished_run.files["metrics.json"].read_text(encoding="utf-8"))["models"]


def test_the_runs_table_shows_the_models_side_by_side(page: Any, published: Any, expected: Any) -> None:
    page.goto(published[0].table)
    check_table(page, expected)


def test_the_link_of_a_run_opens_the_table_of_its_models(page: Any, published: Any, expected: Any) -> None:
    done = published[0]
    page.goto(done.url)
    page.get_by_text("Show more").click()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="The models in the runs table").click()
    try:
        check_table(opened.value, expected)
    finally:
        opened.value.close()


def check_table(page: Any, expected: Any) -> None:
    """Rows in the order of the models, and in each the numbers of metrics.json under the columns' names."""
    page.locator("[role=row] a", has_text="LoRA student").first.wait_for(timeout=PATIENCE)
    page.locator("[role=row][row-index] [col-id='metrics.`accuracy`']").first.wait_for(timeout=PATIENCE)
    found = {row["name"]: row for row in page.evaluate(_READ_TABLE)}
    assert list(found) == list(NAMES)
    for title, name in NAMES.items():
        for metric in SHOWN:
            assert float(found[title][f"metrics.`{metric}`"]) == pytest.approx(expected[name][metric]), (name, metric)
        for metric, speed in SPEEDS.items():
            assert float(found[title][f"metrics.`{metric}`"]) == speed


# Cells know their column; rows are drawn in two halves, the names' and the numbers', which share the row's index.
_READ_TABLE = """() => {
    const rows = new Map();
    for (const cell of document.querySelectorAll('[role=row][row-index] [col-id]')) {
        const index = Number(cell.closest('[row-index]').getAttribute('row-index'));
        if (!rows.has(index)) rows.set(index, {});
        const link = cell.querySelector('a[href*="/runs/"]');
        if (link) rows.get(index).name = link.innerText.trim();
        rows.get(index)[cell.getAttribute('col-id')] = cell.innerText.trim();
    }
    return [...rows.entries()].sort((a, b) => a[0] - b[0]).map(entry => entry[1]).filter(row => row.name);
}"""


def test_the_compare_page_shows_the_models_side_by_side(page: Any, published: Any, expected: Any) -> None:
    page.goto(published[0].compared)
    page.get_by_text("Run details").wait_for()
    page.get_by_text("Run Name:").scroll_into_view_if_needed()
    assert read_row(page, "Run Name:")[: len(NAMES)] == list(NAMES)
    page.get_by_text("accuracy_ci_low").last.evaluate(_MARK_GRID)
    for metric in sorted([*SHOWN, *SPEEDS]):  # the order in which the page shows them
        shown = [float(cell) for cell in read_row(page, metric)[: len(NAMES)]]
        wanted = [{**SPEEDS, **expected[name]}[metric] for name in NAMES.values()]
        assert shown == pytest.approx(wanted, rel=2e-3), metric  # the page rounds to some four digits


def read_row(page: Any, name: str) -> list[str]:
    """What stands beside a row's name, its cells first. The grid of metrics draws only what is in sight: we scroll."""
    for _ in range(30):
        found: list[str] = page.evaluate(_READ_ROW, name)
        if len(found) >= len(NAMES):
            return found
        for by in (60, 1):  # the names follow a scroll late: with the next one
            page.evaluate(_SCROLL_GRID, by)
            page.wait_for_timeout(100)
    raise AssertionError(f"the compare page has no row {name}")


# Two grids beside each other: the names, and the cells, which are the one that can be scrolled.
_MARK_GRID = """label => {
    const scrolls = node => ['auto', 'scroll'].includes(getComputedStyle(node).overflowY);
    let both = label;
    while (![...both.querySelectorAll('.ReactVirtualized__Grid')].some(scrolls)) both = both.parentElement;
    both.id = 'grid-of-metrics';
    [...both.querySelectorAll('.ReactVirtualized__Grid')].find(scrolls).id = 'cells-of-metrics';
    both.scrollIntoView({block: 'center'});
}"""
_SCROLL_GRID = "by => { document.getElementById('cells-of-metrics').scrollTop += by; }"
# Rows are no elements: cells of one row are those at the same height. The charts above have such names as well.
_READ_ROW = """name => {
    const root = document.getElementById('grid-of-metrics') || document.body;
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), cells = [];
    while (walker.nextNode()) {
        const text = walker.currentNode.textContent.trim(), range = document.createRange();
        range.selectNodeContents(walker.currentNode);
        if (text) cells.push({text, node: walker.currentNode, box: range.getBoundingClientRect()});
    }
    const seen = ({node, box}) => {
        const top = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
        return top !== null && top.contains(node);
    };
    const label = cells.filter(cell => cell.text === name && seen(cell)).at(-1);
    return label ? cells
        .filter(cell => Math.abs(cell.box.top - label.box.top) < 6 && cell.box.left > label.box.left)
        .sort((a, b) => a.box.left - b.box.left).map(cell => cell.text) : [];
}"""


def test_the_registered_model_tells_its_versions_story(
    page: Any, published: Any, expected: Any, finished_run: PipelineRecord
) -> None:
    done = published[0]
    web = done.url.split("/#/")[0]
    page.goto(f"{web}/#/models/stillhouse/versions/{done.registered_version}")
    page.get_by_text("Not promoted").first.wait_for()
    text = page.inner_text("body")
    assert f"LoRA student: {expected['lora']['accuracy']:.1%} accuracy" in text
    for told in (finished_run.data_hash, finished_run.git_commit, "teacher 1.0.0+abc1234", "It is 3.0 points worse."):
        assert told in text
    link = page.get_by_role("link", name=finished_run.name).get_attribute("href")
    assert link.endswith(f"#/experiments/{done.experiment_id}/runs/{done.parent_run_id}")
    page.goto(f"{web}/#/models/stillhouse")
    page.get_by_text("not promoted: worse").first.wait_for()
