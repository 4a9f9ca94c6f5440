"""The model registry: one version for each distinct content, the newest publication under the alias ``candidate``."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.tracking import cards
from flows.tracking.record import ModelRecord, PipelineRecord
from flows.tracking.runs import CONTENT

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIAS = "candidate"
PARENT = "stillhouse.parent_run"
_LINK = "mlflow.modelVersions"  # where MLflow's pages look for a logged model's versions


@dataclass(frozen=True)
class Origin:
    """Where a version comes from in MLflow: the ids of the model's run, the logged model, the pipeline's run and the
    experiment."""

    run: str
    model: str
    parent: str
    experiment: str


def register(client: MlflowClient, record: PipelineRecord, model: ModelRecord, origin: Origin) -> str:
    """The version of the registered model that holds this content, made if it is missing; the alias points to it."""
    name = record.registered_model
    _ensure_name(client, name)
    found = client.search_model_versions(f"name = '{name}' and tags.`{CONTENT}` = '{model.content}'")
    version = str(found[0].version) if found else _create(client, record, model, origin)
    _link(client, origin.model, name, version)
    if aliases(client, name).get(ALIAS) != version:
        client.set_registered_model_alias(name, ALIAS, version)
    _tell(client, name, version, cards.about(record, model, origin.experiment))
    return version


def _tell(client: MlflowClient, name: str, version: str, about: str) -> None:
    """Keep what the version's page says, and say it; where another run had made the version, that one stays named."""
    known = client.get_model_version(name, version).tags.get(cards.ABOUT)
    if known is None or json.loads(known)["figures"] != json.loads(about)["figures"]:
        figures = {**json.loads(about), **json.loads(known or "{}"), "figures": json.loads(about)["figures"]}
        client.set_model_version_tag(name, version, cards.ABOUT, json.dumps(figures, ensure_ascii=False))
    cards.refresh(client, name)


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """The version that each alias of a registered model is on; none where there is no such model."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {alias: str(version) for alias, version in found.items()}  # a number over SQL, text over HTTP


def _ensure_name(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name)


def _create(client: MlflowClient, record: PipelineRecord, model: ModelRecord, origin: Origin) -> str:
    tags = {
        CONTENT: model.content,
        "stillhouse.version": model.version,
        "stillhouse.data": record.data_hash,
        PARENT: origin.parent,
        "mlflow.source.git.commit": record.git_commit,
    }
    with _global_address(client.tracking_uri):
        created = client.create_model_version(
            record.registered_model,
            source=f"models:/{origin.model}",
            run_id=origin.run,
            model_id=origin.model,
            tags=tags,
        )
    return str(created.version)


def _link(client: MlflowClient, model_id: str, name: str, version: str) -> None:
    """Tell the logged model which versions it has."""
    known = json.loads(client.get_logged_model(model_id).tags.get(_LINK, "[]"))
    entry = {"name": name, "version": version}
    if not any({**item, "version": str(item["version"])} == entry for item in known):
        client.set_logged_model_tags(model_id, {_LINK: json.dumps([*known, entry])})


@contextlib.contextmanager
def _global_address(uri: str) -> Iterator[None]:
    """Make ``uri`` MLflow's process-wide address for a moment.

    The SQL store resolves ``models:/ID`` through it. Setting it also sets MLFLOW_TRACKING_URI, which is put back.
    """
    import mlflow
    from mlflow.tracking._tracking_service import utils

    before, environment = utils._tracking_uri, os.environ.get("MLFLOW_TRACKING_URI")
    try:
        mlflow.set_tracking_uri(uri)
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None means: not set
        if environment is not None:
            os.environ["MLFLOW_TRACKING_URI"] = environment
