"""The printed plan: a line for each stage where one is enough, reasons that fit, times, and what follows."""

from __future__ import annotations

import io

from rich.console import Console

from flows.commands.plan_table import Foresight, print_plan
from flows.repo.planning import PlannedStage


def printed(plan: Foresight, width: int = 80, title: str = "Plan") -> list[str]:
    """The lines, without the spaces at their ends."""
    output = io.StringIO()
    print_plan(Console(file=output, width=width), plan, title)
    return [line.rstrip() for line in output.getvalue().splitlines()]


def table(*stages: PlannedStage, width: int = 80) -> list[str]:
    """The lines of the table alone."""
    lines = printed(Foresight(stages, ["publish"]), width)
    assert lines[0] == "Plan"
    return [line for line in lines[1:] if line and not line.startswith(("  then:", "  time:"))]


def test_a_stage_takes_one_line_and_the_columns_stand_below_each_other() -> None:
    stages = [
        PlannedStage("validate", "skip"),
        PlannedStage("teacher", "resume", ["goes on at step 12 of 30"], 12, 190.0),
        PlannedStage("label", "restore", ["label.batch_size: 64 -> 32"], None, 0.2),
        PlannedStage("distill", "depends", ["depends on teacher", "depends on label"], None, 400.0),
    ]
    assert table(*stages) == [
        "  validate  skip",
        "  teacher   resume   goes on at step 12 of 30    about 3 min",
        "  label     restore  label.batch_size: 64 -> 32  about 1 s",
        "  distill   depends  on teacher, label           up to 7 min",
    ]


def test_reasons_stand_as_they_are_and_those_that_do_not_fit_are_counted() -> None:
    reasons = ["data.labels: [a] -> [[b]/]", "b", "c", "d", "e"]
    (line,) = table(PlannedStage("teacher", "run", reasons))
    assert line == "  teacher  run  data.labels: [a] -> [[b]/]; b; c and 2 more"
    files = [f"components/ml/training/{name}.py changed" for name in ("trainer", "losses", "phases")]
    for width, more in ((60, "and 2 more"), (80, "and 1 more"), (120, "phases.py changed")):
        lines = table(PlannedStage("teacher", "run", files), width=width)
        assert len(lines) == 2
        assert lines[1].endswith(more)
    long = "distill.phases: " + "很" * 200
    assert "".join("".join(table(PlannedStage("distill", "run", [long]))).split()).endswith("很" * 200)


def test_what_a_stage_that_runs_anyway_depends_on_is_told_where_there_is_room() -> None:
    waits = [f"depends on {name}" for name in ("validate", "teacher", "label", "control", "finetune", "controls")]
    stage = PlannedStage("evaluate", "run", ["never run", *waits])
    assert table(stage, width=60) == ["  evaluate  run  never run"]
    told = "depends on validate, teacher, label, control, finetune, controls"
    assert table(stage, width=120) == [f"  evaluate  run  never run; {told}"]
    assert "".join(table(PlannedStage("evaluate", "depends", waits), width=60)).count("controls") == 1


def test_the_time_of_all_is_that_of_the_stages_with_what_is_sure_and_what_is_not() -> None:
    sure = PlannedStage("teacher", "run", ["never run"], None, 60.0)
    perhaps = PlannedStage("distill", "depends", ["depends on teacher"], None, 240.0)
    unknown = PlannedStage("label", "run", ["never run"])
    idle = PlannedStage("validate", "skip")
    for stages, said in (
        ([idle, sure], ["  time: about 1 min"]),
        ([perhaps, sure], ["  time: about 1 min, up to 5 min"]),
        ([perhaps], ["  time: up to 4 min"]),
        ([sure, unknown], ["  time: about 1 min, and what label takes"]),
        ([unknown, idle], []),
    ):
        assert [line for line in printed(Foresight(stages, ["publish"])) if "time:" in line] == said


def test_what_follows_is_said_and_that_a_part_is_not_published() -> None:
    stage = PlannedStage("label", "run", ["never run"])
    assert "  then: benchmark, publish" in printed(Foresight([stage], ["benchmark", "publish"]))
    left = ["distill", "control", "finetune", "evaluate"]
    lines = printed(Foresight([stage], [], left))
    assert "  not published: distill, control, finetune and 1 more may stay out of date" in lines
    assert not any("then:" in line for line in lines)


def test_nothing_to_do_is_said_only_when_nothing_is_outstanding() -> None:
    idle = [PlannedStage("validate", "skip")]
    assert printed(Foresight(idle, ["publish"]))[0] == "Plan"
    assert printed(Foresight(idle)) == ["Nothing changed: every stage is up to date and published.", ""]


def test_when_there_is_nothing_to_do_what_is_to_be_said_of_the_results_is_still_said() -> None:
    accepted = PlannedStage("distill", "skip", ["accepted across edits of components/distill.py"])
    assert "  distill: accepted across edits of components/distill.py" in printed(Foresight([accepted]))
    label = PlannedStage("label", "skip", ["teacher is left as it is, though teacher.x: 1 -> 2"])
    assert printed(Foresight([label], [], ["teacher"])) == [
        "Nothing to do: the chosen stages are up to date.",
        "  teacher is left as it is, though teacher.x: 1 -> 2",
        "  out of date, but not chosen: teacher",
        "",
    ]


def test_what_a_part_builds_on_though_it_is_out_of_date_stands_below_it_once() -> None:
    note = "teacher is left as it is, though teacher.x: 1 -> 2"
    label = PlannedStage("label", "run", ["a", "b", "c", note])
    distill = PlannedStage("distill", "depends", ["depends on label", note])
    assert printed(Foresight([label, distill], [], ["teacher"])) == [
        "Plan",
        "  label    run      a; b; c",
        "  distill  depends  on label",
        f"  {note}",
        "  not published: teacher may stay out of date",
        "",
    ]


def test_the_title_names_parameters_as_they_stand() -> None:
    stage = PlannedStage("label", "run", ["never run"])
    assert printed(Foresight([stage]), title="Plan with a=[/x]")[0] == "Plan with a=[/x]"
