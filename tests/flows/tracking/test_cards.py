"""The descriptions of a registered model with more versions than its overview lists."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from mlflow import MlflowClient

from flows.tracking import cards
from flows.tracking.champions import Champions
from flows.tracking.tracker import Tracker

NAME, VERSIONS = "stillhouse", 20
ABOUT = {
    **{"title": "LoRA student", "figures": "87.0% accuracy", "pipeline": "2026-11-23 my_data [v1]", "experiment": "1"},
    "components": {"teacher": "1.0.0"},
}


@pytest.fixture
def many(make_tracker: Callable[[], Tracker]) -> Champions:
    """Twenty versions, of which the second is the champion."""
    tracker = make_tracker()
    client = tracker.client
    client.create_registered_model(NAME)
    for number in range(1, VERSIONS + 1):
        made = client.create_model_version(NAME, f"/models/{number}", tags={cards.ABOUT: json.dumps(ABOUT)})
        assert str(made.version) == str(number)
    champions = Champions(tracker, NAME)
    champions.promote(champions.versions()[-2], None)
    return champions


def card(client: MlflowClient, number: int) -> str:
    return str(client.get_model_version(NAME, str(number)).description)


def listed(client: MlflowClient) -> list[int]:
    text = str(client.get_registered_model(NAME).description)
    return [int(line.split("**")[1].split()[1]) for line in text.splitlines() if line.startswith("- ")]


def test_the_overview_lists_the_newest_versions_and_an_older_champion(many: Champions) -> None:
    client = many.tracker.client
    assert listed(client) == [*range(VERSIONS, VERSIONS - 15, -1), 2]
    assert "- **Version 2** (champion): LoRA student" in client.get_registered_model(NAME).description


def test_an_old_version_that_is_no_longer_the_champion_does_not_say_that_it_is(many: Champions) -> None:
    client = many.tracker.client
    assert "It is the champion now." in card(client, 2)
    newest, second = many.versions()[0], many.versions()[-2]
    many.promote(newest, second.number)
    assert "It is the champion now." in card(client, VERSIONS)
    assert "It is the previous now." in card(client, 2)
    many.promote(many.versions()[1], newest.number)
    assert "now." not in card(client, 2)
    assert 2 not in listed(client)


def test_a_long_overview_leaves_out_the_oldest_but_no_version_with_an_alias(many: Champions) -> None:
    client = many.tracker.client
    long = json.dumps(ABOUT | {"title": "student " * 60})
    for number in range(1, VERSIONS + 1):
        client.set_model_version_tag(NAME, str(number), cards.ABOUT, long)
    cards.refresh(client, NAME)
    found = listed(client)
    assert 2 < len(found) < 15
    assert found == [*range(VERSIONS, VERSIONS - len(found) + 1, -1), 2]
    assert len(client.get_registered_model(NAME).description) <= 5000


def test_reasons_and_names_are_no_markup(many: Champions) -> None:
    reason = "By hand: see [this](javascript:alert(1)) <b>now</b>\n# and `that`, my_group|x"
    decision = {"promoted": True, "outcome": "by hand", "reasons": [reason], "time": "2026-11-23T10"}
    many.tell(many.versions()[0], decision)
    text = card(many.tracker.client, VERSIONS)
    told = r"\[this\](javascript:alert(1)) &lt;b&gt;now&lt;/b&gt; \# and \`that\`, my\_group\|x"
    assert f"- By hand: see {told}\n" in text
    assert r"| pipeline run | [2026-11-23 my\_data \[v1\]](#/experiments/1/runs/" in text
    assert r"run 2026-11-23 my\_data \[v1\]." in many.tracker.client.get_registered_model(NAME).description
