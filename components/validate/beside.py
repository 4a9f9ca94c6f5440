"""What the gate tells beside its rules: of the pool's near-duplicates, other tasks, judgements and other models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from components.validate.style import table

_Summary = Mapping[str, Any]


def beside(summary: _Summary) -> Iterator[str]:
    """Sections of the report's page; every text of the data is escaped. None for what there isn't."""
    if near := summary.get("near"):
        yield f"<h2>Near-duplicates</h2>{_near(near)}"
    if tasks := summary.get("tasks"):
        yield f'<h2>Other tasks</h2><div class="card">{_tasks(tasks)}</div>'
    if judgements := summary.get("judgements"):
        said = "".join(f"<p>{escape(line)}</p>" for line in (covered(judgements), *doubts(judgements)))
        yield f'<h2>Judgements</h2><div class="card">{said}</div>'
    if models := summary.get("models"):
        rows = [[f"<td>{escape(name)}</td>", f"<td>{escape(folder)}</td>"] for name, folder in models.items()]
        yield f'<h2>Other models</h2><div class="card">{table(("Name", "Folder"), rows)}</div>'


def near_line(near: _Summary) -> str:
    """How many rows of the pool were left out, and the first of them."""
    said = (
        f"left out {near['rows']:,} of {near['of']:,} pool rows that nearly repeat test rows "
        f"(similarity {near['least']:g} or more)"
    )
    for example in near["examples"][:1]:
        like = example["like"]
        said += f"; row {example['row']} of {near['file']} is like row {like['row']} of {like['file']}"
    return said


def covered(judgements: _Summary) -> str:
    """How much of the training rows, the pool and the validation rows is judged."""
    names = {"train": "training", "unlabelled": "pool", "validation": "validation"}
    parts = [
        f"{judgements['covered'][split]:,} of {judgements['of'][split]:,} {name} rows"
        for split, name in names.items()
        if split in judgements["of"]
    ]
    return f"the {judgements['rows']:,} judgements of {judgements['file']} cover {', '.join(parts)}"


def doubts(judgements: _Summary) -> Iterator[str]:
    """What may not be meant in the file of judgements."""
    found = {
        "unjudged": "rows of {file} hold no judgement and are passed over",
        "off": "rows of {file} have probabilities that are more than 1% off a sum of 1; they are scaled",
        "repeated": "texts are judged more than once in {file}; the mean of their judgements counts",
        "unmatched": "judged texts of {file} are of no training, pool or validation row and are passed over",
    }
    for name, says in found.items():
        if judgements.get(name):
            yield f"{judgements[name]:,} {says.format(file=judgements['file'])}"


def seen_in_test(tasks: _Summary) -> Iterator[str]:
    """Which tasks train on texts of the project's own test; their labels are others, but the texts were seen."""
    for name, task in tasks.items():
        if task["test_texts"]:
            yield (
                f"{task['test_texts']:,} of {task['rows']['train']:,} training rows of the task {name!r} "
                "have the text of a test row"
            )


def _near(near: _Summary) -> str:
    rows = [
        [
            f'<td class="number">{example["row"]:,}</td>',
            f'<td class="text">{escape(example["text"])}</td>',
            f'<td class="number">{example["similarity"]:.2f}</td>',
            f"<td>{escape(example['like']['file'])}, row {example['like']['row']:,}</td>",
            f'<td class="text">{escape(example["like"]["text"])}</td>',
        ]
        for example in near["examples"]
    ]
    shown = table(("Row of the pool", "Text", "Similarity", "Like", "Text there"), rows) if rows else ""
    return f'<div class="card"><p>{escape(near_line(near))}</p>{shown}</div>'


def _tasks(tasks: _Summary) -> str:
    rows = [
        [
            f"<td>{escape(name)}</td>",
            f"<td>{escape(task['type'])}</td>",
            f"<td>{escape(', '.join(task['files'].values()))}</td>",
            f'<td class="number">{task["rows"]["train"]:,}</td>',
            f'<td class="number">{task["rows"]["validation"]:,}</td>',
            f"<td>{escape(', '.join(task['labels'][:20]))}{' ...' * (len(task['labels']) > 20)}</td>",
        ]
        for name, task in tasks.items()
    ]
    notes = "".join(f"<p>{escape(line)}</p>" for line in seen_in_test(tasks))
    return table(("Task", "Type", "Files", "Training rows", "Validation rows", "Labels"), rows) + notes
