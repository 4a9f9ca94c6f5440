"""The log of a model in use against its training: each outcome, which rows count, and what is started."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from flows.drift import report, training
from flows.drift.monitor import moment
from tests.flows.drift.conftest import LABELS, NOW, OTHERS, Project, texts, write_log


def test_texts_like_the_trainings_are_no_drift_and_others_are(project: Project) -> None:
    write_log(project.root, texts(300, seed=5))
    steady = project.monitor()
    assert (steady["outcome"], steady["rows"], len(steady["tests"])) == ("no drift", 300, 6)
    assert "look like its training" in report.headline(steady)
    write_log(project.root, texts(300, seed=6, words=OTHERS, most=40), label="positive", score=0.6)
    drift = project.monitor()
    assert drift["outcome"] == "drift"
    assert report.drifted(drift) == [test["name"] for test in drift["tests"]]
    assert "market" in " ".join(report.sentences(drift))
    assert "market" not in report.markdown(drift)


def test_only_the_champions_rows_of_the_window_count(project: Project) -> None:
    good, bad = texts(200, seed=5), texts(300, seed=6, words=OTHERS)
    write_log(project.root, good)
    write_log(project.root, bad, "part-00001", content="another model", model="小模型/2")
    write_log(project.root, bad, "part-00002", at=NOW - timedelta(days=8))
    write_log(project.root, bad, "part-00003", at=NOW + timedelta(hours=1))
    found = project.monitor()
    assert (found["outcome"], found["rows"], found["other_models"]) == ("no drift", 200, {"小模型/2": 300})
    assert "300 of 小模型/2" in " ".join(report.sentences(found))
    assert project.monitor(window_days=9.0)["outcome"] == "drift"


def test_parts_from_before_the_window_are_not_opened_and_a_clock_that_is_ahead_loses_no_row(project: Project) -> None:
    write_log(project.root, texts(200, seed=5))
    folder = project.root / ".stillhouse/scored"
    (folder / "20261101T060000.000000Z-old.parquet").write_bytes(b"PAR1, torn")
    write_log(project.root, texts(30, seed=6), "part-00001", at=NOW - timedelta(days=7))
    (ahead,) = folder.glob("*part-00001*")
    ahead.rename(folder / "20261116T113000.000000Z-written-by-a-slower-clock.parquet")
    assert project.monitor()["rows"] == 230


def test_nothing_other_models_and_too_few_rows_are_outcomes(project: Project) -> None:
    assert project.monitor()["outcome"] == "nothing logged"
    write_log(project.root, texts(300, seed=5), content="another model")
    assert project.monitor()["outcome"] == "other model"
    write_log(project.root, texts(99, seed=5), "part-00001")
    few = project.monitor()
    assert (few["outcome"], few["rows"], few["tests"]) == ("too few rows", 99, [])
    assert all(report.headline(found) for found in (few, project.monitor(min_rows=1)))


def test_a_group_is_compared_with_its_own_rows_and_must_have_some(project: Project) -> None:
    write_log(project.root, texts(300, seed=5))
    assert project.monitor(group="a")["tests"][0]["reference"]["rows"] == 300
    with pytest.raises(UserError, match=r"group 'c' \(monitoring.group\)"):
        project.monitor(group="c")


def test_thresholds_of_null_leave_tests_out(project: Project) -> None:
    write_log(project.root, texts(300, seed=5))
    off: dict[str, float | None] = {
        "length": None,
        "unseen_words": None,
        "word_frequencies": None,
        "labels": None,
        "confidence": None,
    }
    found = project.monitor(thresholds=off)
    assert (found["outcome"], found["tests"]) == ("not tested", [])
    assert "Not tested: 300 rows" in report.headline(found)
    off["length"] = 0.1
    assert project.monitor(thresholds=off)["outcome"] == "no drift"


def labels_file(root: Path, wrong: int) -> Path:
    """True labels of 300 rows: the model is wrong on the first ones."""
    lines = [f"r{row},{LABELS[row % 2 if row >= wrong else 1 - row % 2]}" for row in range(300)]
    path = root / "labels.csv"
    path.write_text("\n".join(["id,label", *lines, "r999,positive"]) + "\n")
    return path


@pytest.mark.parametrize(("wrong", "outcome"), [(75, "no drift"), (130, "drift")])
def test_accuracy_on_labels_that_came_later_is_told_and_tested(project: Project, wrong: int, outcome: str) -> None:
    write_log(project.root, texts(300, seed=5), id=[f"r{row}" for row in range(300)])
    found = project.monitor(labels_file(project.root, wrong))
    labels = found["labels"]
    assert (labels["rows"], labels["accuracy"], labels["reference"]) == (300, pytest.approx(1 - wrong / 300), 0.75)
    assert labels["ci"][0] < labels["accuracy"] < labels["ci"][1]
    assert (found["outcome"], labels["unmatched"]) == (outcome, 1)
    assert report.drifted(found) == (["accuracy"] if outcome == "drift" else [])


def test_few_labels_are_told_and_not_tested(project: Project) -> None:
    write_log(project.root, texts(60, seed=5), id=[f"r{row}" for row in range(60)])
    found = project.monitor(labels_file(project.root, wrong=60), min_labels=61)
    assert (found["outcome"], found["labels"]["accuracy"], found["tests"]) == ("too few rows", 0.0, [])
    assert "isn't tested: that starts at 61 rows" in " ".join(report.sentences(found))
    off = project.monitor(labels_file(project.root, wrong=60), thresholds={"accuracy": None})
    assert "isn't tested: monitoring.thresholds.accuracy is null." in " ".join(report.sentences(off))


def test_accuracy_without_one_on_the_test_rows_says_that_it_has_nothing_to_be_compared_with(project: Project) -> None:
    project.registry.contents["champion"], project.registry.labels = "a third", ["x", "y"]
    write_log(project.root, texts(60, seed=5), id=[f"r{row}" for row in range(60)], content="a third")
    found = project.monitor(labels_file(project.root, wrong=0))
    assert found["labels"]["rows"] == 60
    assert "isn't tested: there is none on the test rows" in " ".join(report.sentences(found))


@pytest.mark.parametrize("days", [None, 8])
def test_labels_of_rows_outside_the_window_are_told_as_such_and_their_file_is_read(
    project: Project, days: int | None
) -> None:
    if days:
        write_log(project.root, texts(9, 5), id=[f"r{row}" for row in range(9)], at=NOW - timedelta(days=days))
    found = project.monitor(labels_file(project.root, wrong=0))
    assert (found["outcome"], found["labels"]["rows"], found["labels"]["unmatched"]) == ("nothing logged", 0, 301)
    said = " ".join(report.sentences(found))
    assert "301 ids in no row of this model since 2026-11-16 12:00 UTC (--since looks further back): r0" in said
    (project.root / "labels.csv").write_text("id,label\nr0,7\n")
    with pytest.raises(UserError, match="the labels negative, positive; it has 7"):
        project.monitor(project.root / "labels.csv")


def test_a_champion_that_these_results_lack_says_once_what_it_says_of_the_test_rows(project: Project) -> None:
    project.registry.contents["champion"] = "an older one"
    write_log(project.root, texts(300, seed=5), content="an older one", label="positive", score=0.924)
    for _ in range(2):
        assert project.monitor()["outcome"] == "no drift"
    assert project.registry.loaded_versions == ["1"]
    project.registry.contents["champion"], project.registry.labels = "a third", ["x", "y"]
    write_log(project.root, texts(300, seed=5), content="a third")
    found = project.monitor()
    assert len(found["tests"]) == 4
    assert "other labels" in found["notes"][0]


def test_drift_starts_the_training_only_where_parameters_say_so(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def start(workspace: Any, deployment: str, content: str) -> dict[str, Any]:
        asked.append((deployment, content))
        return {"deployment": deployment, "run": "quick-fox", "new": len(asked) == 1, "failed": 0, "problem": None}

    monkeypatch.setattr(training, "start", start)
    write_log(project.root, texts(300, seed=5))
    assert project.monitor(retrain="drift")["retraining"] is None
    write_log(project.root, texts(300, seed=6, words=OTHERS))
    assert project.monitor()["retraining"] is None
    assert "Training was started: quick-fox" in " ".join(report.sentences(project.monitor(retrain="drift")))
    assert "before: quick-fox" in " ".join(report.sentences(project.monitor(retrain="drift")))
    assert asked == [("on-demand", "the champion")] * 2


def test_the_report_is_there_when_starting_the_training_dies(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "start", start)
    write_log(project.root, texts(300, seed=6, words=OTHERS))
    with pytest.raises(KeyboardInterrupt):
        project.monitor(retrain="drift")
    assert '"outcome": "drift"' in (project.root / report.REPORT).read_text(encoding="utf-8")


def test_mistakes_are_told(project: Project) -> None:
    write_log(project.root, texts(3, seed=5))
    with pytest.raises(UserError, match="no such file"):
        project.monitor(project.root / "missing.csv")
    log = project.root / ".stillhouse/scored"
    (log / "20261123T110000.000000Z-torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"torn.parquet can't be read"):
        project.monitor()
    (log / "20261123T110000.000000Z-torn.parquet").rename(log / ".torn.parquet")
    assert project.monitor()["rows"] == 3
    project.registry.contents.clear()
    with pytest.raises(UserError, match="no version yet"):
        project.monitor()
    (project.root / "artifacts/validate/schema.json").unlink()
    with pytest.raises(UserError, match="dvc checkout") as refused:
        project.monitor()
    assert refused.value.kind == "pipeline"


def test_times_are_read() -> None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert moment("7d", now) == now - timedelta(days=7)
    assert moment("1.5h", now) == now - timedelta(hours=1.5)
    assert moment("2026-11-20", now) == datetime(2026, 11, 20, tzinfo=UTC)
    assert moment("2026-11-20T10:00+02:00", now) == datetime(2026, 11, 20, 8, tzinfo=UTC)
    for wrong in ("soon", "", "-3d", "2030-01-01"):
        with pytest.raises(UserError, match="7d"):
            moment(wrong, now)


def test_labels_and_reasons_cannot_break_the_page(project: Project) -> None:
    write_log(project.root, texts(300, seed=5), label="<b>|*x*", model="[m](http://x)")
    write_log(project.root, texts(9, seed=6), "part-00001", content="other", model="[m](http://x)")
    found = project.monitor() | {"notes": ["group '<i>~~c~~'"]}
    page = report.markdown(found)
    assert page.count("&lt;b&gt;\\|\\*x\\* 100%") == 1
    assert "9 of \\[m\\](http://x)" in page
    assert "group '&lt;i&gt;\\~\\~c\\~\\~'" in page
