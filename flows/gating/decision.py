"""The rules of the gate: from the evidence to a decision with its reasons. No files, no servers, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from components.ml.tasks.task import Metric
from components.params.gate import Floors, Gate
from flows.gating.evidence import ALL, Pair
from flows.tracking.headline import ACCURACY, change, number, unit

FIRST, UNCHANGED, TAKEN_BACK = "first model", "unchanged", "taken back"
BETTER, NO_WORSE, TIE, WORSE = "better", "no worse", "tie", "worse"
OTHER_LABELS, NO_FILES, LOST, NO_ROWS = "other labels", "champion missing", "files missing", "no test rows"
BY_HAND, OVERRULED = "by hand", "overruled"
MOST_LISTED = 5
ROUNDING = 1e-9  # of shares: 0.93 - 0.95 is a little below -0.02


@dataclass(frozen=True)
class Challenger:
    """The new model: its version, its accuracy and its teacher's on all test rows, and what it costs.

    What is said of accuracy here holds for the headline of any task.
    """

    version: str
    accuracy: float
    teacher_accuracy: float
    latency_p50_ms: float | None
    megabytes: float


@dataclass(frozen=True)
class Evidence:
    """All that the decision depends on.

    Args:
        challenger: the new model.
        group: where the two are compared.
        champion: the version that is champion now; None: there is none.
        pair: the comparison of the two; None where there was none.
        obstacle: why there was none: UNCHANGED, TAKEN_BACK, OVERRULED, OTHER_LABELS, NO_FILES, LOST or NO_ROWS; and
            words.
        other_test_set: whether the champion was promoted on other test rows than today's.
        headline: what the two are compared by.
    """

    challenger: Challenger
    group: str
    champion: str | None = None
    pair: Pair | None = None
    obstacle: tuple[str, str] | None = None
    other_test_set: bool = False
    headline: Metric = ACCURACY


@dataclass(frozen=True)
class Floor:
    """One floor: what was asked, what was found (None: not measured), and whether that is enough."""

    name: str
    asked: float
    found: float | None
    met: bool
    said: str


@dataclass(frozen=True)
class Decision:
    """Whether the challenger is promoted; ``outcome`` says how it compared, in a word; reasons against stand first."""

    promoted: bool
    outcome: str
    reasons: list[str]
    floors: list[Floor]


def decide(evidence: Evidence, rules: Gate) -> Decision:
    """Promoted is who passes the comparison with the champion and meets every floor."""
    outcome, passes, said = _compared(evidence, rules)
    floors = list(_floors(evidence, rules.floors))
    failed = [floor.said for floor in floors if not floor.met]
    met = [floor.said for floor in floors if floor.met]
    notes = [_other_test_set(evidence)] if evidence.other_test_set and evidence.pair else []
    reasons = [*failed, said] if passes else [said, *failed]
    return Decision(passes and not failed, outcome, [*reasons, *met, *notes], floors)


def _compared(evidence: Evidence, rules: Gate) -> tuple[str, bool, str]:
    """The outcome of the comparison, whether it lets the challenger pass, and the words for it."""
    if evidence.obstacle:
        outcome, said = evidence.obstacle
        return outcome, False, said
    if evidence.champion is None:
        return FIRST, True, "There is no champion yet, so the floors alone decide."
    assert evidence.pair  # without one there is an obstacle
    outcome = _outcome(evidence.pair, rules.margin)
    passes = outcome in (BETTER, NO_WORSE) or (outcome == TIE and rules.tie == "promote")
    return outcome, passes, _told(outcome, evidence, rules)


def _outcome(pair: Pair, margin: float) -> str:
    """What interval and test show of the challenger.

    It is better where both say so: the interval sees that rows of one document are alike, McNemar's test that few rows
    differ at all, for which percentiles come out too narrow. For a margin there is no such test.
    """
    low, high = pair.ci
    if low > 0 and _least_p(pair) < 1 - pair.confidence:
        return BETTER
    if margin > 0 and low > -margin:
        return NO_WORSE
    return WORSE if high < -margin else TIE


def _least_p(pair: Pair) -> float:
    """What tells that few rows differ: McNemar's p or, where rows that are right as a whole aren't what is compared,
    the least that a sign test can come to on as many documents as the two differ on."""
    if pair.differing is not None:
        return min(1.0, 2.0 * 0.5**pair.differing)
    assert pair.mcnemar  # without it, documents are counted
    return pair.mcnemar.p


def _told(outcome: str, evidence: Evidence, rules: Gate) -> str:
    """The comparison in a sentence."""
    assert evidence.pair
    pair, headline = evidence.pair, evidence.headline
    margin = _margin(headline, rules.margin)
    verdict = {
        BETTER: "is better than",
        NO_WORSE: f"is within {margin} of",
        WORSE: f"is more than {margin} below" if rules.margin else "is worse than",
        TIE: f"is not shown to be within {margin} of" if rules.margin else "is not shown to be better than",
    }[outcome]
    place = "all rows" if evidence.group == ALL else evidence.group
    low, high = pair.ci
    numbers = (
        f"{change(headline, pair.difference)} {unit(headline)} on {place}, {100 * pair.confidence:.4g}% interval "
        f"{change(headline, low)} to {change(headline, high)} over {_count(pair.documents, 'document')} and "
        f"{_count(pair.rows, 'row')}, {_test(pair)}"
    )
    told = f"Version {evidence.challenger.version} {verdict} the champion, version {evidence.champion}: {numbers}."
    if outcome != TIE:
        return told
    return f"{told} {'The newer model takes its place' if rules.tie == 'promote' else 'The champion stays'} (gate.tie)."


def _margin(headline: Metric, share: float) -> str:
    return f"{100 * share:.3g} points" if headline.percent else f"{share:.3g}"


def _test(pair: Pair) -> str:
    """What is said of the test beside the interval."""
    if pair.differing is None:
        assert pair.mcnemar
        return f"McNemar's p {pair.mcnemar.p:.2g}"
    differing = f"differing on {_count(pair.differing, 'document')}"
    if pair.mcnemar is None:
        return f"{differing}; no McNemar's test, as rows are only more or less right"
    return f"{differing}; of rows that are right as a whole, McNemar's p {pair.mcnemar.p:.2g}"


def _floors(evidence: Evidence, rules: Floors) -> Iterator[Floor]:
    """Every floor that is asked for; the one on other groups where there is a champion to compare with."""
    new = evidence.challenger
    if rules.other_groups is not None and evidence.pair:
        yield _other_groups(evidence.pair, rules.other_groups, evidence.headline)
    if rules.retention is not None:
        kept = new.accuracy / new.teacher_accuracy if new.teacher_accuracy > 0 else None
        yield _least("retention", rules.retention, kept, evidence.headline)
    if rules.latency_p50_ms is not None:
        yield _most("latency_p50_ms", "a median latency of {:.3g} ms", rules.latency_p50_ms, new.latency_p50_ms)
    if rules.megabytes is not None:
        yield _most("megabytes", "{:.4g} MB", rules.megabytes, new.megabytes)


def _other_groups(pair: Pair, most: float, headline: Metric) -> Floor:
    lost = {name: -difference for name, difference in pair.groups.items() if -difference > most + ROUNDING}
    worst = max([0.0, *(-difference for difference in pair.groups.values())])
    if not lost:
        said = f"No other group loses more than {_margin(headline, most)}."
    else:
        worst_first = sorted(lost.items(), key=lambda item: -item[1])
        listed = [f"{name} {number(headline, share)}" for name, share in worst_first]
        more = f" and {len(listed) - MOST_LISTED} more groups" if len(listed) > MOST_LISTED else ""
        said = f"Other groups lose more than {_margin(headline, most)}: {', '.join(listed[:MOST_LISTED])}{more}."
    return Floor("other_groups", most, worst, not lost, said)


def _least(name: str, asked: float, found: float | None, headline: Metric) -> Floor:
    met = found is not None and found >= asked - ROUNDING
    share = "none" if found is None else f"{found:.1%}"
    said = f"It keeps {share} of the teacher's {headline.name}; at least {asked:.1%} is asked."
    return Floor(name, asked, found, met, said)


def _most(name: str, words: str, asked: float, found: float | None) -> Floor:
    met = found is not None and found <= asked
    had = "It was not measured" if found is None else f"It has {words.format(found)}"
    return Floor(name, asked, found, met, f"{had}; {words.format(asked)} is the most it may have.")


def _other_test_set(evidence: Evidence) -> str:
    return (
        f"The test rows are others than those that version {evidence.champion} was promoted on; both models were "
        "scored on today's."
    )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"
