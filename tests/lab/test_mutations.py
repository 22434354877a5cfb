"""A claim that cannot fail is no claim: mutate every number behind a verdict, and the verdict must change."""

import dataclasses
import json
from pathlib import Path

import pytest
from conftest import ROOT

from ouikit.lab import record
from ouikit.lab.chapter import Chapter
from ouikit.lab.claims import Measured, judge
from ouikit.lab.paper import Claim

RECORDS = sorted((ROOT / "book" / "results").glob("*/*/record.json"))


# Chapters whose tests at reduced scale can be left by a number of the size that the extended scale measured.
REDUCED_TOO = ("oui_weight_decay", "ouidecay", "ppo_learning_rate", "regime_change")


def cases() -> list:
    return list(_cases())


def _cases():
    for path in RECORDS:
        found = record.read(path.parent)
        chapter = Chapter(found["run"]["slug"], ROOT)
        for claim in chapter.paper.claims:
            if found["run"]["scale"] in claim.at:
                yield pytest.param(path.parent, claim, id=f"{chapter.slug}-{path.parent.name}-{claim.id}")


def moves_of() -> list:
    """What is moved: every test of every committed record, and the tests that are looser at reduced scale."""
    found = [pytest.param(*case.values, case.values[0].name, id=case.id) for case in cases()]
    for path in RECORDS:
        chapter = Chapter(record.read(path.parent)["run"]["slug"], ROOT)
        for claim in chapter.paper.claims if chapter.slug in REDUCED_TOO else []:
            if claim.at.get("reduced") not in (None, claim.at.get(path.parent.name)):
                found.append(
                    pytest.param(path.parent, claim, "reduced", id=f"{chapter.slug}-reduced-{claim.id}")
                )
    return found


def metrics_of(folder: Path) -> dict[str, Measured]:
    return {name: Measured.of(m) for name, m in record.read(folder)["result"]["metrics"].items()}


def verdict(claim: Claim, scale: str, metrics: dict[str, Measured]) -> str:
    return judge(claim.at[scale], claim.metric, metrics, claim.paper)


def moved(m: Measured, by: float) -> Measured:
    return dataclasses.replace(m, value=m.value + by, low=m.low + by, high=m.high + by)


@pytest.mark.parametrize(("folder", "claim", "scale"), moves_of())
def test_a_moved_number_changes_the_verdict(folder, claim, scale):
    metrics = metrics_of(folder)
    test, before = claim.at[scale], verdict(claim, scale, metrics)
    for name in test.operands(claim.metric):
        m = metrics[name]
        # Up to the effect itself, as measured, and the width of what is known: no tolerance may swallow both.
        step = abs(m.value) + (m.high - m.low) + 1e-9
        moves = [sign * share * step for sign in (-1, 1) for share in (0.1, 0.3, 1.0)]
        if name == claim.metric and "value" in (claim.paper or {}):
            moves.append(claim.paper["value"] - m.value)  # our number may be anywhere; the paper's must count
        after = {verdict(claim, scale, {**metrics, name: moved(m, by)}) for by in moves}
        assert after != {before}, f"{claim.id}: {name} may move by itself and the verdict stays {before}"


@pytest.mark.parametrize(("folder", "claim"), cases())
def test_an_effect_that_is_absent_is_not_reproduced(folder, claim):
    test, metrics = claim.at[folder.name], metrics_of(folder)
    if test.predicate in ("greater", "trend"):
        nothing = {**metrics, claim.metric: Measured(0.0, -1e-9, 1e-9, 10)}
        assert verdict(claim, folder.name, nothing) in ("inconclusive", "contradicted")
    unknown = dict.fromkeys(test.operands(claim.metric), Measured(float("nan"), 0, 0, 10))
    assert verdict(claim, folder.name, {**metrics, **unknown}) == "inconclusive"


@pytest.mark.parametrize(("folder", "claim"), cases())
def test_the_committed_record_says_what_its_numbers_say(folder, claim):
    (kept,) = [c for c in record.read(folder)["result"]["claims"] if c["id"] == claim.id]
    assert kept["verdict"] == verdict(claim, folder.name, metrics_of(folder))
    assert kept["verdict"] == claim.status.get(folder.name), "the registered verdict is another"
    if kept["verdict"] != "not run":
        assert kept["n"] or kept["predicate"] == "exact", f"{claim.id} has no n"


def test_committed_records_are_small_strict_json():
    assert RECORDS
    for path in RECORDS:
        json.loads(path.read_text(), parse_constant=pytest.fail)
        assert sum(f.stat().st_size for f in path.parent.rglob("*") if f.is_file()) < 3 * 2**20, (
            f"{path.parent} is big"
        )
