"""What a registered model's pages say: what each version is, where it came from, why it was promoted or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.ml.tasks.table import DEFAULT, TASKS
from flows.markup import markdown
from flows.tracking.record import ModelRecord, PipelineRecord, figures

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ABOUT = "stillhouse.about"
DECISION = "stillhouse.decision"
ALIASES = ("candidate", "champion", "previous")
_INTRODUCTION = (
    "Small {} made by Stillhouse; `candidate` is the newest, `champion` the one that was promoted, "
    "`previous` the one before it."
)
_LONGEST = 5000  # characters that MLflow's databases keep of a description
_LISTED = 15  # the newest versions in the overview, beside those with an alias


def about(record: PipelineRecord, model: ModelRecord, experiment: str) -> str:
    """What the tag ``ABOUT`` keeps of a version, for its card."""
    return json.dumps(
        {
            "title": model.shown,
            "figures": figures(model.metrics, TASKS[record.task]),
            "task": record.task,
            "pipeline": record.name,
            "experiment": experiment,
            "components": dict(record.versions),
        },
        ensure_ascii=False,
    )


def refresh(client: MlflowClient, name: str) -> None:
    """Write the descriptions of the registered model and its versions anew, where they say anything else."""
    model = client.get_registered_model(name)
    aliases = {alias: str(number) for alias, number in model.aliases.items()}
    found = sorted(
        client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version), reverse=True
    )
    for version in found:  # an old one may just have lost its alias
        card = _card(version, _aliases_of(version, aliases))
        if card and version.description != card:
            client.update_model_version(name, str(version.version), card)
    overview = _overview(found, aliases)
    if model.description != overview:
        client.update_registered_model(name, overview)


def _aliases_of(version: ModelVersion, aliases: Mapping[str, str]) -> list[str]:
    return [alias for alias in ALIASES if aliases.get(alias) == str(version.version)]


def _card(version: ModelVersion, aliases: Sequence[str]) -> str | None:
    """The description of a version; None for one that Stillhouse doesn't know."""
    told = _json(version, ABOUT)
    if told is None:
        return None
    tags = version.tags
    runs = f"#/experiments/{told['experiment']}/runs"
    rows = {
        "pipeline run": f"[{markdown(told['pipeline'])}]({runs}/{tags.get('stillhouse.parent_run')})",
        "model's run": f"[{markdown(told['title'])}]({runs}/{version.run_id})",
        "data": f"`{tags.get('stillhouse.data', 'unknown')}`",
        "git commit": f"`{tags.get('mlflow.source.git.commit', 'unknown')}`",
        "component versions": ", ".join(f"{stage} {number}" for stage, number in told["components"].items()),
        "content": f"`{tags.get('stillhouse.content', 'unknown')}`",
    }
    head = f"{markdown(told['title'])}: {told['figures']}."
    table = ["| came from | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join([head, "", *_decided(_json(version, DECISION), aliases), "", *table])[:_LONGEST]


def _decided(decision: Mapping[str, Any] | None, aliases: Sequence[str]) -> list[str]:
    """Why the version was promoted, or wasn't."""
    state = f" It is the {' and the '.join(aliases)} now." if aliases else ""
    if decision is None:
        return [f"**Not decided yet.**{state}"]
    said = "Promoted" if decision.get("promoted") else "Not promoted"
    head = f"**{said}** ({decision.get('outcome')}, {str(decision.get('time'))[:16].replace('T', ' ')} UTC).{state}"
    return [head, "", *(f"- {markdown(reason)}" for reason in decision.get("reasons", []))]


def _overview(versions: Sequence[ModelVersion], aliases: Mapping[str, str]) -> str:
    """The description of the registered model: a line for each version with an alias and for each of the newest."""
    with_alias = set(aliases.values())
    older = [version for version in versions[_LISTED:] if str(version.version) in with_alias]
    listed = [*versions[:_LISTED], *older]
    lines = {str(version.version): line for version in listed if (line := _line(version, aliases))}
    introduction = _INTRODUCTION.format(_kind(versions))
    for number in [number for number in reversed(lines) if number not in with_alias]:
        if len(_joined(introduction, lines)) > _LONGEST:
            del lines[number]
    return _joined(introduction, lines)[:_LONGEST]


def _joined(introduction: str, lines: Mapping[str, str]) -> str:
    return "\n".join([introduction, "", *lines.values()]).strip()


def _kind(versions: Sequence[ModelVersion]) -> str:
    """What the versions are, by the newest that says so."""
    told = next((found for version in versions if (found := _json(version, ABOUT))), {})
    task = told.get("task", DEFAULT)
    return "text classifiers" if task == DEFAULT else f"models for {task}"


def _line(version: ModelVersion, aliases: Mapping[str, str]) -> str | None:
    told, now = _json(version, ABOUT), ", ".join(_aliases_of(version, aliases))
    if told is None:
        return None
    name = f"**Version {version.version}**{f' ({now})' if now else ''}"
    title, pipeline = markdown(told["title"]), markdown(told["pipeline"])
    return f"- {name}: {title}, {told['figures']}; {_outcome(version)}; run {pipeline}."


def _outcome(version: ModelVersion) -> str:
    decision = _json(version, DECISION)
    if decision is None:
        return "not decided yet"
    return f"{'promoted' if decision.get('promoted') else 'not promoted'}: {decision.get('outcome')}"


def _json(version: ModelVersion, tag: str) -> dict[str, Any] | None:
    try:
        found = json.loads(version.tags.get(tag, "null"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
