"""Experiments on a tiny project: DVC's own, and a sweep."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

Project = Any


def test_dvc_experiments_and_diffs_work(copied: Project) -> None:
    copied.git("config", "user.name", "t")
    copied.git("config", "user.email", "t@example.org")
    copied.git("add", ".")
    copied.git("commit", "--quiet", "-m", "results")
    copied.run("dvc", "exp", "run", "--quiet", "--name", "narrow", "-S", "evaluate.bootstrap.confidence=0.5")
    experiment = shown(copied)["narrow"]
    assert experiment["params"]["params.yaml"]["data"]["evaluate"]["bootstrap"]["confidence"] == 0.5
    metrics = experiment["metrics"]["artifacts/evaluate/metrics.json"]["data"]
    assert metrics["models"]["lora"]["accuracy"] > 0
    changed = json.loads(copied.run("dvc", "metrics", "diff", "--json", "HEAD").stdout)
    assert changed["artifacts/evaluate/metrics.json"]["confidence"] == {
        "old": 0.95,
        "new": 0.5,
        "diff": pytest.approx(-0.45),
    }
    plots = json.loads(copied.run("dvc", "plots", "diff", "--json", "HEAD").stdout)["data"]
    for name in ("training loss", "validation score", "reliability", "confusion of lora"):
        assert [plot["revisions"] for plot in plots[name]] == [["workspace", "HEAD"]]
    assert len(plots["artifacts/evaluate/plots/confusion.svg"]) == 2


def shown(project: Project) -> dict[str, Any]:
    """What `dvc exp show` tells of each experiment."""
    told = json.loads(project.run("dvc", "exp", "show", "--json").stdout)
    found = [experiment for commit in told for experiment in commit.get("experiments") or []]
    return {experiment["name"]: experiment["revs"][0]["data"] for experiment in found}


def test_a_sweep_trains_nothing_twice_ranks_and_leaves_the_checkout_as_it_was(copied: Project) -> None:
    before = copied.lock(), (copied.root / "params.yaml").read_bytes()
    refused = copied.run("stillhouse", "sweep", "evaluate.bootstrap.resample=1,2", code=2)
    assert "did you mean 'resamples'" in refused.stderr
    assert "Traceback" not in refused.stderr
    grid = ("evaluate.bootstrap.resamples=200,300", "finetune.group=products")
    planned = copied.run("stillhouse", "sweep", *grid, "--plan")
    assert "at most 1 to run, 9 there already, 8 shared" in planned.stdout
    assert "▸" not in planned.stdout
    done = copied.run("stillhouse", "sweep", *grid, "--metric", "student.accuracy", "--name", "resamples")
    assert [line.split()[2] for line in done.stdout.splitlines() if " done in " in line] == ["evaluate"]
    assert "student/accuracy" in done.stdout
    assert (copied.lock(), (copied.root / "params.yaml").read_bytes()) == before
    with closing(sqlite3.connect(copied.root / ".stillhouse/mlflow/mlflow.db")) as connection:
        query = "SELECT name, status, (SELECT count(*) FROM metrics WHERE metrics.run_uuid = runs.run_uuid) FROM runs"
        runs = {name: (status, count) for name, status, count in connection.execute(query)}
    for name in ("resamples", "evaluate.bootstrap.resamples=300 finetune.group=products"):
        assert runs[name][0] == "FINISHED"
        assert runs[name][1] > 20
    # The sweep's result is there for a run as well.
    copied.edit(lambda params: params["evaluate"]["bootstrap"].update(resamples=300))
    assert '"action": "restore"' in copied.run("stillhouse", "plan", "--json").stdout
