"""Comparing outputs: equal files are equal, one changed value is found and named, whatever the kind of file."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from flows.commands.verify import _row
from flows.verification.comparing import compare_files
from flows.verification.values import Comparison, distance
from flows.verification.verify import _told

Write = Callable[[Path, float], None]


def weights(path: Path, value: float) -> None:
    first = np.arange(12, dtype=np.float32).reshape(3, 4) / 7
    first[1, 2] = value
    save_file({"layer.0.weight": first, "layer.0.bias": np.zeros(3, np.float32)}, path, {"format": "pt"})


def half_weights(path: Path, value: float) -> None:
    """bfloat16: the upper half of a float32's bits; NumPy has no name for it."""
    bits = (np.array([1.0, value, 2.0], np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    header = json.dumps({"w": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bits)


def predictions(path: Path, value: float) -> None:
    table = {"row": [0, 1, 2], "label": [1, 0, 1], "logits": [[0.5, 1.5], [0.25, value], [2.0, 3.0]]}
    logits = pa.array(table["logits"], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"row": table["row"], "label": table["label"], "logits": logits}), path)


def confidence(path: Path, value: float) -> None:
    pq.write_table(pa.table({"confidence": pa.array([0.5, 0.25, value], pa.float32())}), path)


def metrics(path: Path, value: float) -> None:
    path.write_text(json.dumps({"models": [{"name": "学生", "accuracy": value, "rows": 10}]}), encoding="utf-8")


def history(path: Path, value: float) -> None:
    lines = [{"step": step, "loss": value if step == 2 else 1.0} for step in range(4)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def table(path: Path, value: float) -> None:
    path.write_text(f"model,accuracy\nteacher,0.9\nstudent,{value!r}\n", encoding="utf-8")


def picture(path: Path, value: float) -> None:
    path.write_text(f'<svg>\n<path d="M 1.5 {value!r} L 2 3"/>\n</svg>\n', encoding="utf-8")


KINDS: dict[str, tuple[Write, str]] = {
    "model.safetensors": (weights, "tensor layer.0.weight[1, 2]"),
    "half.safetensors": (half_weights, "tensor w[1]"),
    "predictions.parquet": (predictions, "row 1, column logits[1]"),
    "confidence.parquet": (confidence, "row 2, column confidence"),
    "metrics.json": (metrics, "$.models[0].accuracy"),
    "history.jsonl": (history, "line 3: $.loss"),
    "groups.csv": (table, "line 3"),
    "groups.svg": (picture, "line 2"),
}


def compared(folder: Path, name: str, before: float, after: float, tolerance: float = 1e-6) -> Comparison:
    for part, value in (("a", before), ("b", after)):
        (folder / part).mkdir(exist_ok=True)
        KINDS[name][0](folder / part / name, value)
    return compare_files(folder / "a" / name, folder / "b" / name, tolerance)


@pytest.mark.parametrize("name", KINDS)
def test_equal_files_are_equal_nan_included(tmp_path: Path, name: str) -> None:
    for value in (0.75, math.nan):
        assert compared(tmp_path, name, value, value) == Comparison("equal")


@pytest.mark.parametrize("name", KINDS)
def test_a_changed_number_is_named_with_both_values(tmp_path: Path, name: str) -> None:
    found = compared(tmp_path, name, 0.75, 0.5)
    assert found.verdict == "different"
    assert found.greatest == pytest.approx(0.25)
    assert found.first is not None
    assert found.first.where == KINDS[name][1]
    assert (float(found.first.recorded), float(found.first.found)) == (0.75, 0.5)


@pytest.mark.parametrize("name", KINDS)
def test_the_tolerance_decides_and_the_difference_is_still_told(tmp_path: Path, name: str) -> None:
    found = compared(tmp_path, name, 0.75, 0.7578125, tolerance=0.01)
    assert (found.verdict, found.greatest) == ("within tolerance", pytest.approx(0.0078125))
    assert found.first is not None
    assert found.first.where == KINDS[name][1]
    assert compared(tmp_path, name, 0.75, 0.7578125, tolerance=0.005).verdict == "different"


@pytest.mark.parametrize("name", KINDS)
def test_nan_and_infinity_are_no_numbers_within_any_tolerance(tmp_path: Path, name: str) -> None:
    for other in (math.nan, math.inf):
        assert compared(tmp_path, name, 0.75, other, tolerance=1e9).verdict == "different"


def test_large_numbers_are_compared_by_their_size() -> None:
    assert distance(1e9, 1e9 + 1) == pytest.approx(1e-9)
    assert distance(1e-9, 2e-9) == pytest.approx(1e-9)
    assert distance(math.inf, math.inf) == 0.0
    assert distance(math.inf, -math.inf) is None


def test_the_first_difference_is_the_first_beyond_the_tolerance(tmp_path: Path) -> None:
    for name, values in {"a": [0.0, 0.0, 0.0, 0.0], "b": [0.0, 1e-8, 0.5, 2.0]}.items():
        save_file({"w": np.array(values, np.float32)}, tmp_path / f"{name}.safetensors")
    found = compare_files(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert found.first is not None
    assert (found.first.where, found.greatest) == ("tensor w[2]", 1.0)  # 2.0 is above 1, so relative


def test_any_single_changed_weight_is_found(tmp_path: Path) -> None:
    draw = random.Random(3)
    shape = (7, 5, 3)
    tensors = {name: np.random.default_rng(0).normal(size=shape).astype(np.float32) for name in ("a", "b")}
    save_file(tensors, tmp_path / "before.safetensors")
    for _ in range(20):
        name, index = draw.choice("ab"), tuple(draw.randrange(size) for size in shape)
        changed = {key: value.copy() for key, value in tensors.items()}
        changed[name][index] += 0.125
        save_file(changed, tmp_path / "after.safetensors")
        found = compare_files(tmp_path / "before.safetensors", tmp_path / "after.safetensors")
        assert found.verdict == "different"
        assert found.first is not None
        assert found.first.where == f"tensor {name}[{', '.join(map(str, index))}]"


def test_tensors_beyond_a_block_are_indexed_rightly(tmp_path: Path) -> None:
    large = np.zeros((2, 2**20), np.float32)
    save_file({"w": large}, tmp_path / "a.safetensors")
    large[1, 77] = 1
    save_file({"w": large}, tmp_path / "b.safetensors")
    found = compare_files(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert found.first is not None
    assert found.first.where == "tensor w[1, 77]"


def test_other_shapes_types_and_names_are_different(tmp_path: Path) -> None:
    def save(name: str, **tensors: object) -> Path:
        save_file(tensors, tmp_path / f"{name}.safetensors")
        return tmp_path / f"{name}.safetensors"

    plain = save("plain", w=np.zeros((2, 3), np.float32))
    cases = {
        "F32 [2, 3], now F32 [3, 2]": save("shape", w=np.zeros((3, 2), np.float32)),
        "F32 [2, 3], now F64 [2, 3]": save("type", w=np.zeros((2, 3), np.float64)),
        "F32 [2, 3], now nothing": save("name", v=np.zeros((2, 3), np.float32)),
    }
    for said, other in cases.items():
        found = compare_files(plain, other, tolerance=1e9)
        assert (found.verdict, str(found.first)) == ("different", f"tensor w: recorded {said}")


def test_whole_numbers_must_be_equal(tmp_path: Path) -> None:
    for name, rows in (("a", 1_000_000), ("b", 1_000_001)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"rows": rows, "ok": True}))
        pq.write_table(pa.table({"rows": [rows]}), tmp_path / f"{name}.parquet")
        (tmp_path / f"{name}.csv").write_text(f"rows\n{rows}\n")
    for suffix in ("json", "parquet", "csv"):
        assert compare_files(tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}", tolerance=1).verdict == "different"


def test_rows_and_columns_that_are_too_many_are_different(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0, 2.0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1.0, 2.0, 3.0]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"y": [1.0, 2.0]}), tmp_path / "c.parquet")
    rows = compare_files(tmp_path / "a.parquet", tmp_path / "b.parquet")
    columns = compare_files(tmp_path / "a.parquet", tmp_path / "c.parquet")
    assert str(rows.first) == "the number of rows: recorded 2, now 3"
    assert str(columns.first) == "the columns: recorded x double, now y double"


def tensors(*names: str, numbers: tuple[float, float] = (1.0, 2.0), nan: int = 0) -> bytes:
    """A safetensors file of two numbers, its header's keys in this order."""
    places = dict(zip("ab", ([0, 4], [4, 8]), strict=True))
    header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": places[name]} for name in names}).encode()
    bits = np.array(numbers, "<f4").tobytes() if not nan else np.array([nan, nan], "<u4").tobytes()
    return len(header).to_bytes(8, "little") + header + bits


def parquet(values: list[float], compression: str) -> bytes:
    written = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": values}), written, compression=compression)
    return bytes(written.getvalue())


@pytest.mark.parametrize(
    ("suffix", "recorded", "found"),
    [
        ("json", b'{"a": 1}', b'{"a":1}\n'),
        ("json", b'{"a": 1, "b": NaN}', b'{"a":1, "b": NaN}'),
        ("jsonl", b'{"a": 1.0}\n', b'{"a": 1.00}\n'),
        ("csv", b"a\n1", b"a\n1\n"),
        ("parquet", parquet([1.0], "snappy"), parquet([1.0], "zstd")),
        ("parquet", parquet([0.0], "snappy"), parquet([-0.0], "snappy")),
        ("safetensors", tensors("a", "b"), tensors("b", "a")),
        ("safetensors", tensors("a", "b", numbers=(0.0, 1.0)), tensors("a", "b", numbers=(-0.0, 1.0))),
        ("safetensors", tensors("a", "b", nan=0x7FC00000), tensors("a", "b", nan=0x7FC00001)),
    ],
)
def test_the_same_values_written_otherwise_are_within_any_tolerance_and_shown_so(
    tmp_path: Path, suffix: str, recorded: bytes, found: bytes
) -> None:
    before, after = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    before.write_bytes(recorded)
    after.write_bytes(found)
    told = _told("artifacts/x", compare_files(before, after, 0.0))
    assert told["verdict"] == "within tolerance"
    cells = [str(cell) for cell in _row(told, 0.0)]
    assert cells[2:] == ["0", "how it is written: recorded the same values, now the same values"]


def test_other_files_are_compared_bit_for_bit(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("eins\nzwei 1.0\n")
    (tmp_path / "b.txt").write_text("eins\nzwei 1.00\n")
    (tmp_path / "a.bin").write_bytes(b"\xff\x00\x01")
    (tmp_path / "b.bin").write_bytes(b"\xff\x00")
    text = compare_files(tmp_path / "a.txt", tmp_path / "b.txt", tolerance=1)
    binary = compare_files(tmp_path / "a.bin", tmp_path / "b.bin")
    assert str(text.first) == "line 2: recorded 'zwei 1.0', now 'zwei 1.00'"
    assert str(binary.first) == "byte 2: recorded 0x01, now the end"


@pytest.mark.parametrize("name", ["a.safetensors", "a.parquet", "a.json", "a.jsonl", "a.csv"])
def test_a_damaged_file_is_different_and_no_crash(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / name).write_bytes(b"\x09\x00\x00\x00\x00\x00\x00\x00{\xff")
    (tmp_path / "other" / name).write_bytes(b"")
    assert compare_files(tmp_path / name, tmp_path / "other" / name).verdict == "different"


def test_a_missing_and_an_extra_file_are_different(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    assert str(compare_files(tmp_path / "a", None).first) == "the file: recorded 1 bytes, now nothing"
    assert str(compare_files(None, tmp_path / "a").first) == "the file: recorded nothing, now 1 bytes"
