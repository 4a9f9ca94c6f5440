"""The relation between two marked entities of a text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.ml.tasks.row_task import ClassTask, one_class, text_of
from components.ml.tasks.task import Example, Fault, Metric

if TYPE_CHECKING:
    import numpy as np

MARKERS = ("<e1>", "</e1>", "<e2>", "</e2>")
HEAD = "EntityMarkerClassifier"
"""What is no auto class of transformers, but ours: see ``components/ml/models/entity_markers.py``."""


class RelationClassification(ClassTask):
    """Class logits from the hidden states at both opening markers (Baldini Soares et al. 2019, "entity start")."""

    name = "relation-classification"
    columns = ("text", "label")
    optional = ("e1", "e2")
    target = "label"
    lists = ("e1", "e2")
    lists_as_text = ("e1", "e2")
    markers = MARKERS
    prompts = False
    metrics = (
        Metric("directed_macro_f1", "macro F1 of the relations"),
        Metric("accuracy", "accuracy"),
        Metric("macro_f1", "macro F1 of the classes"),
    )

    @property
    def head(self) -> str:
        return HEAD

    def read(self, values: Mapping[str, Any]) -> Example:
        """``text`` has both entities marked, as in ``<e1>Paris</e1> is in <e2>France</e2>``; or ``e1`` and ``e2`` are
        spans of it, lists of the first character and the one behind the last."""
        text, fault = text_of(values.get("text")), None
        if text and text.strip():
            spans = [values.get("e1"), values.get("e2")]
            text, fault = _marked(text, spans) if any(span is not None for span in spans) else (text, _misplaced(text))
        return Example((text,), names=one_class(values), faults=() if fault is None else (fault,))

    def scores(self, sums: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        import numpy as np

        from components.ml.statistics.metrics import class_scores
        from components.ml.statistics.relations import directed_macro_f1

        hits, predicted, actual = np.split(sums, 3, axis=-1)
        own = class_scores(hits, predicted, actual)
        return {
            "directed_macro_f1": directed_macro_f1(hits, predicted, actual, names),
            "accuracy": own["accuracy"],
            "macro_f1": own["macro_f1"],
        }


def _misplaced(text: str) -> Fault | None:
    """What is wrong with the markers of a text."""
    found = [match.group() for match in re.finditer(r"</?e[12]>", text)]
    if sorted(found) != sorted(MARKERS):
        return Fault("without just one <e1>…</e1> and one <e2>…</e2>", " ".join(found) or "no markers")
    if found not in (list(MARKERS), [*MARKERS[2:], *MARKERS[:2]]):
        return Fault("with overlapping entity markers", " ".join(found))
    if empty := next((part for part in re.findall(r"<e[12]>(.*?)</e[12]>", text, re.DOTALL) if not part.strip()), None):
        return Fault("with an empty entity", repr(empty))
    return Fault("with an empty entity") if re.search(r"<e([12])>\s*</e\1>", text) else None


def _marked(text: str, spans: Sequence[Any]) -> tuple[str, Fault | None]:
    """The text with markers around its spans."""
    told = " and ".join(f"{span!r:.30}" for span in spans)
    whole = [
        isinstance(span, list | tuple)
        and len(span) == 2
        and all(isinstance(end, int) and not isinstance(end, bool) for end in span)
        and 0 <= span[0] < span[1] <= len(text)
        for span in spans
    ]
    if not all(whole):
        return text, Fault("with entities that are no spans of the text", f"{told} of {len(text)} characters")
    (first, second) = spans
    if first[0] < second[1] and second[0] < first[1]:
        return text, Fault("with overlapping entities", told)
    placed = [
        (first[0], 1, MARKERS[0]),
        (first[1], 0, MARKERS[1]),
        (second[0], 1, MARKERS[2]),
        (second[1], 0, MARKERS[3]),
    ]
    for place, _, marker in sorted(placed, reverse=True):
        text = text[:place] + marker + text[place:]
    return text, None
