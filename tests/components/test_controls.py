"""More controls on a tiny model: the fine-tune without distillation first, other seeds, and none by default."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import set_seed

from components import control, controls, distill, finetune
from components.errors import UserError
from components.loader import load_params
from components.ml.models.storage import load_base, save
from components.params.stages import Controls, Distill, Finetune, Runtime

RUNTIME, MAX_LENGTH = Runtime(threads=1), 32
DISTILL = Distill.model_validate(
    {
        "student": {"layers": 1},
        "order": ["distill"],
        "phases": {"distill": {"objective": "distill", "epochs": 0.5, "lr": 5e-2}},
    }
)
LORA = {"lora": {"r": 2, "alpha": 4, "targets": ["query", "value"]}}
FINETUNE = Finetune.model_validate(
    {
        "group": "a",
        "order": ["hybrid"],
        "phases": {"hybrid": {"objective": "distill", "on": "a", "epochs": 1, "lr": 5e-2, "trainable": LORA}},
    }
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, tiny_splits: Path) -> dict[str, Path]:
    """An untrained teacher with made-up logits: what matters here is who learns from them."""
    root = tmp_path_factory.mktemp("controls")
    set_seed(0)
    save(*load_base(tiny_encoder, ["negative", "positive"]), root / "teacher")
    for split in ("train", "unlabelled"):
        rows = pq.read_table(tiny_splits / split)
        logits = [[len(text) % 3 - 1.0, 1.0] for text in rows["text"].to_pylist()]
        (root / "logits" / split).mkdir(parents=True)
        table = {"row": rows["row"], "logits": logits, "confidence": pa.array([0.8] * len(rows), pa.float32())}
        pq.write_table(pa.table(table), root / "logits" / split / "part-00000.parquet")
    found = {name: tiny_splits / name for name in ("train", "unlabelled", "validation", "tasks")}
    return found | {"teacher": root / "teacher", "teacher_logits": root / "logits", "folders": root / "folders.json"}


def common(seed: int) -> dict[str, Any]:
    return {"seed": seed, "runtime": RUNTIME, "max_length": MAX_LENGTH}


def train_main(inputs: dict[str, Path], root: Path, seed: int) -> Path:
    """What the stages distill, control and finetune make with a seed, and a fine-tune of the control."""
    for name in ("student", "student_without_distillation", "lora", "lora_without_distillation"):
        (root / name).mkdir(parents=True)
    without_logits = {name: path for name, path in inputs.items() if name != "teacher_logits"}
    without_folders = {name: path for name, path in inputs.items() if name != "folders"}
    parts = {"student": DISTILL.student, "order": DISTILL.order, "phases": DISTILL.phases, "models": {}}
    distill.run(**inputs, models={}, settings=DISTILL, output=root / "student", **common(seed))
    control.run(**without_logits, **parts, output=root / "student_without_distillation", **common(seed))
    for name, student in (("lora", "student"), ("lora_without_distillation", "student_without_distillation")):
        given = without_folders | {"student": root / student / "model"}
        finetune.run(**given, settings=FINETUNE, output=root / name, **common(seed))
    return root


def run_controls(
    inputs: dict[str, Path],
    student: Path,
    output: Path,
    seed: int = 13,
    checkpoints: Path | None = None,
    **settings: Any,
) -> Path:
    output.mkdir(parents=True)
    given = inputs | {"student_without_distillation": student}
    sections = {"distill": DISTILL, "finetune": FINETUNE, "settings": Controls.model_validate(settings)}
    kept: dict[str, Any] = {"checkpoints": checkpoints, "checkpoint_every": 10}
    controls.run(**given, **sections, models={}, output=output, **common(seed), **kept)
    return output


@pytest.fixture(scope="module")
def main(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_main(inputs, tmp_path_factory.mktemp("main"), 13)


def weights(folder: Path) -> bytes:
    return (folder / "model/model.safetensors").read_bytes()


def test_models_of_another_seed_are_what_the_main_stages_make_with_it(
    inputs: dict[str, Path], main: Path, tmp_path: Path
) -> None:
    student = main / "student_without_distillation/model"
    made = run_controls(inputs, student, tmp_path / "controls.partial", seeds=[14], direct_finetune=True)
    expected = train_main(inputs, tmp_path / "expected", 14)
    names = sorted(path.name for path in expected.iterdir())
    assert sorted(path.name for path in (made / "seeds/14").iterdir()) == names
    for name in names:
        folder = made / "seeds/14" / name
        assert weights(folder) == weights(expected / name)
        for told in ("history.jsonl", "phases.json"):
            assert (folder / told).read_bytes() == (expected / name / told).read_bytes()
        assert weights(folder) != weights(main / name)
    adapter = json.loads((made / "seeds/14/lora/adapter/adapter_config.json").read_text())
    named = (tmp_path / "controls/seeds/14/student/model").as_posix()  # the folder's name when the stage is done
    assert adapter["base_model_name_or_path"] == named


def test_the_direct_fine_tune_is_the_fine_tune_of_the_student_that_was_not_distilled(
    inputs: dict[str, Path], main: Path, tmp_path: Path
) -> None:
    student = main / "student_without_distillation/model"
    made = run_controls(inputs, student, tmp_path / "direct", direct_finetune=True)
    assert weights(made / "direct") == weights(main / "lora_without_distillation")
    (phase,) = json.loads((made / "direct/phases.json").read_text())
    assert phase["objective"] == "distill"  # as in the main fine-tune: one thing differs
    assert sorted(path.name for path in made.iterdir()) == ["controls.json", "direct"]
    again = run_controls(inputs, student, tmp_path / "again", direct_finetune=True)
    assert (again / "controls.json").read_bytes() == (made / "controls.json").read_bytes()
    other = run_controls(inputs, main / "student/model", tmp_path / "other", direct_finetune=True)
    contents = {json.loads((folder / "controls.json").read_text())["direct"] for folder in (made, other)}
    assert len(contents) == 2


def test_each_model_has_checkpoints_of_its_own(
    inputs: dict[str, Path], main: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student, kept = main / "student_without_distillation/model", tmp_path / "checkpoints"
    made = run_controls(inputs, student, tmp_path / "made", checkpoints=kept, seeds=[14], direct_finetune=True)
    names = ["direct", *(f"seed-14/{path.name}" for path in (made / "seeds/14").iterdir())]
    assert sorted(place.parents[1].relative_to(kept).as_posix() for place in kept.rglob("finished")) == sorted(names)
    assert "resumed" not in capsys.readouterr().out
    shutil.rmtree(kept / "seed-14/lora")
    again = run_controls(inputs, student, tmp_path / "again", checkpoints=kept, seeds=[14], direct_finetune=True)
    assert capsys.readouterr().out.count("resumed at step") == 4
    for path in made.rglob("*.safetensors"):
        assert (again / path.relative_to(made)).read_bytes() == path.read_bytes()


def test_with_nothing_switched_on_no_model_and_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom components import controls\n"
        "from components.params.stages import Controls, Runtime\n"
        "names = ['train', 'unlabelled', 'validation', 'tasks', 'teacher_logits', 'teacher', 'folders', "
        "'student_without_distillation', 'distill', 'finetune', 'models']\n"
        "controls.run(**dict.fromkeys(names), seed=13, runtime=Runtime(), max_length=8, settings=Controls(), "
        "output=Path(sys.argv[1]))\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    (told,) = tmp_path.iterdir()
    assert json.loads(told.read_text()) == {"seed": 13, "seeds": [], "direct_finetune": False, "direct": None}


def test_the_main_models_seed_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="other seeds than 13"):
        run_controls(inputs, tmp_path, tmp_path / "output", seeds=[12, 13])


@pytest.mark.parametrize(("seeds", "said"), [("[14, 14]", "different seeds"), ("[14, 13]", "controls.seeds names 13")])
def test_seeds_that_add_nothing_are_refused_before_anything_is_trained(tmp_path: Path, seeds: str, said: str) -> None:
    text = (Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8")
    assert "seeds: []" in text
    (tmp_path / "params.yaml").write_text(text.replace("seeds: []", f"seeds: {seeds}"), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        load_params(tmp_path / "params.yaml")
