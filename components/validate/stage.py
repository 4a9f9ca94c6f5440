"""The validate stage: read, measure, split, state the facts, judge, write."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import duckdb

from components.errors import UserError
from components.ml.models.folders import check_folder
from components.params.data import Data, Validate
from components.validate.beside import covered, doubts, near_line, seen_in_test
from components.validate.classes import known_names
from components.validate.database import connect
from components.validate.facts import (
    SPLITS,
    compute_facts,
    groups_of_training,
    summary,
    write_facts,
    write_splits,
)
from components.validate.formats import column_names
from components.validate.judgements import read_judgements, write_judgements
from components.validate.measure import measure
from components.validate.messages import failed, lines
from components.validate.models import digests
from components.validate.near import examples_of_near, find_near
from components.validate.reading import check_files, shards
from components.validate.report import REPORT, write_report
from components.validate.rules import Context, build_checks
from components.validate.splits import place_rows
from components.validate.tables import reads_pairs
from components.validate.tasks import write_tasks
from components.validate.tokens import token_counter
from components.validate.verdicts import Frames, judge


def run(*, data_folder: Path, base_model: Path, data: Data, settings: Validate, output: Path) -> None:
    """Judge the user's data and, if the gate lets it pass, write the canonical splits.

    Args:
        data_folder: the folder ``data/``; the files of ``data`` are named from its parent on.
        base_model: the folder whose tokenizer counts the tokens.
        data: the files, their columns and the rule of the splits.
        settings: the gate's rules.
        output: gets train/, validation/, test/, unlabelled/, tasks/, judgements/, facts/, schema.json, folders.json
            and gate.json.

    The report goes to ``reports/gate`` in any case.

    Raises:
        UserError: the data can't be read (kind data), the base model doesn't fit (parameters), or a rule
            of severity error failed (gate).
    """
    shutil.rmtree(REPORT, ignore_errors=True)  # of other data, or of a gate that passed
    check_files(data, data_folder.parent)
    check_folder(base_model, data.max_length)
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        measured = Path(scratch) / "measured.parquet"
        measure(data, data_folder.parent, token_counter(base_model, data.kind.markers), measured)
        with connect(measured, Path(scratch) / "spill") as database:
            names = known_names(database, data)
            made = place_rows(database, data)
            find_near(database, data.near_duplicate, Path(scratch))
            compute_facts(database, names, data.max_length)
            about = _about(database, data, made) | _beside(database, data, data_folder.parent, names, Path(scratch))
            verdicts = _gate(database, data_folder.parent, data, settings, names)
            verdicts["summary"] = summary(database, data.max_length, data.kind.rows_by_class) | about
            write_report(verdicts, REPORT)
            _stop_or_warn(verdicts)
            (Path(scratch) / "tasks").rename(output / "tasks")
            folders = digests(data.models, data_folder.parent)
            contents = {"gate.json": verdicts, "folders.json": folders}
            _write(database, data, names, contents, output)
    _tell(verdicts["summary"])


def _gate(
    database: duckdb.DuckDBPyConnection, root: Path, data: Data, settings: Validate, names: list[str]
) -> dict[str, Any]:
    from components.validate.gate import evaluate

    columns = {split: column_names(shards(root / name)[0]) for split, name in data.files.items()}
    splits = [split for split in SPLITS if split != "unlabelled" or split in data.files]
    context = Context(data, names, splits, columns)
    checks = build_checks(settings.rules, context)
    outcomes = evaluate(checks, Frames(database, context), REPORT / "data_docs")
    return judge(database, settings.rules, context, checks, outcomes)


def _about(database: duckdb.DuckDBPyConnection, data: Data, made: list[str]) -> dict[str, Any]:
    ((documents,),) = database.execute("SELECT count(document) FROM measured").fetchall()
    return {
        "files": data.files,
        "max_length": data.max_length,
        "made": {split: getattr(data.split, split) for split in made},
        "seed": data.split.seed,
        "by_document": data.columns.document is not None or documents > 0,
        "by_class": data.kind.rows_by_class,
    }


def _beside(
    database: duckdb.DuckDBPyConnection, data: Data, root: Path, names: list[str], scratch: Path
) -> dict[str, Any]:
    """What the gate tells beside its rules; what is to be written stands in ``scratch``/tasks and in the database."""
    return {
        "near": _near(database, data),
        "tasks": write_tasks(database, data, root, scratch, scratch / "tasks"),
        "judgements": read_judgements(database, data, root, names, scratch),
        "models": dict(sorted(data.models.items())),
    }


def _near(database: duckdb.DuckDBPyConnection, data: Data) -> dict[str, Any] | None:
    if data.near_duplicate is None or data.unlabelled is None:
        return None
    ((rows, of),) = database.execute(
        "SELECT count(*) FILTER (near_duplicate), count(*) FROM facts WHERE split = 'unlabelled' AND NOT set_aside"
    ).fetchall()
    examples = examples_of_near(database)
    for example in examples:
        example["like"]["file"] = data.files[example["like"].pop("source")]
    return {"rows": rows, "of": of, "least": data.near_duplicate, "file": data.unlabelled, "examples": examples}


def _stop_or_warn(verdicts: dict[str, Any]) -> None:
    for verdict in failed(verdicts["rules"], "warning"):
        for line in lines(verdict, verdicts["target"]):
            print(f"warning: {line}")
    broken = failed(verdicts["rules"], "error")
    if broken:
        listed = "\n".join(f"  {line}" for verdict in broken for line in lines(verdict, verdicts["target"]))
        count = f"{len(broken)} rule{'s' * (len(broken) > 1)}"
        raise UserError(
            f"The data gate stopped the run; the data breaks {count}:\n{listed}",
            f"Every finding, with examples: {REPORT / 'report.html'} (rows are counted from 0, a header not at all). "
            "Mend the data, or change the rule in validate.rules of params.yaml if that is acceptable.",
            "gate",
        )


def _write(
    database: duckdb.DuckDBPyConnection,
    data: Data,
    names: list[str],
    contents: dict[str, dict[str, Any]],
    output: Path,
) -> None:
    task, paired = data.kind, reads_pairs(data)
    labels = task.labels_of(names)
    rows = write_splits(database, task, names, output, paired)
    write_facts(database, output / "facts")
    write_judgements(database, output / "judgements", paired)
    schema = {"task": task.name, "labels": labels, "groups": groups_of_training(database), "rows": rows}
    for name, content in ({"schema.json": schema} | contents).items():
        (output / name).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    told = f"{len(labels)} classes" if task.least_labels else task.name
    print(f"{told}; rows: " + ", ".join(f"{split} {count:,}" for split, count in rows.items()))


def _tell(summary: dict[str, Any]) -> None:
    """Print what isn't in the rules."""
    near, judgements, tasks = summary["near"], summary["judgements"], summary["tasks"]
    if near and near["rows"]:
        print(near_line(near))
    for name, task in tasks.items():
        rows = ", ".join(f"{split} {count:,}" for split, count in task["rows"].items())
        print(f"task {name}: {len(task['labels'])} labels; rows: {rows}")
    if judgements:
        print(covered(judgements))
    for line in (*seen_in_test(tasks), *doubts(judgements or {})):
        print(f"warning: {line}")
