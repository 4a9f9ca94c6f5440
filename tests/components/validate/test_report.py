"""The gate report: escaped, offline, and writable from gate.json alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.validate.report import render, write_report

SCRIPT = "<script>alert('差评')</script>"


@pytest.fixture
def verdicts() -> dict[str, Any]:
    checks = [{"split": "test", "what": "rows", "passed": False, "failing": 2, "of": 1200, "observed": 2 / 1200}]
    example = {
        "what": "rows", "split": "test", "file": "data/<test>.csv", "row": 7, "text": SCRIPT, "label": "<b>",
        "document": "d", "tokens": 9, "like": {"file": "data/train.csv", "row": 3},
    }  # fmt: skip
    kept = {"observed": 0.0, "bound": {"max_share": 0.0}, "checks": [], "findings": [], "examples": []}
    return {
        "passed": False,
        "expectations": 3,
        "labels": ["<b>", "好"],
        "target": "label",
        "rules": [
            {"rule": "blank_text", "severity": "error", "passed": True, **kept},
            {"rule": "truncated", "severity": "off", "passed": None, **kept},
            kept | {"rule": "leakage", "severity": "error", "passed": False, "checks": checks, "examples": [example]}
            | {"findings": [{"what": "rows", "says": f"2 rows like {SCRIPT}"}]},
        ],
        "summary": {
            "rows": {"train": 10_000, "test": 1200, "unlabelled": 5},
            "used": {"train": 10_000, "test": 1198, "unlabelled": 4},
            "set_aside": {"train": 0, "test": 0, "unlabelled": 1},
            "classes": {"train": {SCRIPT: 4000, "好": 6000}, "unlabelled": {"": 5}},
            "groups": {"train": {"all": 10_000}},
            "tokens": {
                "width": 8, "bins": {"train": {"0": 9000, "19": 1000}}, "median": {"train": 7}, "p95": {"train": 90},
                "max": {"train": 160},
            },
            "files": {"train": "data/train.csv"}, "max_length": 128, "made": {"test": 0.2}, "seed": 13,
            "by_document": True,
        },
    }  # fmt: skip


def test_texts_of_the_data_are_escaped(verdicts: dict[str, Any]) -> None:
    page = render(verdicts)
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#x27;差评&#x27;)&lt;/script&gt;" in page
    assert "data/&lt;test&gt;.csv" in page
    assert "<b>" not in page.replace("<b>10,000</b>", "").replace("<b>1,200</b>", "").replace("<b>5</b>", "")


def test_the_page_needs_no_network(verdicts: dict[str, Any]) -> None:
    page = render(verdicts, docs=True)
    assert not re.search(r"https?://|@import|url\(|<link|<img", page)
    assert page.count("href=") == 1


def test_the_page_says_what_happened(verdicts: dict[str, Any]) -> None:
    page = render(verdicts)
    assert "The data gate stopped the run" in page
    assert "data/train.csv, row 3" in page
    assert "test split off the training rows with seed 13" in page
    assert "1 rows of the pool are set aside" in page
    assert "2 left out" in page
    assert "cut at 128" in page


def test_the_report_can_be_written_from_its_json_without_heavy_imports(
    verdicts: dict[str, Any], tmp_path: Path
) -> None:
    write_report(verdicts, tmp_path / "one")
    code = (
        "import json, sys; from pathlib import Path; from components.validate.report import write_report; "
        f"write_report(json.loads(Path({str(tmp_path / 'one/gate.json')!r}).read_text('utf-8')), "
        f"Path({str(tmp_path / 'two')!r})); "
        "assert not {'torch', 'great_expectations', 'duckdb', 'pandas', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)
    for name in ("gate.json", "report.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
