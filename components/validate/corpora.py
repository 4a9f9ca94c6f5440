"""Formats of annotated corpora: words with tags as in CoNLL, questions on contexts as in SQuAD."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.validate.lines import MARK, lines, malformed

CONLL_COLUMNS = ("tokens", "tags")
SQUAD_COLUMNS = ("question", "context", "answers", "id", "title")
_BLANKS = re.compile(r"[ \t]+")  # other white space may be part of a word
_DOCUMENT = "-DOCSTART-"


def conll_sentences(path: Path) -> Iterator[dict[str, Any]]:
    """Sentences of a file of one word a line: its first column is the word, its last the tag.

    Columns are parted by a tab, or else by blanks; blank lines part sentences. ``-DOCSTART-`` lines are no words, and
    a byte order mark at any line's start is dropped, as files that were put together have them.

    Raises:
        UserError: the file isn't UTF-8, or a line has one column only.
    """
    tokens: list[str] = []
    tags: list[str] = []
    for number, line in enumerate(lines(path), 1):
        columns = _conll_columns(line.removeprefix(MARK).rstrip("\r\n"))
        if columns and columns[0] != _DOCUMENT:
            if len(columns) == 1:
                raise malformed(
                    path,
                    number,
                    f"expected a token and its tag, got one column: {columns[0]:.40}",
                    "Give every token a tag behind a tab or a blank. Sentences without tags can be JSON lines, "
                    'such as {"tokens": ["..."]}.',
                )
            tokens.append(columns[0])
            tags.append(columns[-1])
        elif tokens:
            yield {"tokens": tokens, "tags": tags}
            tokens, tags = [], []
    if tokens:
        yield {"tokens": tokens, "tags": tags}


def _conll_columns(line: str) -> list[str]:
    if not line.strip():
        return []
    return line.split("\t") if "\t" in line else _BLANKS.split(line.strip(" "))


def squad_questions(path: Path) -> Iterator[dict[str, Any]]:
    """The questions of a file as SQuAD 1.1 and 2 have it; answers as lists of text and start. All of it is in memory.

    Raises:
        UserError: the file isn't UTF-8 or JSON, or not laid out so; names the place.
    """
    data = _under(_loaded(path), "data", path, "the file")
    for number, article in enumerate(data):
        title, place = article.get("title"), f"data[{number}]"
        for part, paragraph in enumerate(_under(article, "paragraphs", path, place)):
            there = f"{place}.paragraphs[{part}]"
            for question in _under(paragraph, "qas", path, there):
                yield {
                    "question": question.get("question"),
                    "context": paragraph.get("context"),
                    "answers": _answers(question),
                    "id": question.get("id"),
                    "title": title,
                }


def squad_columns(path: Path) -> list[str]:
    """The columns of any such file.

    Raises:
        UserError: the file doesn't begin as a JSON object.
    """
    first = next((line.strip() for line in lines(path) if line.strip()), "")
    if not first.startswith("{"):
        raise _no_squad(path, f"it begins with {first:.20}" if first else "it is blank")
    return list(SQUAD_COLUMNS)


def _loaded(path: Path) -> Any:
    try:
        return json.loads("".join(lines(path)))
    except (ValueError, RecursionError) as error:
        raise _no_squad(path, f"malformed JSON: {error}") from None


def _under(found: Any, key: str, path: Path, place: str) -> list[dict[str, Any]]:
    """The list of mappings under a key."""
    listed = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(listed, list) or not all(isinstance(each, Mapping) for each in listed):
        raise _no_squad(path, f"{place} has no list of objects under '{key}'")
    return listed


def _answers(question: Mapping[str, Any]) -> Any:
    """Text and start of each; what isn't laid out so is left to the task to refuse."""
    given = question.get("answers", [] if question.get("is_impossible") else None)
    if not isinstance(given, list) or not all(isinstance(answer, Mapping) for answer in given):
        return given
    return [{"text": answer.get("text"), "start": answer.get("answer_start")} for answer in given]


def _no_squad(path: Path, problem: str) -> UserError:
    return UserError(
        f'{path}: expected questions as in SQuAD, {{"data": [{{"paragraphs": [...]}}]}}; {problem}.',
        "Mend the file; with one JSON object a line, name it .jsonl.",
        "data",
    )
