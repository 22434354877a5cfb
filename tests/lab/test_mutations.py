"""A claim that cannot fail is no claim.

Mutate the numbers behind a verdict, and the verdict must change; loosen a test, and something must object.
Every test of every chapter is tried at every scale. Where no record of a scale is committed, the numbers are
those of the largest scale that has one. A claim whose numbers no record has is tried at its null alone, when
the file is read.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT

from ouikit.lab import claims, record
from ouikit.lab.chapter import Chapter, chapters
from ouikit.lab.claims import Measured, fragile, holds_at, is_literal, judge, parse_test, parts
from ouikit.lab.paper import Claim

RECORDS = sorted((ROOT / "book" / "results").glob("*/*/record.json"))
TENTH = 0.1 + 1e-9  # of an effect; rounding aside
Metrics = dict[str, Measured]


@cache
def metrics_of(folder: Path) -> Metrics:
    return {name: Measured.of(m) for name, m in record.read(folder)["result"]["metrics"].items()}


def committed() -> Iterator:
    """Every claim that a committed record tests."""
    for path in RECORDS:
        found = record.read(path.parent)
        chapter = Chapter(found["run"]["slug"], ROOT)
        for claim in chapter.paper.claims:
            if found["run"]["scale"] in claim.at:
                yield pytest.param(path.parent, claim, id=f"{chapter.slug}-{path.parent.name}-{claim.id}")


def at_every_scale() -> Iterator:
    """Every test of every claim, numbers of the size to expect, and whether they are of its own scale."""
    for chapter in chapters(ROOT):
        folders = {p.parent.name: p.parent for p in RECORDS if p.parent.parent.name == chapter.slug}
        known = {scale: metrics_of(folders[scale]) for scale in chapter.paper.scales if scale in folders}
        largest = next(reversed(known.values()), {})
        for claim in chapter.paper.claims:
            for scale, test in claim.at.items():
                metrics = known.get(scale, largest)
                if metrics.keys() >= set(test.operands(claim.metric)):
                    name = f"{chapter.slug}-{scale}-{claim.id}"
                    yield pytest.param(claim, test, metrics, scale in known, id=name)


TESTS = list(at_every_scale())


def size(claim: Claim, m: Measured) -> float:
    """Of an effect: from the null to where the number was seen, or to where the paper has it.

    Where it was seen at the null, it is the null itself, which is what a ratio or a share is counted in.
    """
    paper = (claim.paper or {}).get("value", claim.null)
    return max(abs(m.value - claim.null), abs(paper - claim.null), abs(claim.null))


def is_loose(claim: Claim, test: claims.Test, metrics: Metrics) -> bool:
    """Whether a test says *reproduced* at the null, or of a small effect where not any effect will do."""
    if holds_at(test, claim.metric, claim.null, claim.paper):
        return True
    for part in parts(test):
        names = part.operands(claim.metric)
        for sign in (-1, 1) if names else ():
            small, any_effect = (
                {name: claim.null + sign * share * size(claim, metrics[name]) for name in names}
                for share in (TENTH, 1e-6)
            )
            if holds(claim, part, small) and not holds(claim, part, any_effect):
                return True
    return False


def holds(claim: Claim, test: claims.Test, metrics: dict) -> bool:
    return judge(test, next(iter(metrics)), metrics, claim.paper) == "reproduced"


def loosened(claim: Claim, test: claims.Test) -> Iterator[claims.Test]:
    """The test with one of its numbers ten times nearer to the null or to zero, or ten times as wide."""

    def nearer(number: float) -> set[float]:
        found = {claim.null + (number - claim.null) / 10, number / 10, number * 10}
        return {x for x in found if min(claim.null, number) <= x <= max(claim.null, number)} - {number}

    against = test.against
    if test.predicate == "greater":
        yield from (replace(test, against=margin) for margin in nearer(against) if margin >= 0)
    elif test.predicate == "trend":
        yield replace(test, against={direction: margin / 10 for direction, margin in against.items()})
    elif test.predicate == "ratio":
        yield replace(test, against=10 * against)
    elif test.predicate == "within":
        paper = (claim.paper or {}).get("value", 0)
        low, high = against if isinstance(against, list) else (paper - against, paper + against)
        middle, wide = (low + high) / 2, 5 * (high - low)
        yield replace(test, against=[middle - wide, middle + wide])
    elif test.predicate == "order":
        words = re.split(r"\s*([<>])\s*", against.strip())
        for i, word in enumerate(words):
            for number in nearer(float(word)) if is_literal(word) else ():
                yield replace(test, against=" ".join([*words[:i], repr(number), *words[i + 1 :]]))


@pytest.mark.parametrize(("claim", "test", "metrics", "own"), TESTS)
def test_a_moved_number_changes_the_verdict(claim, test, metrics, own):
    before = judge(test, claim.metric, metrics, claim.paper)
    names = test.operands(claim.metric)
    step = max(size(claim, metrics[name]) + metrics[name].high - metrics[name].low for name in names)
    for name in names:
        moves = [sign * share * step for sign in (-1, 1) for share in (0.3, 1.0)]
        if name == claim.metric and "value" in (claim.paper or {}):
            moves.append(claim.paper["value"] - metrics[name].value)  # the paper's number must count
        after = {
            judge(test, claim.metric, {**metrics, name: metrics[name].moved(by)}, claim.paper) for by in moves
        }
        assert after != {before}, f"{name} may move by {step:g} and the verdict stays {before}"


@pytest.mark.parametrize(("claim", "test", "metrics", "own"), TESTS)
def test_a_small_effect_is_not_reproduced_and_a_loosened_test_is_noticed(claim, test, metrics, own):
    if judge(test, claim.metric, metrics, claim.paper) != "inconclusive":  # else the number has no size yet
        assert not is_loose(claim, test, metrics)
    if not own:  # a record's own tests are compared with the YAML below
        for looser in loosened(claim, test):
            assert is_loose(claim, looser, metrics), f"{test.against} became {looser.against}"


@pytest.mark.parametrize(("claim", "test", "metrics", "own"), TESTS)
def test_what_is_not_known_is_inconclusive(claim, test, metrics, own):
    unknown = dict.fromkeys(test.operands(claim.metric), Measured(float("nan"), 0, 0, 10))
    assert judge(test, claim.metric, {**metrics, **unknown}, claim.paper) == "inconclusive"


@pytest.mark.parametrize(("folder", "claim"), list(committed()))
def test_the_committed_record_says_what_its_numbers_say(folder, claim):
    (kept,) = [c for c in record.read(folder)["result"]["claims"] if c["id"] == claim.id]
    test = claim.at[folder.name]
    metrics = metrics_of(folder)
    assert (kept["predicate"], kept["against"], kept["null"]) == (test.predicate, test.against, claim.null)
    assert kept["verdict"] == judge(test, claim.metric, metrics, claim.paper)
    assert kept["verdict"] == claim.status.get(folder.name), "the registered verdict is another"
    assert kept["fragile"] == fragile(test, claim.metric, metrics, claim.paper)
    if kept["verdict"] != "not run":
        assert kept["n"] or kept["predicate"] == "exact", f"{claim.id} has no n"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ({"order": "m > 0.01"}, "chance passes"),
        ({"order": "m > 0.52"}, "a twentieth of the effect passes"),
        ({"within": [-1.0, 2.0]}, "wider than what an AUROC can be"),
        ({"greater": 0.1}, "chance passes"),
    ],
)
def test_loose_tests_of_an_auroc_are_found(raw, why):
    claim, metrics = SimpleNamespace(metric="m", null=0.5, paper=None), {"m": Measured(0.95, 0.93, 0.97, 8)}
    assert is_loose(claim, parse_test(raw | {"why": why}, None), metrics)
    assert not is_loose(claim, parse_test({"order": "m > 0.9", "why": "nine pairs in ten"}, None), metrics)


def test_committed_records_are_small_strict_json():
    assert RECORDS
    for path in RECORDS:
        json.loads(path.read_text(), parse_constant=pytest.fail)
        assert sum(f.stat().st_size for f in path.parent.rglob("*") if f.is_file()) < 3 * 2**20, (
            f"{path.parent} is big"
        )
