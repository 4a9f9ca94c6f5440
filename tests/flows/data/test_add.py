"""Adding the user's own files: what is refused, what is replaced, and that a failure changes nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import UserError
from flows.data.add import add, suggest_section

Toy = Any
ROWS = "text,label\n这部电影很好,正面\n太差了,负面\n"


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "影评.csv"
    path.write_text(ROWS, encoding="utf-8")
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "bert-base-chinese"
    (folder / "checkpoint").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    for name in ("model.safetensors", "pytorch_model.bin", ".gitattributes"):
        (folder / name).write_bytes(b"x")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_file_is_copied_under_its_name_and_versioned(toy: Toy, csv: Path) -> None:
    before = toy.workspace.data_hash()
    assert add(toy.workspace, [csv]) == [toy.workspace.data / "影评.csv"]
    assert (toy.workspace.data / "影评.csv").read_text("utf-8") == ROWS
    assert csv.exists()
    toy.workspace.check_data()
    assert toy.workspace.data_hash() != before
    assert not (toy.root / "data.partial").exists()


def test_every_format_and_the_pool_are_taken(toy: Toy, csv: Path, tmp_path: Path) -> None:
    tsv, lines, parquet = tmp_path / "a.tsv", tmp_path / "b.ndjson", tmp_path / "c.parquet"
    tsv.write_text(ROWS.replace(",", "\t"), encoding="utf-8")
    lines.write_text(json.dumps({"text": "好", "label": "正面"}, ensure_ascii=False) + "\n", encoding="utf-8")
    pq.write_table(pa.table({"text": ["好"]}), parquet)
    targets = add(toy.workspace, [csv, tsv, lines], unlabelled=parquet)
    assert [target.name for target in targets] == ["影评.csv", "a.tsv", "b.ndjson", "c.parquet"]
    toy.workspace.check_data()


def test_a_folder_of_shards_keeps_its_names(toy: Toy, tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    for index in range(3):
        (folder / f"part-{index}.csv").write_text(ROWS, encoding="utf-8")
    (folder / "_SUCCESS").write_text("")
    (target,) = add(toy.workspace, [folder])
    assert sorted(path.name for path in target.iterdir()) == ["part-0.csv", "part-1.csv", "part-2.csv"]


def test_a_new_project_gets_its_data_dvc(new_toy: Toy, csv: Path) -> None:
    (new_toy.workspace.data / "rows.csv").unlink()
    new_toy.workspace.data.rmdir()
    add(new_toy.workspace, [csv])
    new_toy.workspace.check_data()


def test_a_file_of_the_same_name_is_replaced_and_the_old_one_stays_in_the_cache(toy: Toy, tmp_path: Path) -> None:
    old = (toy.root / "data.dvc").read_text()
    (tmp_path / "rows.csv").write_text(ROWS, encoding="utf-8")
    add(toy.workspace, [tmp_path / "rows.csv"])
    assert (toy.workspace.data / "rows.csv").read_text("utf-8") == ROWS
    (toy.root / "data.dvc").write_text(old)
    with toy.repo() as repo:
        repo.checkout(targets=[str(toy.root / "data.dvc")], force=True)
    assert "很好" in (toy.workspace.data / "rows.csv").read_text("utf-8")


def test_a_file_edited_in_place_is_versioned_as_it_stands(toy: Toy) -> None:
    toy.edit("data/rows.csv", "很好", "很棒")
    add(toy.workspace, [toy.workspace.data / "rows.csv"])
    toy.workspace.check_data()
    assert "很棒" in (toy.workspace.data / "rows.csv").read_text("utf-8")


def test_a_link_shares_the_file(toy: Toy, csv: Path) -> None:
    (target,) = add(toy.workspace, [csv], link=True)
    assert target.samefile(csv)
    toy.workspace.check_data()


def test_a_link_across_file_systems_is_refused(toy: Toy, csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*args: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(UserError, match="cross-device") as caught:
        add(toy.workspace, [csv], link=True)
    assert "--link" in caught.value.remedy
    toy.workspace.check_data()


def test_a_base_model_comes_without_pickles(toy: Toy, csv: Path, model: Path) -> None:
    targets = add(toy.workspace, [csv], base_model=str(model))
    assert targets[-1] == toy.workspace.data / "bert-base-chinese"
    kept = sorted(path.name for path in targets[-1].rglob("*") if path.is_file())
    assert kept == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_model_of_the_hub_comes_from_its_cache_under_its_own_name(
    toy: Toy, csv: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = "0123456789abcdef0123456789abcdef01234567"
    kept = tmp_path / "hub/models--google-bert--bert-base-chinese"
    shutil.copytree(model, kept / "snapshots" / version)
    (kept / "refs").mkdir()
    (kept / "refs/main").write_text(version)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    targets = add(toy.workspace, [csv], base_model="google-bert/bert-base-chinese")
    assert targets[-1] == toy.workspace.data / "bert-base-chinese"
    kept_files = sorted(path.name for path in targets[-1].rglob("*") if path.is_file())
    assert kept_files == ["config.json", "model.safetensors", "tokenizer.json"]


@pytest.mark.parametrize("name", ["../elsewhere", "a/b/c", "no such folder", "/not/there"])
def test_what_is_neither_a_folder_nor_a_name_asks_no_hub(
    toy: Toy, csv: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match="there is no folder"):
        add(toy.workspace, [csv], base_model=name)


def test_a_hub_name_that_can_not_be_had_is_refused_with_the_way_to_download_it(
    toy: Toy, csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="no folder google-bert/bert-base-chinese") as caught:
        add(toy.workspace, [csv], base_model="google-bert/bert-base-chinese")
    assert "hf download google-bert/bert-base-chinese --local-dir bert-base-chinese" in caught.value.remedy


def test_a_model_folder_without_safetensors_is_refused(toy: Toy, csv: Path, model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors"):
        add(toy.workspace, [csv], base_model=str(model))


REFUSED: dict[str, tuple[bytes | None, str]] = {
    "missing.csv": (None, "does not exist"),
    "table.xlsx": (b"x", "extension must be one of"),
    "empty.csv": (b"", "is empty"),
    "header.csv": (b"text,label\n", "holds no rows"),
    "blank.jsonl": (b"\n\n", "holds no rows"),
    "gb.csv": ("text,label\n很好,1\n".encode("gb18030"), "is not UTF-8: line 2"),
    "utf16.tsv": ("text\tlabel\n很好\t1\n".encode("utf-16"), "is not UTF-8: line 1"),
    "bad.jsonl": (b'{"text": "a"}\n{"text": \n', "line 2: malformed JSON"),
    "rows.parquet": (b"PAR1 no", "not a sound Parquet file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_file_is_refused_and_nothing_changes(toy: Toy, csv: Path, tmp_path: Path, name: str) -> None:
    content, message = REFUSED[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    before = contents(toy.workspace.data)
    with pytest.raises(UserError, match=message) as caught:
        add(toy.workspace, [csv, tmp_path / name])
    assert caught.value.kind == "data"
    assert caught.value.remedy
    assert contents(toy.workspace.data) == before


def test_a_folder_of_mixed_formats_is_refused(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.csv").write_text(ROWS, encoding="utf-8")
    (tmp_path / "mixed" / "b.tsv").write_text(ROWS, encoding="utf-8")
    with pytest.raises(UserError, match="mixes formats"):
        add(toy.workspace, [tmp_path / "mixed"])


def test_two_files_of_one_name_and_no_file_at_all_are_refused(toy: Toy, csv: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / csv.name).write_text(ROWS, encoding="utf-8")
    with pytest.raises(UserError, match=r"影评\.csv.* twice"):
        add(toy.workspace, [csv, tmp_path / "sub" / csv.name])
    with pytest.raises(UserError, match="at least one file"):
        add(toy.workspace, [])


def test_other_changes_in_data_are_not_versioned_silently(toy: Toy, csv: Path) -> None:
    toy.edit("data/rows.csv", "很好", "很棒")
    with pytest.raises(UserError, match=r"other changes.*rows\.csv"):
        add(toy.workspace, [csv])
    assert not (toy.workspace.data / csv.name).exists()


def test_unversioned_files_of_a_new_project_must_be_named(new_toy: Toy, csv: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.csv"):
        add(new_toy.workspace, [csv])
    add(new_toy.workspace, [csv, new_toy.workspace.data / "rows.csv"])
    new_toy.workspace.check_data()


def test_pinned_data_that_is_missing_must_be_pulled_first(toy: Toy, csv: Path) -> None:
    (toy.workspace.data / "rows.csv").unlink()
    toy.workspace.data.rmdir()
    with pytest.raises(UserError, match="data/ is missing") as caught:
        add(toy.workspace, [csv])
    assert "stillhouse data pull" in caught.value.remedy


@pytest.mark.parametrize("where", ["copying", "versioning"])
def test_a_full_disk_leaves_everything_as_it_was(
    toy: Toy, csv: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "rows.csv").write_text(ROWS, encoding="utf-8")
    owner: Any = shutil if where == "copying" else type(toy.workspace)
    name = "copyfile" if where == "copying" else "add_data"
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(UserError, match="disk is full") as caught:
        add(toy.workspace, [csv, tmp_path / "rows.csv"])
    assert caught.value.kind == "disk"
    assert list(contents(toy.workspace.data)) == ["rows.csv"]
    assert not (toy.root / "data.partial").exists()
    toy.workspace.check_data()


def test_an_interrupted_first_add_leaves_no_data_folder(
    new_toy: Toy, csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    (new_toy.workspace.data / "rows.csv").unlink()
    new_toy.workspace.data.rmdir()
    monkeypatch.setattr(type(new_toy.workspace), "add_data", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add(new_toy.workspace, [csv])
    assert not new_toy.workspace.data.exists()


def test_a_damaged_parquet_file_is_refused(toy: Toy, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [f"第{number}行" for number in range(5000)]}), path)
    sound = path.read_bytes()
    path.write_bytes(bytes(len(sound) // 2) + sound[len(sound) // 2 :])
    with pytest.raises(UserError, match=r"rows\.parquet is not a sound Parquet file"):
        add(toy.workspace, [path])
    toy.workspace.check_data()


def test_the_suggested_section_is_what_params_takes(toy: Toy, csv: Path, model: Path, tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    from components.params.data import Data

    (tmp_path / "test-2024.csv").write_text(ROWS, encoding="utf-8")
    (tmp_path / "raw.csv").write_text("text\n好\n", encoding="utf-8")
    targets = add(
        toy.workspace, [tmp_path / "test-2024.csv", csv], unlabelled=tmp_path / "raw.csv", base_model=str(model)
    )
    section = suggest_section(targets, unlabelled=toy.workspace.data / "raw.csv")
    data = Data.model_validate(YAML(typ="safe").load(section)["data"])
    assert data.files == {"train": "data/影评.csv", "test": "data/test-2024.csv", "unlabelled": "data/raw.csv"}
    assert (data.columns.text, data.columns.label, data.columns.group) == ("text", "label", None)


def suggested(toy: Toy, folder: Path, header: str) -> tuple[dict[str, str | None], str]:
    """The columns suggested for a file with this header, and the comment that stands after them."""
    from ruamel.yaml import YAML

    row = ",".join("1" for _ in header.split(","))
    (folder / "train.csv").write_text(f"{header}\n{row}\n", encoding="utf-8")
    section = suggest_section(add(toy.workspace, [folder / "train.csv"]))
    line = next(line for line in section.splitlines() if line.startswith("  columns:"))
    return YAML(typ="safe").load(section)["data"]["columns"], line.split("}  # ")[1]


def test_columns_of_any_name_are_suggested(toy: Toy, tmp_path: Path) -> None:
    columns, comment = suggested(toy, tmp_path, "题: 1,yes,备注,标签")
    assert columns == {"text": "题: 1", "label": "标签", "group": None, "document": None}
    assert comment == 'guessed: check text; found: "题: 1", "yes", 备注, 标签'


@pytest.mark.parametrize(
    ("header", "text", "label", "group", "document"),
    [
        ("编号,评论内容,星级", "评论内容", "星级", None, None),
        ("用户ID,评论时间,评论文本,情感标签,所属领域", "评论文本", "情感标签", "所属领域", None),
        ("review_id,review_date,star_rating,review_text", "review_text", "star_rating", None, None),
        ("docID,HTMLText,newsCategory,data_source", "HTMLText", "newsCategory", "data_source", "docID"),
        ("review_text,text,sentiment_score,Sentiment", "text", "Sentiment", None, None),
        ("text_label,label_text", "label_text", "text_label", None, None),
        ("context_id,unlabelled,Comment,stars", "Comment", "stars", None, None),
    ],
)
def test_a_column_is_what_the_last_words_of_its_name_say(
    toy: Toy, tmp_path: Path, header: str, text: str, label: str, group: str | None, document: str | None
) -> None:
    columns, comment = suggested(toy, tmp_path, header)
    assert columns == {"text": text, "label": label, "group": group, "document": document}
    assert comment.startswith("found: ")


@pytest.mark.parametrize(
    ("header", "text", "label"),
    [
        ("编号,备注,结论", "备注", "结论"),
        ("uuid,review_id,note,verdict", "note", "verdict"),
        ("Unnamed: 0,note,verdict", "note", "verdict"),
        (",note,verdict", "note", "verdict"),
        ("context,unlabelled", "context", "unlabelled"),
        ("date,label_name,text_clean", "text_clean", "label_name"),
        ("id,row,序号", None, None),
    ],
)
def test_a_guessed_column_is_marked_and_never_an_id(
    toy: Toy, tmp_path: Path, header: str, text: str | None, label: str | None
) -> None:
    columns, comment = suggested(toy, tmp_path, header)
    assert (columns["text"], columns["label"]) == (text, label)
    assert comment.startswith("guessed: check text and label; found: ")


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the keys that ``change`` sets; ``data`` is replaced as a whole, as a person would paste it."""
    both = dict(base)
    for key, value in change.items():
        nested = key != "data" and isinstance(value, dict) and isinstance(base.get(key), dict)
        both[key] = merged(base[key], value) if nested else value
    return both


@pytest.mark.parametrize("columns", ["text,label", "text,label,领域"])
def test_with_what_is_suggested_the_shipped_parameters_fit_the_users_data(
    toy: Toy, model: Path, tmp_path: Path, columns: str
) -> None:
    from ruamel.yaml import YAML

    from components.loader import load_params

    row = ",".join("好" for _ in columns.split(","))
    (tmp_path / "train.csv").write_text(f"{columns}\n{row}\n", encoding="utf-8")
    section = suggest_section(add(toy.workspace, [tmp_path / "train.csv"], base_model=str(model)))
    yaml = YAML(typ="safe")
    shipped = yaml.load(Path(__file__).parents[2] / "params.yaml")
    yaml.dump(merged(shipped, yaml.load(section)), tmp_path / "params.yaml")
    params = load_params(tmp_path / "params.yaml")
    assert params.teacher.base == "data/bert-base-chinese"
    assert (params.finetune.group, params.named_groups()) == ("all", {})
    assert params.finetune.phases["specific"].lr == shipped["finetune"]["phases"]["specific"]["lr"]


def test_without_a_base_model_the_teacher_keeps_its_own(toy: Toy, csv: Path) -> None:
    assert "teacher:" not in suggest_section(add(toy.workspace, [csv]))


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["premise", "hypothesis", "label"], "text: premise, text_pair: hypothesis, label: label"),
        (["sentence_A", "sentence_B", "label"], "text: sentence_A, text_pair: sentence_B, label: label"),
        (["Sentence_1", "Sentence_2", "gold_label"], "text: Sentence_1, text_pair: Sentence_2, label: gold_label"),
        (["text", "label"], "{text: text, label: label"),
    ],
)
def test_columns_of_texts_that_belong_together_are_suggested_as_pairs(
    tmp_path: Path, names: list[str], columns: str
) -> None:
    from flows.data.suggest import suggest_section

    path = tmp_path / "train.csv"
    path.write_text(",".join(names) + "\n" + ",".join("abc"[: len(names)]) + "\n", encoding="utf-8")
    assert columns in suggest_section([path])
