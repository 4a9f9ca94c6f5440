"""The gate report: gate.json and one HTML page that needs no network; every text of the data is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from components.validate.beside import beside
from components.validate.style import CSS, table

REPORT = Path("reports/gate")


def write_report(verdicts: Mapping[str, Any], folder: Path) -> None:
    """Write ``verdicts`` (the content of gate.json) as gate.json and report.html to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(verdicts, ensure_ascii=False, indent=2) + "\n"
    (folder / "gate.json").write_text(text, encoding="utf-8")
    docs = (folder / "data_docs" / "index.html").is_file()
    (folder / "report.html").write_text(render(verdicts, docs=docs), encoding="utf-8")


def render(verdicts: Mapping[str, Any], *, docs: bool = False) -> str:
    """The page; ``docs`` adds a link to the Data Docs beside it."""
    failing = [rule for rule in verdicts["rules"] if rule["passed"] is False]
    parts = [
        _headline(verdicts, failing),
        _tiles(verdicts["summary"]),
        *(["<h2>What was found</h2>"] if failing else []),
        *(_finding(rule, verdicts["target"]) for rule in sorted(failing, key=lambda rule: rule["severity"] != "error")),
        "<h2>All rules</h2>" + _rules(verdicts["rules"]),
        *_shares("Classes", verdicts["summary"]["classes"]),
        *_shares("Groups", verdicts["summary"]["groups"]),
        *beside(verdicts["summary"]),
        "<h2>Lengths in tokens</h2>" + _lengths(verdicts["summary"]),
        _footer(verdicts, docs),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Data gate</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _headline(verdicts: Mapping[str, Any], failing: Sequence[Mapping[str, Any]]) -> str:
    errors = [rule["rule"] for rule in failing if rule["severity"] == "error"]
    warnings = [rule["rule"] for rule in failing if rule["severity"] == "warning"]
    kind = "error" if errors else "warning" if warnings else "passed"
    titles = {"error": "The data gate stopped the run", "warning": "The data passed with warnings"}
    said = [f"Errors: {', '.join(errors)}."] * bool(errors) + [f"Warnings: {', '.join(warnings)}."] * bool(warnings)
    return (
        f'<div class="card verdict {kind}"><h1>{titles.get(kind, "The data passed the gate")}</h1>'
        f"<p>{escape(' '.join(said) or 'Every rule is kept.')}</p>"
        f'<p class="soft">{verdicts["expectations"]} expectations were evaluated.</p></div>'
    )


def _tiles(summary: Mapping[str, Any]) -> str:
    tiles = []
    for split, rows in summary["rows"].items():
        made = summary["made"].get(split)
        origin = f"{made:.0%} of the training rows" if made else summary["files"].get(split, "")
        left_out = rows - summary["used"][split]
        note = f"{left_out:,} left out" if left_out else "all used"
        tiles.append(
            f'<div class="card"><span class="soft">{escape(split)}</span><b>{rows:,}</b>'
            f'<span class="soft">{escape(origin)}<br>{note}</span></div>'
        )
    return f'<div class="tiles">{"".join(tiles)}</div>{_made(summary)}'


def _made(summary: Mapping[str, Any]) -> str:
    """How the splits that weren't given were made, and what that kept out of the pool."""
    if not summary["made"]:
        return ""
    unit = "documents and repeated texts" if summary["by_document"] else "repeated texts"
    strata = "class and group" if summary.get("by_class", True) else "group"
    aside = sum(summary["set_aside"].values())
    pool = f" {aside:,} rows of the pool are set aside because they belong to these splits." if aside else ""
    return (
        f'<p class="soft">{escape(" and ".join(summary["made"]))} split off the training rows with seed '
        f"{summary['seed']}, stratified by {strata}, {unit} kept whole.{pool}</p>"
    )


def _finding(rule: Mapping[str, Any], target: str) -> str:
    says = "".join(f"<p>{escape(finding['says'])}</p>" for finding in rule["findings"])
    examples = rule["examples"]
    shown = ""
    if examples:
        heads = ("File", "Row", target.capitalize(), "Tokens", "Text") + (("Like",) if _has_like(examples) else ())
        shown = table(heads, [_example_cells(example, _has_like(examples)) for example in examples])
    return (
        f'<section class="card verdict {rule["severity"]}"><h3>{escape(rule["rule"])} {_pill(rule)}</h3>{says}{shown}'
        "</section>"
    )


def _has_like(examples: Iterable[Mapping[str, Any]]) -> bool:
    return any("like" in example for example in examples)


def _example_cells(example: Mapping[str, Any], like: bool) -> list[str]:
    text = "<em>none</em>" if example["text"] is None else escape(example["text"])
    cells = [
        f"<td>{escape(example['file'])}</td>",
        f'<td class="number">{example["row"]:,}</td>',
        f"<td>{escape(example['label'] or '')}</td>",
        f'<td class="number">{example["tokens"]:,}</td>',
        f'<td class="text">{text}</td>',
    ]
    other = example.get("like")
    return cells + ([f"<td>{escape(other['file'])}, row {other['row']:,}</td>" if other else "<td></td>"] * like)


def _rules(rules: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for rule in rules:
        limits = ", ".join(f"{name} {value:g}" for name, value in rule["bound"].items())
        observed = "" if rule["observed"] is None else f"{rule['observed']:.4g}"
        counts = ", ".join(f"{check['split']} {check['failing']:,}" for check in rule["checks"] if check["failing"])
        rows.append(
            [
                f"<td>{escape(rule['rule'])}</td>",
                f"<td>{_pill(rule)}</td>",
                f"<td>{escape(limits)}</td>",
                f'<td class="number">{observed}</td>',
                f"<td>{escape(counts)}</td>",
            ]
        )
    heads = ("Rule", "Verdict", "Bound", "Worst", "Rows or classes that break it")
    return f'<div class="card">{table(heads, rows)}</div>'


def _pill(rule: Mapping[str, Any]) -> str:
    if rule["severity"] == "off":
        return '<span class="pill off">off</span>'
    if rule["passed"] is None:
        return '<span class="pill off">does not apply</span>'
    kind = "passed" if rule["passed"] else rule["severity"]
    return f'<span class="pill {kind}">{kind}</span>'


def _shares(title: str, table: Mapping[str, Mapping[str, int]]) -> Iterable[str]:
    """Bars of the rows by class or group, a card for each split; nothing where there is but one group."""
    keys = {key for counts in table.values() for key in counts if key}
    if len(keys) < 2:
        return
    yield f"<h2>{title}</h2>"
    for split, counts in table.items():
        largest = max(counts.values())
        bars = "".join(
            f"<span>{escape(key or 'none')}</span>"
            f'<div class="bar" style="width:{100 * rows / largest:.1f}%"></div><span class="number">{rows:,}</span>'
            for key, rows in counts.items()
        )
        if set(counts) != {""}:
            yield f'<div class="card"><h3>{escape(split)}</h3><div class="bars">{bars}</div></div>'


def _lengths(summary: Mapping[str, Any]) -> str:
    tokens = summary["tokens"]
    cards = []
    for split, bins in tokens["bins"].items():
        median, most, longest = (tokens[name][split] for name in ("median", "p95", "max"))
        said = f"median {median:,}, 95% at most {most:,}, longest {longest:,}"
        cards.append(
            f'<div class="card"><h3>{escape(split)}</h3><p class="soft">{said}</p>'
            f"{_histogram(bins, tokens['width'], summary['max_length'])}</div>"
        )
    return "".join(cards)


def _histogram(bins: Mapping[str, int], width: int, max_length: int) -> str:
    """An SVG of 20 bars, 30 units each; the dashed line is where texts are cut."""
    highest = max(bins.values(), default=1)
    bars, labels = [], []
    for place in range(20):
        rows = bins.get(str(place), 0)
        height = 100 * rows / highest
        upper = f"{width * place} or more" if place == 19 else f"{width * place} to {width * (place + 1) - 1}"
        bars.append(
            f'<rect x="{30 * place + 2}" y="{110 - height:.1f}" width="26" height="{height:.1f}">'
            f"<title>{upper} tokens: {rows:,} rows</title></rect>"
        )
        if place % 4 == 0:
            labels.append(f'<text x="{30 * place + 2}" y="125">{width * place}</text>')
    cut = min(600.0, 30 * max_length / width)
    line = f'<line x1="{cut:.1f}" x2="{cut:.1f}" y1="5" y2="110"></line>'
    note = f'<text x="{cut - 4:.1f}" y="14" text-anchor="end">cut at {max_length}</text>'
    return f'<svg viewBox="0 0 600 130" role="img">{"".join(bars)}{line}{note}{"".join(labels)}</svg>'


def _footer(verdicts: Mapping[str, Any], docs: bool) -> str:
    classes = f"Classes: {escape(', '.join(verdicts['labels'][:50]))}. " if verdicts["labels"] else ""
    link = 'More detail: <a href="data_docs/index.html">Data Docs</a> (they need a network). ' if docs else ""
    return (
        f"<p class=\"soft\">{link}Rows are counted from 0 over a source's files in order; a header doesn't count. "
        f"{classes}The same verdicts for machines: gate.json.</p>"
    )
