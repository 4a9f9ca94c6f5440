"""The report: nothing of the data is alive in it, it stands alone, everyone can read it, and gaps are said."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from flows.repo.workspace import Workspace
from flows.reporting.evidence import Evidence, Origin
from flows.reporting.page import render
from tests.flows.reporting.conftest import HOSTILE, TEXTS

Gather = Callable[..., Evidence]
EMPTY = ("meta", "img", "br", "link", "hr")


class Seen(HTMLParser):
    """What a browser would find: the elements with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.text, self.open = "", [""]
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag  # nothing of the data opens or closes an element

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(evidence: Gather) -> str:
    return render(evidence(), "git checkout c0ffee")


def test_texts_and_names_of_the_data_stand_as_they_are_and_nothing_of_them_is_alive(page: str) -> None:
    seen = Seen(page)
    assert seen.open == [""]
    assert {"script", "b", "i"} & {tag for tag, _ in seen.elements} <= {"b"}
    assert not [name for _, attributes in seen.elements for name in attributes if name.startswith("on")]
    for text in (HOSTILE, TEXTS[1], TEXTS[4], "推文<i>", "好|<b>", "3 rows repeat <others>", "a <CPU>"):
        assert text in seen.text
    assert "long long…" in re.sub(r"(long )+long…", "long long…", seen.text)  # long texts are cut


def test_in_a_browser_no_script_of_the_data_runs(page: str, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no browser")
    file = tmp_path / "report.html"
    canary = "<script>document.title='scripts run'</script>"
    for name, text in {"page": page, "canary": page.replace("<main>", f"<main>{canary}")}.items():
        file.write_text(text, encoding="utf-8")
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/{name}"]
        done = subprocess.run([*command, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=60)
        assert "<title>stillhouse-sentiment, version 3" in done.stdout  # not even one that got in would


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    seen = Seen(page)
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in seen.all("img"))
    assert not seen.all("link") + seen.all("script") + seen.all("iframe")
    assert "url(" not in page
    assert "@import" not in page
    links = [link["href"] for link in seen.all("a") if not link["href"].startswith("#")]
    assert sorted(set(links)) == ["gate/report.html", "http://127.0.0.1:5000/#/experiments/1/runs/0123456789"]
    targets = {attributes.get("id") for _, attributes in seen.elements}
    assert {link["href"][1:] for link in seen.all("a") if link["href"].startswith("#")} <= targets


def test_every_image_says_in_words_and_numbers_what_it_shows(page: str) -> None:
    images = Seen(page).all("img")
    assert len(images) == 2 + 3 + 1 + 4 + 4 + 1  # costs, places, gains, confusion and reliability by model, training
    for image in images:
        assert image["role"] == "img"
        assert re.search(r"\d", image["alt"])
    told = " ".join(image["alt"] for image in images)
    assert "On the front: LoRA student (84.0% at 20 MB)" in told
    assert "distillation, all rows +2.0 points (+1.0 to +3.0)" in told
    assert "teacher 80.0% (78.0 to 82.0)" in told
    assert "the most frequent mistake takes negative for 好|<b> (1 of 3 rows)" in told.replace("&lt;", "<")
    assert "loss from 1.000 at step 10 to 0.333 at step 30; accuracy on the validation rows 90.0%" in told


def test_the_figures_of_the_run_are_there(page: str) -> None:
    text = " ".join(Seen(page).text.split())
    for told in (
        "They differ on 4 of 6 test rows (66.7%): on 3 only the teacher is right, on 1 only the LoRA student is right.",
        "Promoted: version 3 is the champion.",
        "The data passed with warnings.",
        "c0ffee, kept as refs/stillhouse/0123456789",
        "In this run: restored: teacher.",
        "1.5 min",
        "git checkout c0ffee",
        "hash-teacher",
        "torch 2.13.0",
    ):
        assert told in text


def test_what_is_missing_leaves_a_sentence(workspace: Workspace, evidence: Gather) -> None:
    root = workspace.root
    for name in ("artifacts/evaluate/predictions", "artifacts/evaluate/plots", "artifacts/validate"):
        shutil.rmtree(root / name)
    for name in ("reports/benchmark.json", "reports/decision.json", "artifacts/teacher/history.jsonl", "runtime.json"):
        (root / name).unlink()
    text = " ".join(Seen(render(evidence(Origin()), "")).text.split())
    for told in (
        "The speeds of these models were not measured.",
        "there is no figure of quality against latency",
        "there are no confusion matrices",
        "The calibration curves aren't there.",
        "disagreements can't be shown",
        "No training histories are there.",
        "The gate has not decided on these results",
        "The data gate's verdicts aren't there.",
        "not published",
        "not registered",
    ):
        assert told in text


def test_a_decision_about_other_results_is_not_shown(workspace: Workspace, evidence: Gather) -> None:
    lock = workspace.root / "dvc.lock"
    lock.write_text(lock.read_text(encoding="utf-8").replace('"size": 7', '"size": 8'), encoding="utf-8")
    assert evidence().decision is None


def test_an_address_that_is_none_of_the_webs_is_no_link(evidence: Gather) -> None:
    page = render(evidence(Origin("0123456789", "javascript:alert(1)")), "")
    assert "javascript:" not in page
