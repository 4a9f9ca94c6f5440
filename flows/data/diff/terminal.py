"""The comparison of two data versions in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

# The column of each kind; the last four stand there only if there are such rows.
KINDS = {
    "unchanged": "same",
    "added": "added",
    "removed": "removed",
    "relabelled": "relabelled",
    "moved_in": "in",
    "moved_out": "out",
    "regrouped": "regrouped",
}
MOST_LABELS = 8
MOST_FILES = 10
_WIDTH = 72


def show(console: Console, found: Mapping[str, Any]) -> None:
    """Print what ``diff`` found."""
    for line in _head(found):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(_rows(found["splits"]))
    for line in (*_moves(found["moved"]), *_relabelled(found["relabelled"])):
        console.print(line, highlight=False, soft_wrap=True)
    for split, about in found["splits"].items():
        for line in _shift(split, about):
            console.print(line, highlight=False, soft_wrap=True)
    for line in (*_examples(found["examples"]), *_files(found["files"])):
        console.print(line, highlight=False, soft_wrap=True)


def plain(text: str | None, width: int = _WIDTH) -> str:
    """A text of the data on one line: control characters and the like as escapes, cut at ``width`` characters."""
    if text is None:
        return "(no text)"
    cut = text if len(text) <= width else f"{text[: width - 1]}…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def same(found: Mapping[str, Any]) -> bool:
    """Whether nothing differs but, at most, how texts are written."""
    rows = all(about["rows"]["from"] == about["rows"]["to"] == about["unchanged"] for about in found["splits"].values())
    return rows and not any(found["files"].values())


def _head(found: Mapping[str, Any]) -> Iterator[Text]:
    for word in ("from", "to"):
        version = found[word]
        name = "the checkout" if version["name"] == "." else version["name"]
        yield Text.assemble(f"{word:<5}", (plain(name), "bold"), (f"  {version['hash']}", "dim"))
    for note in found["notes"]:
        yield Text(f"note: {plain(note, 200)}", style="yellow")
    if same(found):
        written = "" if found["from"]["hash"] == found["to"]["hash"] else ", but for how texts are written"
        yield Text(f"Nothing differs{written}.", style="green")


def _rows(splits: Mapping[str, Any]) -> Table:
    shown = [
        kind
        for kind in KINDS
        if kind in ("unchanged", "added", "removed") or any(about[kind] for about in splits.values())
    ]
    table = Table("rows", "before", "after", *(KINDS[kind] for kind in shown), box=None, header_style="dim")
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for split, about in splits.items():
        counts = (f"{about[kind]:,}" if about[kind] else "·" for kind in shown)
        table.add_row(split, f"{about['rows']['from']:,}", f"{about['rows']['to']:,}", *counts)
    return table


def _moves(moved: list[dict[str, Any]]) -> Iterator[Text]:
    for move in moved:
        other = f", {move['with_another_label']:,} with another label" if move["with_another_label"] else ""
        leak = "test" in (move["from"], move["to"])
        warning = ": results on the test rows are no longer comparable" if leak else ""
        yield Text(
            f"  {_count(move['rows'])} moved from {move['from']} to {move['to']}{other}{warning}",
            style="yellow" if leak else "",
        )


def _count(rows: int) -> str:
    return f"{rows:,} row{'' if rows == 1 else 's'}"


def _shift(split: str, about: Mapping[str, Any]) -> Iterator[Text]:
    labels, lengths = about["labels"], about["lengths"]
    if labels["total_variation"]:
        distance = f"total variation {labels['total_variation']:.2g}"
        yield Text(f"{split}: shift of the labels: {labels['says']} ({distance})")
        yield from _counts(labels)
    if lengths["distance"]:
        distance = f"largest distance of the cumulative shares {lengths['distance']:.2g}"
        yield Text(f"{split}: shift of the lengths: {lengths['says']} ({distance})")
        yield Text(f"    characters: {_lengths(lengths['from'])} -> {_lengths(lengths['to'])}")


def _counts(labels: Mapping[str, Any]) -> Iterator[Text]:
    """The most changed labels; with shares, where all labels are at hand to count from."""
    totals = {side: sum(count[side] for count in labels["values"].values()) or 1 for side in ("from", "to")}
    complete = labels["number"] == len(labels["values"])
    for label, count in list(labels["values"].items())[:MOST_LABELS]:
        shares = f" ({count['from'] / totals['from']:.1%} -> {count['to'] / totals['to']:.1%})" if complete else ""
        yield Text(f"    {plain(label, 40)}: {count['from']:,} -> {count['to']:,}{shares}")
    if labels["number"] > MOST_LABELS:
        yield Text(f"    and {labels['number'] - MOST_LABELS:,} other labels")


def _lengths(side: Mapping[str, Any]) -> str:
    quantiles = side["quantiles"]
    return f"mean {side['mean']:.1f}, median {quantiles['0.5']:,}, 95% up to {quantiles['0.95']:,}"


def _relabelled(pairs: list[dict[str, Any]]) -> Iterator[Text]:
    for pair in pairs:
        yield Text(
            f"  {_count(pair['rows'])} of {pair['split']} relabelled {_label(pair['from'])} -> {_label(pair['to'])}"
        )


def _examples(examples: Mapping[str, list[dict[str, Any]]]) -> Iterator[Text]:
    for kind, rows in examples.items():
        if rows:
            yield Text(f"{kind}, for example", style="bold")
        for row in rows:
            where, labels = _where(row)
            yield Text.assemble(f"  {where:<26} ", (f"{labels:<22} ", "cyan"), plain(row["text"]))


def _where(row: Mapping[str, Any]) -> tuple[str, str]:
    """Which row it is, and its label; both before and after where they differ."""
    if "row" in row:
        return f"{row['split']} {row['row']}", _label(row["label"])
    before, after = f"{row['from_split']} {row['from_row']}", f"{row['to_split']} {row['to_row']}"
    labels = [_label(row["from_label"]), _label(row["to_label"])]
    return f"{before} -> {after}", labels[0] if labels[0] == labels[1] else " -> ".join(labels)


def _label(label: str | None) -> str:
    return "(none)" if label is None else plain(label, 30)


def _files(files: Mapping[str, list[str]]) -> Iterator[Text]:
    for word, names in files.items():
        more = f" and {len(names) - MOST_FILES} more" if len(names) > MOST_FILES else ""
        if names:
            yield Text(f"other files {word}: {', '.join(plain(name) for name in names[:MOST_FILES])}{more}")
