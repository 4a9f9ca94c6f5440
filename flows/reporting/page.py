"""The report: one HTML page that needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from components.ml.tasks.task import Metric
from components.plots import validated
from flows import compare
from flows.gating import report as decisions
from flows.markup import one_line
from flows.reporting import formats, words
from flows.reporting.disagreements import Disagreement, Row
from flows.reporting.evidence import Evidence
from flows.reporting.plates import Plate, drawing
from flows.tracking.headline import beside, has_right_rows

MOST_COLUMNS, MOST_CLASSES = 8, 12
PLATES = ("pareto", "groups", "gains", "confusions", "reliability", "training")


def render(evidence: Evidence, commands: str) -> str:
    """The page.

    Args:
        evidence: what it tells.
        commands: how to make the results again.
    """
    css = Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))  # ours, so no escaping
    template = formats.environment().get_template("page.html.j2")
    return template.render(e=evidence, p=_told(evidence), f=_plates(evidence), css=css, commands=commands)


def _plates(evidence: Evidence) -> dict[str, list[Plate]]:
    """The figures; those that can't be made are missing, and the page says so."""
    from flows.reporting import figures, pareto

    make: dict[str, Callable[[], Iterable[Plate | None]]] = {
        "pareto": lambda: [pareto.pareto(evidence, cost) for cost in pareto.COSTS],
        "groups": lambda: figures.groups(evidence),
        "gains": lambda: [figures.gains(words.gain_lines(evidence), evidence.headline)],
        "confusions": lambda: figures.confusions(evidence),
        "reliability": lambda: figures.reliability(evidence),
        "training": lambda: figures.training(evidence),
    }
    with drawing():
        return {name: [plate for plate in make[name]() if plate] for name in PLATES}


def _told(evidence: Evidence) -> dict[str, Any]:
    """All that the template writes and that has to be worked out first."""
    comparison, confidence = evidence.comparison, f"{100 * evidence.comparison['confidence']:.4g}%"
    of_groups = list(evidence.models["teacher"]["groups"])
    shown = sorted(of_groups, key=lambda name: name != comparison["target_group"])[:MOST_COLUMNS]
    gained = words.gain_lines(evidence)
    return {
        "title": words.title(evidence),
        "lead": words.lead(evidence),
        "tiles": list(words.tiles(evidence, confidence)),
        "verdicts": compare.verdicts(comparison),
        "confidence": confidence,
        "metrics": list(_metrics(evidence)),
        "but": compare.as_measured(comparison),
        "calibrated": any("ece" in model for model in evidence.models.values()),
        "details": [found for name in _released_first(evidence) if (found := _details(evidence, name))],
        "measured": validated(evidence.task),
        "right": has_right_rows(evidence.task),
        "export": list(words.export(evidence)),
        "fronts": list(words.fronts(evidence)),
        "groups": shown if len(of_groups) > 1 else [],
        "groups_note": f" {len(of_groups) - len(shown)} more groups stand in metrics.json."
        if len(of_groups) > len(shown)
        else "",
        "gains": gained,
        "one_seed": any(gain.get("seeds") == 1 for _, gain in gained),
        "matrices": list(_matrices(evidence)),
        "bins": [
            (one_line(evidence.titles[name]), *bin) for name, bins in evidence.reliability.items() for bin in bins
        ],
        "marks": list(_marks(evidence)),
        "pairs": [_pair(evidence, found) for found in evidence.disagreements],
        "phases": [(stage.name, phase) for stage in evidence.stages for phase in stage.phases],
        "link": _web_link(evidence.origin.url),
        "registered": words.registered(evidence),
        "base": f"{evidence.params.card.base_model or evidence.params.teacher.base} "
        f"({evidence.params.card.base_licence or evidence.base_licence or 'licence not stated'})",
        "runtime": ", ".join(f"{name} {version}" for name, version in evidence.runtime.items()) or "not recorded",
        "seconds": sum(stage.seconds or 0.0 for stage in evidence.stages) or None,
        "size": sum(stage.size or 0 for stage in evidence.stages) or None,
        "cost": list(words.cost(evidence)),
        **_decision(evidence),
        **_data(evidence),
    }


def _metrics(evidence: Evidence) -> Iterator[Metric]:
    """What the table of models has columns for."""
    yield evidence.headline
    for metric in beside(evidence.task):
        if any(metric.key in model for model in evidence.models.values()):
            yield metric


def _released_first(evidence: Evidence) -> list[str]:
    return sorted(evidence.models, key=lambda name: name != evidence.released)


def _details(evidence: Evidence, name: str) -> dict[str, Any] | None:
    """A model's scores by type, as a table; None where there are none."""
    details = evidence.models[name].get("details")
    if not details:
        return None
    keys = list(dict.fromkeys(key for scores in details.values() for key in scores))
    return {
        "title": one_line(evidence.titles[name]),
        "keys": keys,
        "lines": [
            (kind, ["–" if key not in scores else _figure(scores[key]) for key in keys])
            for kind, scores in details.items()
        ],
    }


def _figure(value: float) -> str:
    """How many there are, or a share in per cent."""
    return f"{value:,}" if isinstance(value, int) else formats.percent(value)


def _web_link(url: str | None) -> str | None:
    """The address, if it is one of the web's: no other belongs in a link."""
    return url if url and url.startswith(("http://", "https://")) else None


def _matrices(evidence: Evidence) -> Iterator[tuple[str, str, Sequence[int]]]:
    """Model, actual class, and how many rows were predicted as each class; nothing where there are too many."""
    if len(evidence.labels) <= MOST_CLASSES:
        for name, matrix in evidence.confusions.items():
            for label, rows in zip(evidence.labels, matrix, strict=True):
                yield one_line(evidence.titles[name]), label, rows


def _marks(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """What was measured on the validation rows, with the training loss told last before."""
    key = f"eval_{validated(evidence.task).key}"
    for name, history in evidence.histories.items():
        trained = None
        for line in history:
            trained = line.get("loss", trained)
            if key in line:
                yield {
                    "name": one_line(evidence.titles[name]),
                    "phase": line.get("phase", ""),
                    "step": line["step"],
                    "trained": trained,
                    "loss": line.get("eval_loss"),
                    "score": line[key],
                }


def _pair(evidence: Evidence, found: Disagreement) -> dict[str, Any]:
    """Two models' disagreements, in words and lists."""
    first, second = (one_line(evidence.titles[name]) for name in found.models)
    alone = {
        "first": f"only the {first} is right",
        "second": f"only the {second} is right",
        "neither": "both are wrong",
    }
    told = ", ".join(f"on {found.counts[kind]:,} {words}" for kind, words in alone.items() if found.counts[kind])
    share = found.differ / found.rows if found.rows else 0.0
    return {
        "title": f"{first[0].upper()}{first[1:]} and {second}",
        "summary": f"They differ on {found.differ:,} of {found.rows:,} test rows ({share:.1%})"
        + (f": {told}." if told else "."),
        "first": first,
        "second": second,
        "lists": [
            {
                "caption": f"{alone[kind][0].upper()}{alone[kind][1:]}: {_chosen(rows, found.counts[kind])}",
                "rows": rows,
            }
            for kind, rows in found.shown.items()
        ],
    }


def _chosen(rows: Sequence[Row], of: int) -> str:
    if all(confidence is None for row in rows for confidence in row.confidences):
        return f"the first {len(rows)} of {of:,} rows."
    return f"the {len(rows)} of {of:,} rows with the most confident mistake."


def _decision(evidence: Evidence) -> dict[str, Any]:
    if evidence.decision is None:
        return {"headline": "", "refused": False}
    headline = decisions.sentences(evidence.decision)[0]
    return {"headline": headline, "refused": "not promoted" in headline}


def _data(evidence: Evidence) -> dict[str, Any]:
    """What the template says of the data and of its gate."""
    gate = evidence.data_gate
    if gate is None:
        return {}
    failing = [rule for rule in gate["rules"] if rule["passed"] is False]
    errors = [rule for rule in failing if rule["severity"] == "error"]
    said = "The data gate found errors." if errors else "The data passed with warnings." if failing else None
    columns = list(_columns(gate["summary"]))
    more = len(columns) - MOST_COLUMNS
    return {
        "gate_kind": "bad" if errors else "" if failing else "good",
        "gate_said": f"{said or 'The data passed the gate: every rule is kept.'} ",
        "findings": words.findings(evidence),
        "shares": columns[:MOST_COLUMNS],
        "shares_note": f" {more} more classes and groups stand in the gate's page." if more > 0 else "",
        "cut": words.cut(gate["summary"]["max_length"], evidence.params.data.windows.stride),
        "rules": [_rule(rule) for rule in gate["rules"]],
    }


def _columns(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Classes and groups, each named once; one group alone is none."""
    for kind, table in (("class", summary["classes"]), ("group", summary["groups"])):
        names = list(dict.fromkeys(name for counts in table.values() for name in counts if name))
        yield from ((kind, name) for name in names if len(names) > 1)


def _rule(rule: Mapping[str, Any]) -> dict[str, str]:
    kind = "good" if rule["passed"] else "bad" if rule["passed"] is False else ""
    verdict = "kept" if rule["passed"] else rule["severity"] if rule["passed"] is False else "does not apply"
    broken = [f"{check['split']} {check['failing']:,}" for check in rule["checks"] if check["failing"]]
    return {
        "name": rule["rule"],
        "kind": kind,
        "verdict": "off" if rule["severity"] == "off" else verdict,
        "bound": ", ".join(f"{name} {value:g}" for name, value in rule["bound"].items()),
        "observed": "" if rule["observed"] is None else f"{rule['observed']:.4g}",
        "broken": ", ".join(broken),
    }
