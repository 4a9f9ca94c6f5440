"""The model card: metadata that the hub can read, what people state, and honest words where they don't."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.params.card import Card
from flows.repo.workspace import Workspace
from flows.reporting.card import render
from flows.reporting.evidence import Evidence

Gather = Callable[..., Evidence]


def head(card: str) -> dict[str, Any]:
    return dict(YAML(typ="safe").load(card.split("---\n")[1]))


def test_the_metadata_is_what_the_hub_reads(evidence: Gather) -> None:
    stated = Card(language=["zh"], licence="Apache-2.0", base_model="some/encoder")
    found = head(render(evidence(card=stated), ""))
    assert found["language"] == ["zh"]
    assert (found["license"], found["base_model"]) == ("apache-2.0", "some/encoder")
    assert (found["library_name"], found["pipeline_tag"]) == ("transformers", "text-classification")
    (model,) = found["model-index"]
    places = [result["dataset"]["name"] for result in model["results"]]
    assert places == ["all test rows", "products", "推文<i>"]
    assert model["results"][0]["metrics"][0] == {"type": "accuracy", "name": "Accuracy", "value": 0.84}


@pytest.mark.parametrize(
    ("licence", "found"),
    [
        (None, {"license": "unknown"}),
        ("Our: own\nlicence", {"license": "other", "license_name": "Our: own licence"}),
    ],
)
def test_a_licence_that_has_no_short_name_goes_by_its_own(
    evidence: Gather, licence: str | None, found: dict[str, str]
) -> None:
    assert found.items() <= head(render(evidence(card=Card(licence=licence)), "")).items()


def test_what_nobody_stated_is_said_to_be_not_stated(evidence: Gather) -> None:
    card = render(evidence(), "")
    for line in ("## Intended use\n\nNot stated.", "| This model | Not stated. |", "| Data | Not stated. |"):
        assert line in card
    assert "## Contact\n\nNot stated." in card
    assert "base_model" not in head(card)


def test_names_of_the_data_are_no_markup(evidence: Gather) -> None:
    body = render(evidence(), "").split("---\n", 2)[2]
    assert "| 推文&lt;i&gt; | 3 | 74.0 (72.0 to 76.0) |" in body
    assert r"好\|&lt;b&gt;" in body
    assert "<" not in body


def test_the_card_tells_version_decision_limits_and_lineage(evidence: Gather) -> None:
    card = render(evidence(), "")
    assert "# stillhouse-sentiment, version 3" in card
    assert "Promoted: version 3 is the champion." in card
    assert "It is weakest on" in card
    assert "Its most frequent mistake takes negative for" in card
    assert "| Commit | c0ffee, kept as refs/stillhouse/0123456789 |" in card
    assert "- duplicates: 3 rows repeat &lt;others&gt;" in card


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("README.md", "---\nlanguage: en\nlicense: mit\n---\n# License: none\n", "mit"),
        ("README.md", "# A model\nlicense: mit\n", "Not stated."),
        ("LICENSE", "\n  MIT License\n\nCopyright\n", "MIT License"),
    ],
)
def test_the_base_licence_is_the_one_that_its_folder_states(
    workspace: Workspace, evidence: Gather, name: str, text: str, told: str
) -> None:
    folder = workspace.root / "data/base_model"
    folder.mkdir(parents=True)
    (folder / name).write_text(text, encoding="utf-8")
    assert rf"| Base model | data/base\_model: {told} |" in render(evidence(), "")
    assert r"| Base model | data/base\_model: gpl |" in render(evidence(card=Card(base_licence="gpl")), "")
