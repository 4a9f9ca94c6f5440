"""What many tests need: a tiny random encoder with a Chinese-and-English tokenizer, and rows to train it on."""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from filelock import FileLock

from components.runtime import collect_rarely

# Before any library is imported: no network, no telemetry, one thread a process (tests run in parallel).
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    GX_ANALYTICS_ENABLED="false",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
)

collect_rarely()

GOOD = ["good", "great", "lovely", "好", "很", "棒"]
BAD = ["bad", "awful", "broken", "差", "坏", "糟"]
NEUTRAL = ["the", "phone", "film", "story", "was", "a", "it", "这", "个", "手", "机", "电", "影"]


LONGEST_FIRST = (
    "tests/end_to_end/test_pipeline.py",  # which makes the project that the others below wait for
    "tests/soak/",
    "tests/flows/sweeping/test_sweep.py",
    "tests/components/ml/tasks/test_models.py",
    "tests/end_to_end/",
    "tests/components/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes come first, so that no worker is left alone with one of them in the end."""

    def place(item: pytest.Item) -> int:
        first = (place for place, start in enumerate(LONGEST_FIRST) if item.nodeid.startswith(start))
        return next(first, len(LONGEST_FIRST))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """All that is imported by now lives on; transformers looks for garbage among it at each start of a training."""
    gc.freeze()


def pytest_runtest_call() -> None:
    """So does what earlier tests have imported."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Libraries count what they have lost when they go."""
    gc.unfreeze()


def make_texts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Distinct (text, label) pairs that a tiny model can learn; every third one is Chinese."""
    import random

    draw = random.Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < count:
        label = ("negative", "positive")[len(rows) % 2]
        words = draw.choices(NEUTRAL, k=draw.randint(2, 12)) + draw.choices(GOOD if label == "positive" else BAD, k=2)
        draw.shuffle(words)
        rows.setdefault(("" if len(rows) % 3 == 0 else " ").join(words), label)
    return list(rows.items())


def save_tiny_encoder(folder: Path, layers: int = 3, width: int = 16) -> Path:
    """A random BERT encoder without a head, and its WordPiece tokenizer, as a transformers folder."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *NEUTRAL]
    words += [f"##{word}" for word in words[5:]]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def write_split(folder: Path, rows: Sequence[tuple[str, int | None]], groups: Sequence[str] = ("a", "b")) -> Path:
    """A split as `validate` writes it: one Parquet shard of (text, class index) rows, the groups in turn."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    count = len(rows)
    table = pa.table(
        {
            "row": pa.array(range(count), pa.int64()),
            "text": pa.array([text for text, _ in rows], pa.string()),
            "label": pa.array([label for _, label in rows], pa.int32()),
            "group": pa.array([groups[index % len(groups)] for index in range(count)], pa.string()),
            "document": pa.array([f"d{index // 4}" for index in range(count)], pa.string()),
        }
    )
    pq.write_table(table, folder / "part-00000.parquet")
    return folder


def write_pairs(folder: Path, pairs: Sequence[tuple[str, str, int | None]]) -> Path:
    """A split of (text, second text, class index) rows, as `validate` writes it."""
    import pyarrow.parquet as pq

    write_split(folder, [(text, label) for text, _, label in pairs])
    path = folder / "part-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.add_column(2, "text_pair", [[second for _, second, _ in pairs]]), path)
    return folder


def write_tasks(folder: Path, texts: list[str]) -> None:
    """Topics by the first letter, and the tags of words that are good or bad."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {
        "topics": {"type": "text-classification", "labels": ["other", "start", "end"]},
        "entities": {"type": "token-classification", "labels": ["B", "O"]},
    }
    folder.mkdir()
    (folder / "tasks.json").write_text(json.dumps(about))
    for split, part in (("train", texts[:60]), ("validation", texts[60:80])):
        rows = pa.array(range(len(part)), pa.int64())
        topics = pa.array([index % 3 for index in range(len(part))], pa.int32())
        words = [text.split() for text in part]
        tags = pa.array([[int(word in ("good", "bad")) for word in line] for line in words], pa.list_(pa.int32()))
        tables = {
            "topics": pa.table({"row": rows, "text": part, "label": topics}),
            "entities": pa.table({"row": rows, "tokens": pa.array(words, pa.list_(pa.string())), "label": tags}),
        }
        for name, table in tables.items():
            (folder / name / split).mkdir(parents=True)
            pq.write_table(table, folder / name / split / "part-00000.parquet")


def lay_out_teacher(root: Path) -> None:
    """The code, and what the stage teacher reads, by name alone: enough to plan it, not to run it."""
    repository = Path(__file__).parents[1]
    shutil.copytree(repository / "components", root / "components", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(repository / "tests/params.yaml", root / "params.yaml")
    shutil.copyfile(repository / "runtime.json", root / "runtime.json")
    for name in ("train/a", "unlabelled/a", "validation/a", "tasks/tasks.json", "schema.json"):
        path = root / "artifacts/validate" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "data/base_model/deep").mkdir(parents=True)
    (root / "data/base_model/deep/weights").write_text("1234")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers have; whoever makes something in it holds a lock."""
    folder = tmp_path_factory.getbasetemp()
    return folder if worker_id == "master" else folder.parent


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Iterator[str]:
    """The address of a Prefect API: one for all that a worker runs, which would start one each."""
    from tests.servers import make_prefect_database, prefect_server

    new = shared_folder / "new_prefect"
    with FileLock(shared_folder / "new_prefect.lock"):
        if not new.exists():
            make_prefect_database(new)
    folder = tmp_path_factory.mktemp("prefect")
    shutil.copytree(new, folder / "prefect")
    with prefect_server(folder) as address:
        yield address


@pytest.fixture(scope="session")
def tiny_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two other tasks, topics and entities, as `validate` writes it."""
    folder = tmp_path_factory.mktemp("other") / "tasks"
    write_tasks(folder, [text for text, _ in make_texts(80, seed=1)])
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random encoder with three layers."""
    return save_tiny_encoder(tmp_path_factory.mktemp("model") / "base_model")


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random encoder with six layers, 24 wide, as the examples expect them."""
    return save_tiny_encoder(tmp_path_factory.mktemp("model") / "base_model", layers=6, width=24)


@pytest.fixture(scope="session")
def tiny_splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the splits train (120 rows), validation (24), test (40), unlabelled (30) of groups a and b."""
    folder = tmp_path_factory.mktemp("splits")
    rows = [(text, int(label == "positive")) for text, label in make_texts(214)]
    write_split(folder / "train", rows[:120])
    write_split(folder / "validation", rows[120:144])
    write_split(folder / "test", rows[144:184])
    write_split(folder / "unlabelled", [(text, None) for text, _ in rows[184:]])
    (folder / "schema.json").write_text('{"labels": ["negative", "positive"], "groups": ["a", "b"]}')
    (folder / "tasks").mkdir()
    (folder / "tasks" / "tasks.json").write_text("{}")
    return folder


def make_pairs(count: int, seed: int = 0) -> list[tuple[str, str, int]]:
    """Two texts each, and whether they praise or blame alike: neither of the two says it alone."""
    import random

    rows = make_texts(2 * count, seed)
    random.Random(seed).shuffle(rows)
    pairs = zip(rows[:count], rows[count:], strict=True)
    return [(text, other, int(label == like)) for (text, label), (other, like) in pairs]


@pytest.fixture(scope="session")
def paired_splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_splits`, of pairs: train (120 rows), validation (24), test (40), unlabelled (30)."""
    folder = tmp_path_factory.mktemp("paired")
    rows = make_pairs(214)
    write_pairs(folder / "train", rows[:120])
    write_pairs(folder / "validation", rows[120:144])
    write_pairs(folder / "test", rows[144:184])
    write_pairs(folder / "unlabelled", [(text, second, None) for text, second, _ in rows[184:]])
    (folder / "schema.json").write_text('{"labels": ["other", "alike"], "groups": ["a", "b"]}')
    (folder / "tasks").mkdir()
    (folder / "tasks" / "tasks.json").write_text("{}")
    return folder


@pytest.fixture(scope="session")
def texts() -> Callable[[int, int], list[tuple[str, str]]]:
    """`make_texts`, for tests that write files of their own."""
    return make_texts
