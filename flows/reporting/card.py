"""The model card: Markdown with the metadata that the Hugging Face hub reads, made from a run and from params.yaml."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML

from components.ml.tasks.task import Metric
from flows.compare import as_measured
from flows.gating import report as decisions
from flows.markup import one_line
from flows.reporting import formats
from flows.reporting.evidence import Evidence
from flows.reporting.words import cut, findings, gain_lines, title
from flows.tracking.headline import beside, capital, leading, share

NOT_STATED = "Not stated."
_SPDX = re.compile(r"[a-z0-9][a-z0-9.-]*")
_LIBRARY = {"lora_int8": "onnx", "lora_onnx": "onnx"}
_PIPELINES = ("token-classification", "question-answering")
"""The hub's own names for tasks; what judges a text as a whole is text-classification there."""
_HUB_METRICS = {
    **dict.fromkeys(("micro_f1", "macro_f1", "directed_macro_f1"), "f1"),
    **{"pearson": "pearsonr", "spearman": "spearmanr"},
}
_KINDS = {
    "text-classification": "a text classifier for {} classes",
    "multi-label-classification": "a text classifier for {} labels, of which a text may have any number",
    "relation-classification": "a classifier of the relation between two entities, for {} classes",
    "token-classification": "a token classifier for {} tags",
    "regression": "a model that gives texts a score",
    "question-answering": "a model that finds the answer to a question in a text",
}


def render(evidence: Evidence, commands: str) -> str:
    """The card of the model that this run registers, or would register.

    Args:
        evidence: what the run left.
        commands: how to make the results again.
    """
    model = evidence.models[evidence.released]
    template = formats.environment().get_template("card.md.j2")
    return template.render(
        e=evidence,
        card=evidence.params.card,
        title=title(evidence),
        metadata=_yaml(metadata(evidence)),
        model=model,
        name=one_line(evidence.titles[evidence.released]),
        kind=_KINDS.get(evidence.task.name, f"a model for {evidence.task.name}").format(len(evidence.labels)),
        listed=evidence.labels if evidence.task.least_labels else [],
        told=[metric for metric in (evidence.headline, *beside(evidence.task)) if metric.key in model],
        but=as_measured(evidence.comparison),
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
    task, pipeline = evidence.task, _pipeline(evidence)
    found |= {"library_name": _LIBRARY.get(evidence.released, "transformers"), "pipeline_tag": pipeline}
    found |= {"base_model": card.base_model} if card.base_model else {}
    tags = dict.fromkeys([pipeline, task.name, "distillation", "stillhouse"])
    found |= {"tags": list(tags), "metrics": list(dict.fromkeys(_hub_metric(metric) for metric in leading(task)))}
    return found | {"model-index": [_index(evidence)]}


def _pipeline(evidence: Evidence) -> str:
    return evidence.task.name if evidence.task.name in _PIPELINES else "text-classification"


def _hub_metric(metric: Metric) -> str:
    return _HUB_METRICS.get(metric.key, metric.key)


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
    pipeline = _pipeline(evidence)
    metrics = [evidence.headline, *beside(evidence.task)]
    return {
        "name": evidence.params.publish.registered_model,
        "results": [
            {
                "task": {"type": pipeline, "name": capital(pipeline.replace("-", " "))},
                "dataset": {"name": place, "type": "local", "split": "test", "revision": evidence.lineage["data"]},
                "metrics": [
                    {"type": _hub_metric(metric), "name": capital(metric.name), "value": round(scores[metric.key], 6)}
                    for metric in metrics
                    if metric.key in scores
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
    headline = evidence.headline
    scores = {name: found[headline.key] for name, found in model["groups"].items()}
    if len(scores) > 1:
        worst, best = min(scores, key=lambda name: scores[name]), max(scores, key=lambda name: scores[name])
        of = " of the rows" if headline.key == "accuracy" else f" {headline.name}"
        yield (
            f"It is weakest on {worst}: {share(headline, scores[worst])}{of}, against "
            f"{share(headline, scores[best])} on {best}. Other kinds of text were not tested."
        )
    mistakes = _frequent_mistake(evidence)
    if mistakes:
        yield mistakes
    if "ece" in model:
        yield (
            f"Its confidence is off by {100 * model['ece']:.1f} points on average (expected calibration error "
            f"{model['ece']:.3f}); it answers with one of its {len(evidence.labels)} classes whatever the text."
        )
    if not evidence.task.classes_per_row:
        yield "How far its confidence can be trusted was not measured."
    yield cut(data.max_length, data.windows.stride)
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
