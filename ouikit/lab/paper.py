"""`chapters/<slug>.yaml`: the paper, its scales and its claims, validated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ouikit.lab.claims import VERDICTS, Test, parse_test

EVIDENCE = ("measured", "simulated", "analytic")
AREAS = (
    "activation patterns",
    "structure and quantity",
    "federated learning",
    "optimisers and initialisation",
    "matrix multiplication",
    "malleability and video",
)
_PAPER_KEYS = {"title": str, "authors": list, "year": int}
_CLAIM_KEYS = {"id", "says", "where", "metric", "paper", "status", "note"}


class PaperError(ValueError):
    """A chapter's YAML is wrong; the message names the file, the key and the fix."""


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, with the test that each scale puts it to."""

    id: str
    says: str
    where: str
    metric: str
    paper: dict[str, Any] | None
    at: dict[str, Test]
    status: dict[str, str]
    note: str | None


@dataclass(frozen=True)
class Paper:
    """What the book knows of a paper without running it."""

    slug: str
    title: str
    authors: list[str]
    year: int
    arxiv: str | None
    area: str
    idea: str
    evidence: str
    scales: dict[str, dict[str, Any]]
    claims: list[Claim]
    not_tested: list[str] = field(default_factory=list)


def read_paper(path: Path) -> Paper:
    """Read and validate one chapter's YAML.

    Raises:
        PaperError: naming the file, the key and the fix.
    """
    try:
        raw = yaml.load(path.read_text(), Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise PaperError(f"{path}: not valid YAML: {error}") from error
    return _Reader(path, raw).paper()


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, where YAML would let the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


class _Reader:
    """Walks the mapping; every complaint carries the file and the key."""

    def __init__(self, path: Path, raw: Any) -> None:
        self.path = path
        self.raw = self.mapping(raw, "the file")

    def fail(self, key: str, fix: str) -> NoReturn:
        raise PaperError(f"{self.path}: {key}: {fix}")

    def mapping(self, value: Any, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.fail(key, f"must be a mapping; got {value!r}")
        return value

    def known(self, value: Mapping[str, Any], allowed: set[str], key: str) -> None:
        for name in value:
            if name not in allowed:
                near = get_close_matches(str(name), allowed, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(sorted(allowed))}"
                self.fail(f"{key}.{name}", f"unknown key; {hint}")

    def listed(self, key: str) -> list[Any]:
        value = self.raw.get(key) or []
        if not isinstance(value, list):
            self.fail(key, f"must be a list; got {value!r}")
        return value

    def text(self, value: Any, key: str) -> str:
        if not isinstance(value, str) or not value.strip():
            self.fail(key, f"must be a sentence; got {value!r}")
        return value.strip()

    def choice(self, value: Any, allowed: tuple[str, ...], key: str) -> str:
        if value not in allowed:
            near = get_close_matches(str(value), allowed, n=1)
            self.fail(
                key, f"{value!r} is not one of {', '.join(allowed)}" + (f"; {near[0]!r}?" if near else "")
            )
        return value

    def paper(self) -> Paper:
        top = {"paper", "area", "idea", "evidence", "scales", "claims", "not_tested"}
        self.known(self.raw, top, "top level")
        head = self.mapping(self.raw.get("paper"), "paper")
        self.known(head, {*_PAPER_KEYS, "arxiv"}, "paper")
        for key, kind in _PAPER_KEYS.items():
            if not isinstance(head.get(key), kind):
                self.fail(f"paper.{key}", f"must be {kind.__name__}; got {head.get(key)!r}")
        scales = self.scales()
        return Paper(
            slug=self.path.stem,
            title=self.text(head["title"], "paper.title"),
            authors=[self.text(author, "paper.authors") for author in head["authors"]],
            year=head["year"],
            arxiv=None if head.get("arxiv") is None else str(head["arxiv"]),
            area=self.choice(self.raw.get("area"), AREAS, "area"),
            idea=self.text(self.raw.get("idea"), "idea"),
            evidence=self.choice(self.raw.get("evidence"), EVIDENCE, "evidence"),
            scales=scales,
            claims=self.claims(scales),
            not_tested=[self.text(x, "not_tested") for x in self.listed("not_tested")],
        )

    def scales(self) -> dict[str, dict[str, Any]]:
        scales = self.mapping(self.raw.get("scales"), "scales")
        if next(iter(scales), None) != "reduced" or scales["reduced"]:
            self.fail("scales.reduced", "must come first and be {}: the parameters cell is the reduced scale")
        return {name: self.mapping(value, f"scales.{name}") for name, value in scales.items()}

    def claims(self, scales: Mapping[str, Any]) -> list[Claim]:
        raw = self.raw.get("claims")
        if not isinstance(raw, list) or not raw:
            self.fail("claims", "must be a list with at least one claim")
        claims = [self.claim(self.mapping(c, f"claims[{i}]"), scales) for i, c in enumerate(raw)]
        for claim in claims:
            if sum(c.id == claim.id for c in claims) > 1:
                self.fail(f"claims.{claim.id}", "two claims have this id")
        return claims

    def claim(self, raw: dict[str, Any], scales: Mapping[str, Any]) -> Claim:
        key = f"claims.{raw.get('id', '?')}"
        self.known(raw, _CLAIM_KEYS | {f"at_{s}" for s in scales}, key)
        source = raw.get("paper")
        if source is not None:
            self.known(self.mapping(source, f"{key}.paper"), {"value", "text"}, f"{key}.paper")
        tests = {}
        for scale in scales:
            if f"at_{scale}" in raw:
                try:
                    tests[scale] = parse_test(raw[f"at_{scale}"], source)
                except ValueError as error:
                    self.fail(f"{key}.at_{scale}", str(error))
                if raw.get("metric") not in tests[scale].operands(str(raw.get("metric"))):
                    self.fail(
                        f"{key}.at_{scale}", f"the order does not name the metric {raw.get('metric')!r}"
                    )
        if not tests:
            self.fail(key, f"needs a test at one scale at least: {', '.join(f'at_{s}' for s in scales)}")
        claim = Claim(
            id=self.text(raw.get("id"), f"{key}.id"),
            says=self.text(raw.get("says"), f"{key}.says"),
            where=self.text(raw.get("where"), f"{key}.where"),
            metric=self.text(raw.get("metric"), f"{key}.metric"),
            paper=source,
            at=tests,
            status=self.status(raw.get("status"), tests, key),
            note=None if raw.get("note") is None else self.text(raw["note"], f"{key}.note"),
        )
        if "contradicted" in claim.status.values() and not claim.note:
            self.fail(f"{key}.note", "a registered 'contradicted' needs a note that says what was seen")
        return claim

    def status(self, raw: Any, tests: Mapping[str, Test], key: str) -> dict[str, str]:
        """`status: reproduced` registers a verdict at every tested scale; a mapping, scale by scale."""
        if raw is None:
            return {}
        if not isinstance(raw, dict):
            return {scale: self.choice(raw, VERDICTS, f"{key}.status") for scale in tests}
        self.known(raw, set(tests), f"{key}.status")
        return {scale: self.choice(v, VERDICTS, f"{key}.status.{scale}") for scale, v in raw.items()}
