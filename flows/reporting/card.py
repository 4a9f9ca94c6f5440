"""The model card: Markdown with the metadata that the Hugging Face hub reads, made from a run and from params.yaml."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML

from flows.gating import report as decisions
from flows.markup import one_line
from flows.reporting import formats
from flows.reporting.evidence import Evidence
from flows.reporting.words import findings, gain_lines, title

NOT_STATED = "Not stated."
_SPDX = re.compile(r"[a-z0-9][a-z0-9.-]*")
_LIBRARY = {"lora_int8": "onnx", "lora_onnx": "onnx"}


def render(evidence: Evidence, commands: str) -> str:
    """The card of the model that this run registers, or would register.

    Args:
        evidence: what the run left.
        commands: how to make the results again.
    """
    template = formats.environment().get_template("card.md.j2")
    return template.render(
        e=evidence,
        card=evidence.params.card,
        title=title(evidence),
        metadata=_yaml(metadata(evidence)),
        model=evidence.models[evidence.released],
        name=one_line(evidence.titles[evidence.released]),
        confidence=f"{100 * evidence.comparison['confidence']:.4g}%",
        gains=gain_lines(evidence),
        limits=list(_limits(evidence)),
        findings=findings(evidence),
        headline=decisions.sentences(evidence.decision)[0] if evidence.decision else "",
        base_licence=evidence.params.card.base_licence or evidence.base_licence,
        commands=commands,
        not_stated=NOT_STATED,
    )


def metadata(evidence: Evidence) -> dict[str, Any]:
    """The card's head, by the hub's keys; what nobody has stated is left out, but for the licence."""
    card = evidence.params.card
    found: dict[str, Any] = {"language": card.language} if card.language else {}
    found |= _licence(card.licence)
    found |= {"library_name": _LIBRARY.get(evidence.released, "transformers"), "pipeline_tag": "text-classification"}
    found |= {"base_model": card.base_model} if card.base_model else {}
    found |= {"tags": ["text-classification", "distillation", "stillhouse"], "metrics": ["accuracy", "f1"]}
    return found | {"model-index": [_index(evidence)]}


def _licence(licence: str | None) -> dict[str, str]:
    """The hub knows names as SPDX has them; any other licence goes by its own name."""
    if licence is None:
        return {"license": "unknown"}
    if _SPDX.fullmatch(licence.lower()):
        return {"license": licence.lower()}
    return {"license": "other", "license_name": one_line(licence)}


def _index(evidence: Evidence) -> dict[str, Any]:
    """The figures as the hub's tables take them: all test rows, then each group."""
    model = evidence.models[evidence.released]
    places = {"all test rows": model, **model["groups"]}
    return {
        "name": evidence.params.publish.registered_model,
        "results": [
            {
                "task": {"type": "text-classification", "name": "Text classification"},
                "dataset": {"name": place, "type": "local", "split": "test", "revision": evidence.lineage["data"]},
                "metrics": [
                    {"type": kind, "name": name, "value": round(scores[key], 6)}
                    for kind, name, key in (("accuracy", "Accuracy", "accuracy"), ("f1", "Macro F1", "macro_f1"))
                ],
            }
            for place, scores in places.items()
        ],
    }


def _yaml(values: Mapping[str, Any]) -> str:
    writer = YAML()
    writer.default_flow_style = False
    writer.allow_unicode = True
    writer.width = 4096
    text = io.StringIO()
    writer.dump(dict(values), text)
    return text.getvalue().rstrip()


def _limits(evidence: Evidence) -> Iterator[str]:
    """What the run itself shows of the model's limits."""
    model, data = evidence.models[evidence.released], evidence.params.data
    scores = {name: found["accuracy"] for name, found in model["groups"].items()}
    if len(scores) > 1:
        worst, best = min(scores, key=lambda name: scores[name]), max(scores, key=lambda name: scores[name])
        yield (
            f"It is weakest on {worst}: {formats.percent(scores[worst])}% of the rows, against "
            f"{formats.percent(scores[best])}% on {best}. Other kinds of text were not tested."
        )
    mistakes = _frequent_mistake(evidence)
    if mistakes:
        yield mistakes
    yield (
        f"Its confidence is off by {100 * model['ece']:.1f} points on average (expected calibration error "
        f"{model['ece']:.3f}); it answers with one of its {len(evidence.labels)} classes whatever the text."
    )
    yield f"Texts are cut at {data.max_length} tokens."
    if any(gain.get("seeds") == 1 for _, gain in gain_lines(evidence)):
        yield "One seed was trained: another would give slightly other scores, by how much was not measured."


def _frequent_mistake(evidence: Evidence) -> str | None:
    """The pair of classes that the model confuses most often."""
    matrix = evidence.confusions.get(evidence.released)
    if not matrix:
        return None
    wrong = {
        (rows, actual, taken): sum(matrix[actual])
        for actual in range(len(matrix))
        for taken, rows in enumerate(matrix[actual])
        if taken != actual and rows
    }
    if not wrong:
        return None
    rows, actual, taken = max(wrong)
    return (
        f"Its most frequent mistake takes {evidence.labels[actual]} for {evidence.labels[taken]}: {rows:,} of "
        f"{wrong[rows, actual, taken]:,} such test rows."
    )
