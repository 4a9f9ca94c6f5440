"""A model that reads pairs, as MLflow keeps it: pairs in every form, and mistakes said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from components.errors import UserError
from components.ml.models.scoring import load_classifier, predict_logits
from flows.tracking import models
from flows.tracking.predictor import Predictor

PAIRS = [("good phone", "这个手机很好"), ("bad", "awful film " * 30), ("", "story")]
RUN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("paired") / "source"
    torch.manual_seed(2)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(source: Path) -> Path:
    folder = source.with_name("saved")
    logged: Any = SimpleNamespace(artifact_location=str(folder), model_id=f"m-{RUN}")
    models.save(folder, source, 32, ["text", "text_pair"], logged, RUN)
    return folder


@pytest.fixture(scope="module")
def loaded(saved: Path) -> Any:
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(saved))


def test_pairs_come_in_every_form_and_give_the_logits_of_the_evaluation(loaded: Any, source: Path) -> None:
    expected = predict_logits(*load_classifier(source), PAIRS, max_length=32)
    first, second = ([pair[place] for pair in PAIRS] for place in (0, 1))
    rows = [{"text": text, "text_pair": pair} for text, pair in PAIRS]
    for given in (
        pd.DataFrame({"id": [1, 2, 3], "text_pair": second, "text": first}),
        pd.DataFrame(PAIRS),
        {"text": first, "text_pair": second},
        rows,
        [list(pair) for pair in PAIRS],
    ):
        found = loaded.predict(given, params={"return": "logits"}).to_numpy()
        assert np.allclose(found, expected, atol=1e-5)


def test_a_predictor_knows_that_it_reads_pairs(saved: Path, source: Path) -> None:
    predictor = Predictor(str(saved), "version 3")
    assert predictor.paired
    labels, logits = predictor(PAIRS)
    assert labels == ["LABEL_0", "LABEL_1"]
    assert np.allclose(logits, predict_logits(*load_classifier(source), PAIRS, max_length=32), atol=1e-5)
    assert predictor([])[1].shape == (0, 2)
    with pytest.raises(UserError, match=r"version 3 reads pairs of texts; got single texts"):
        predictor(["a text"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a text"], "expected pairs of texts; number 0"),
        ([["a", "b"], ["a", "b", "c"]], "expected pairs of texts; number 1"),
        ({"text": ["a"]}, "expected 'text_pair'; got 'text'"),
        ({"text": ["a"], "text_pair": ["b", "c"]}, "expected as many text as text_pair; got 1 and 2"),
        (pd.DataFrame({"text": ["a"]}), "expected the columns 'text', 'text_pair', each once"),
        ([{"text": "a"}], "expected texts; number 0, counted from 0, is None"),
        ([["a", 7]], "expected texts; number 0, counted from 0, is 7"),
    ],
)
def test_what_is_no_pair_of_texts_is_refused(loaded: Any, given: Any, said: str) -> None:
    with pytest.raises(MlflowException, match=said) as caught:
        loaded.predict(given)
    assert caught.value.get_http_status_code() == 400
