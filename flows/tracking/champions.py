"""The champion of a registered model: the aliases `champion` and `previous`, and what was decided of each version."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from flows.tracking import cards, predictor, registry, runs, store
from flows.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CANDIDATE, CHAMPION, PREVIOUS = registry.ALIAS, "champion", "previous"
DECISION = cards.DECISION
_LONGEST = 5000  # characters of a tag: older servers take no more
_MOST_REASONS = 5


@dataclass(frozen=True)
class Version:
    """A version of the registered model, the hash of its content, the run it came from, and its newest decision."""

    number: str
    content: str | None
    run: str | None
    decision: Mapping[str, Any] | None
    aliases: tuple[str, ...]


class Champions:
    """The versions of one registered model; every call asks MLflow anew.

    Raises, in every call:
        UserError: MLflow can't be used (``tracking``).
    """

    def __init__(self, tracker: Tracker, name: str) -> None:
        self.tracker = tracker
        self.name = name

    @contextlib.contextmanager
    def _client(self) -> Iterator[MlflowClient]:
        with store.readable(store.tracking_uri(self.tracker.root)):
            yield self.tracker.client

    def versions(self) -> list[Version]:
        """All versions, the newest first."""
        with self._client() as client:
            placed = registry.aliases(client, self.name)
            found = client.search_model_versions(f"name = '{self.name}'")
        made = [_version(version, placed) for version in found]
        return sorted(made, key=lambda version: int(version.number), reverse=True)

    def on(self, alias: str) -> Version | None:
        """The version that an alias is on."""
        return next((version for version in self.versions() if alias in version.aliases), None)

    @contextlib.contextmanager
    def loaded(self, version: Version) -> Iterator[predictor.Predictor]:
        """The model of a version.

        Raises:
            UserError: its files are gone, or no longer work (``model``).
        """
        with contextlib.ExitStack() as stack:
            with self._client() as client:
                place = self._place(client, version)
                path = stack.enter_context(predictor.downloaded(client, place))
            yield predictor.Predictor(path, f"version {version.number}")

    def check_files(self, version: Version) -> None:
        """See to it that the version's files are there.

        Raises:
            UserError: they are gone (``model``).
        """
        with self._client() as client:
            self._place(client, version)

    def _place(self, client: MlflowClient, version: Version) -> str:
        import mlflow.artifacts

        place = client.get_model_version_download_uri(self.name, version.number)
        files = mlflow.artifacts.list_artifacts(artifact_uri=place, tracking_uri=client.tracking_uri)
        if not any(file.path.split("/")[-1] == "MLmodel" for file in files):
            raise UserError(
                f"The files of version {version.number} of '{self.name}' are gone from {store.shown(place)}.",
                "Put them back from a copy, or name another version: `stillhouse decisions` lists them.",
                "model",
            )
        return place

    def tell(self, version: Version, decision: Mapping[str, Any]) -> None:
        """Keep what was decided of a version, in its tag, and say it on its page."""
        with self._client() as client:
            client.set_model_version_tag(self.name, version.number, DECISION, _text(decision))
            cards.refresh(client, self.name)

    def tell_run(self, run: str | None, decision: Mapping[str, Any]) -> None:
        """Keep what was decided in the tag of the run that led to it, unless the run is gone."""
        from mlflow.exceptions import MlflowException

        with self._client() as client:
            try:
                if run:
                    runs.describe(client, run, {DECISION: _text(decision)})
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE"):
                    raise

    def promote(self, version: Version, instead_of: str | None) -> None:
        """Make a version the champion, and the champion before it ``previous``; twice is as good as once.

        Args:
            instead_of: the champion's number as it was when this was decided.

        Raises:
            UserError: another version has become champion since (``busy``).
        """
        with self._client() as client:
            now = registry.aliases(client, self.name).get(CHAMPION)
            if now == version.number:
                return
            if now != instead_of:
                raise UserError(
                    f"Version {now} of '{self.name}' has become champion while version {version.number} was compared "
                    f"with {instead_of or 'none'}.",
                    "Run again: `stillhouse run`.",
                    "busy",
                )
            if now:
                client.set_registered_model_alias(self.name, PREVIOUS, now)
            client.set_registered_model_alias(self.name, CHAMPION, version.number)
            cards.refresh(client, self.name)

    def settle(self) -> None:
        """Undo half a promotion that nobody came back to: ``previous`` on the champion itself.

        The version before the champion is the one that its decision names.
        """
        champion = self.on(CHAMPION)
        if champion is None or PREVIOUS not in champion.aliases:
            return
        before = ((champion.decision or {}).get("champion") or {}).get("version")
        there = {version.number for version in self.versions()}
        with self._client() as client:
            if before in there and before != champion.number:
                client.set_registered_model_alias(self.name, PREVIOUS, str(before))
            else:
                client.delete_registered_model_alias(self.name, PREVIOUS)

    def to_roll_back(self) -> tuple[Version | None, Version]:
        """The champion and the one before it, whose files are there.

        Raises:
            UserError: there is no previous champion (``nothing``), or its files are gone (``model``).
        """
        champion, previous = self.on(CHAMPION), self.on(PREVIOUS)
        if previous is None or (champion and champion.number == previous.number):
            raise UserError(
                f"'{self.name}' has no previous champion to roll back to.",
                "Name a version: `stillhouse promote VERSION`; `stillhouse decisions` lists them.",
                "nothing",
            )
        self.check_files(previous)
        return champion, previous

    def roll_back(self, previous: Version, instead_of: str | None) -> None:
        """Make the previous champion the champion again; there is none before it then.

        Args:
            instead_of: the champion's number as it was when this was decided.

        Raises:
            UserError: another version has become champion since (``busy``).
        """
        with self._client() as client:
            now = registry.aliases(client, self.name).get(CHAMPION)
            if now != instead_of:
                raise UserError(
                    f"Version {now} of '{self.name}' has become champion while version {instead_of or 'none'} was "
                    "taken back.",
                    "Look at `stillhouse decisions`, and call it again if that one is to go.",
                    "busy",
                )
            client.set_registered_model_alias(self.name, CHAMPION, previous.number)
            client.delete_registered_model_alias(self.name, PREVIOUS)
            cards.refresh(client, self.name)


def _version(found: ModelVersion, placed: Mapping[str, str]) -> Version:
    number, tags = str(found.version), dict(found.tags)
    try:
        decision = json.loads(tags.get(DECISION, "null"))
    except ValueError:
        decision = None
    return Version(
        number=number,
        content=tags.get(runs.CONTENT),
        run=tags.get(registry.PARENT),
        decision=decision if isinstance(decision, dict) else None,
        aliases=tuple(sorted(alias for alias, version in placed.items() if version == number)),
    )


def _text(decision: Mapping[str, Any]) -> str:
    """The decision as JSON that fits into a tag; the JSON file has all of it."""
    text = json.dumps(decision, ensure_ascii=False)
    if len(text) > _LONGEST:
        told = {**decision, "groups": {}, "reasons": [reason[:500] for reason in decision["reasons"][:_MOST_REASONS]]}
        text = json.dumps(told, ensure_ascii=False)
    return text
