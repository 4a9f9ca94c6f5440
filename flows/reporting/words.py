"""What the report says of a run in sentences and in few numbers; the model card says some of it too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flows.markup import one_line
from flows.reporting import formats
from flows.reporting.evidence import Evidence
from flows.tracking.headline import share, span


def gain_lines(evidence: Evidence) -> list[tuple[str, Mapping[str, Any]]]:
    """What each step gained, on all rows and on the target group; with names for people."""
    comparison, method, group = evidence.comparison, evidence.comparison["method"], evidence.comparison["target_group"]
    names = {
        "distillation": "distillation",
        "lora": method,
        "distillation_before_lora": f"distillation before {method}",
    }
    found: list[tuple[str, Mapping[str, Any]]] = []
    for key, name in names.items():
        gain = comparison["gains"].get(key)
        if gain:
            found.append((f"{name}, all rows", gain))
        if gain and group != "all" and "target" in gain:
            found.append((f"{name}, {group}", gain["target"]))
    integers = comparison["differences"].get("lora_int8 - lora")
    return [*found, *([("int8, all rows", integers)] if integers else [])]


def findings(evidence: Evidence) -> list[str]:
    """What the data gate found wrong, in its words."""
    rules = evidence.data_gate["rules"] if evidence.data_gate else []
    return [
        f"{rule['rule']}: {finding['says']}"
        for rule in rules
        if rule["passed"] is False
        for finding in rule["findings"]
    ]


def cut(tokens: int, stride: int | None) -> str:
    """What becomes of texts that are longer than a model reads."""
    if stride is None:
        return f"Texts are cut at {tokens} tokens."
    return f"Texts of more than {tokens} tokens are read in windows that share {stride}."


def title(evidence: Evidence) -> str:
    name = evidence.params.publish.registered_model
    return f"{name}, version {evidence.version}" if evidence.version else name


def registered(evidence: Evidence) -> str:
    model_name = one_line(evidence.titles[evidence.released])
    if evidence.version:
        return f"{evidence.params.publish.registered_model} version {evidence.version}: the {model_name}"
    return f"the {model_name}, not registered"


def lead(evidence: Evidence) -> str:
    model = evidence.models[evidence.released]
    model_name = one_line(evidence.titles[evidence.released])
    classes, headline = evidence.labels, evidence.headline
    among = " and ".join(classes) if len(classes) == 2 else f"{len(classes)} classes"
    score, size = share(headline, model[headline.key]), formats.megabytes(model["megabytes"])
    if headline.key == "accuracy":
        return (
            f"The model of this run, the {model_name}, tells {among} apart on {score} of "
            f"{evidence.comparison['rows']:,} test rows and takes {size} MB."
        )
    return (
        f"The model of this run, the {model_name} for {evidence.task.name}, comes to {score} {headline.name} on "
        f"{evidence.comparison['rows']:,} test rows and takes {size} MB."
    )


def tiles(evidence: Evidence, confidence: str) -> Iterator[dict[str, str]]:
    """The few numbers at the top."""
    model, teacher = evidence.models[evidence.released], evidence.models["teacher"]
    headline = evidence.headline
    key = headline.key
    yield {
        "value": share(headline, model[key]),
        "label": f"{headline.name}; {confidence} interval {span(headline, model[f'{key}_ci'])}",
    }
    if teacher[key] > 0:
        yield {
            "value": f"{100 * model[key] / teacher[key]:.1f}%",
            "label": f"of the teacher's {headline.name} ({share(headline, teacher[key])})",
        }
    for ratio, words in (
        ("size", f"smaller: {formats.megabytes(model['megabytes'])} MB for {formats.megabytes(teacher['megabytes'])}"),
        ("latency", f"faster for one text: {_ms(model)} for {_ms(teacher)}"),
        ("throughput", "the teacher's throughput in batches"),
    ):
        if model["ratios"][ratio]:
            yield {"value": f"{model['ratios'][ratio]:.1f}×", "label": words}


def _ms(model: Mapping[str, Any]) -> str:
    return f"{formats.figure(model['latency_p50_ms'])} ms"


def export(evidence: Evidence) -> Iterator[str]:
    """How faithful the exported files are."""
    parity = evidence.export.get("onnx", {}).get("parity")
    if parity:
        yield (
            f"The ONNX file gives the fine-tuned student's logits to within {parity['largest_difference']:.2g} on all "
            f"{parity['rows']:,} test rows."
        )
    chosen = evidence.export.get("int8", {}).get("chosen")
    tried = evidence.export.get("int8", {}).get("tried", {})
    key = evidence.headline.key
    if all(key in tried.get(name, {}) for name in (chosen, "float")):
        if chosen == "float":
            best = max(tried[name][key] for name in tried if name != "float")
            yield (
                f"As int8 the model lost more than export.tolerance on the validation rows ({evidence.headline.name} "
                f"{share(evidence.headline, best)} for {share(evidence.headline, tried['float'][key])} in float32), so "
                "the float32 file stands in for it."
            )
            return
        scores = [share(evidence.headline, tried[name][key]) for name in (chosen, "float")]
        yield (
            f"For int8 the weights' scales {chosen.replace('_', ' ')} were taken, by the validation rows: "
            f"{evidence.headline.name} {scores[0]} for {scores[1]} in float32."
        )


def fronts(evidence: Evidence) -> Iterator[str]:
    """Which models are worth having, in words."""
    from flows.reporting.pareto import COSTS, front

    for cost, (words, unit) in COSTS.items():
        names = front(evidence.models, cost, evidence.headline.key)
        if len([model for model in evidence.models.values() if model.get(cost) is not None]) > 1:
            listed = ", ".join(
                f"{one_line(evidence.titles[name])} ({_score(evidence, name)}, "
                f"{formats.figure(evidence.models[name][cost])} {unit})"
                for name in names
            )
            yield f"On the front by {words.split(' in ')[0]}: {listed}."


def _score(evidence: Evidence, name: str) -> str:
    return share(evidence.headline, evidence.models[name][evidence.headline.key])


def cost(evidence: Evidence) -> Iterator[str]:
    """What is known of the whole, in sentences."""
    outcomes: dict[str, list[str]] = {}
    for stage in evidence.stages:
        if stage.outcome:
            outcomes.setdefault(stage.outcome, []).append(stage.name)
    if outcomes:
        told = "; ".join(f"{outcome}: {_listed(names)}" for outcome, names in outcomes.items())
        yield f"In this run: {told}."
    threads = evidence.params.runtime.threads
    known = sum(stage.seconds or 0.0 for stage in evidence.stages)
    if known:
        yield (
            f"All stages from nothing take {formats.duration(known)} here one after another, on "
            f"{evidence.params.runtime.device} with {threads} thread{'s' * (threads != 1)} a stage; "
            f"{known * threads / 3600:.2f} thread hours at most."
        )
    unknown = [stage.name for stage in evidence.stages if stage.seconds is None]
    if unknown:
        yield f"Not known on this machine: how long {_listed(unknown)} would take."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"
