"""`chapters/<slug>.yaml`: the paper, its scales and its claims, validated.

The models below are also the source of `chapter.schema.json`, by which editors complete and check the files.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from ouikit.lab.claims import PREDICATES, Test, Verdict, holds_at, parse_test
from ouikit.lab.forms import UniqueKeys, fix
from ouikit.lab.parameters import nearest

Evidence = Literal["measured", "simulated", "analytic"]
Area = Literal[
    "activation patterns",
    "structure and quantity",
    "federated learning",
    "optimisers and initialisation",
    "matrix multiplication",
    "malleability and video",
]
AREAS: tuple[str, ...] = get_args(Area)  # in the order of the book's parts
Source = Literal["abstract", "text", "released", "secondary", "ours", "check"]
OUR_OWN = ("ours", "check")  # never counted as a paper's claims
_STEM = "the file's stem"  # stands for the slug beside the keys of a file
SCHEMA = Path(__file__).with_name("chapter.schema.json")

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class PaperError(ValueError):
    """A chapter's YAML is wrong; the message names the file, each wrong key and its fix."""


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)


class Citation(_Section):
    """The paper, as it is cited."""

    title: Text
    authors: Annotated[list[Text], Field(min_length=1)]
    """`Given Family`, or `Family, Given`; the last may be `and three others`."""
    year: int
    arxiv: Text | None = None
    """The identifier, in quotes: YAML would read it as a number."""
    venue: Text | None = None
    """The journal or the proceedings, with volume and pages."""
    doi: Text | None = None


class Said(TypedDict, total=False):
    """What the paper says on a claim: a number that a tolerance or a ratio is measured from, or words."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)  # type: ignore[misc]
    value: int | float
    text: Text


def _read_test(raw: Any, info: ValidationInfo) -> Test:
    """One test of a claim; `info.data` holds the fields that stand before it in `Claim`."""
    test = parse_test(raw, info.data.get("paper"))
    metric = info.data.get("metric")
    if metric not in test.operands(str(metric)):
        raise ValueError(f"the order does not name the metric {metric!r}")
    null = info.data.get("null")
    if null is not None and holds_at(test, str(metric), null, info.data.get("paper")):
        raise ValueError(f"says 'reproduced' at the claim's null, {null:g}, and so cannot fail; {_TIGHTEN}")
    return test


_TIGHTEN = "narrow the test, or correct `null`: where the metric lies if the claim is false"


_TEST_SCHEMA = {
    "type": "object",
    "description": "One predicate, and why this tolerance.",
    "properties": {name: {} for name in PREDICATES} | {"why": {"type": "string", "minLength": 1}},
    "required": ["why"],
    "minProperties": 2,
    "maxProperties": 2,
    "additionalProperties": False,
}


def _claim_schema(schema: dict[str, Any]) -> None:
    """In the file a claim has one key for each scale, and `status` may be one word."""
    schema["patternProperties"] = {"^at_": schema["properties"].pop("at")["additionalProperties"]}
    schema["required"].remove("at")
    status = schema["properties"]["status"]
    word = status.pop("additionalProperties")
    status.pop("type")
    status["anyOf"] = [word, {"type": "object", "additionalProperties": word}]


class Claim(_Section):
    """One claim of a paper, with the test that each scale puts it to."""

    model_config = ConfigDict(json_schema_extra=_claim_schema)

    id: Text
    """Unique in the file."""
    says: Text
    """The claim in one sentence, with the size that is tested in it."""
    where: Text
    """Where the paper says so: abstract, Table 2, Figure 3 …; or `ours`."""
    source: Source
    """Who says so: the paper's abstract or text, what its authors released, a secondary source. No claim of
    the paper is `ours` (a control) or `check` (an identity, a theorem, a count: a test of the program)."""
    metric: Text
    """A name that the notebook reports."""
    null: Annotated[float, Field(allow_inf_nan=False)]
    """Where the metric lies if the claim is false: 0 for a difference, 1 for a ratio, 0.5 for an AUROC. In an
    order of several metrics all of them lie there. No test may say *reproduced* at the null."""
    paper: Said | None = None
    """What the paper says: {value: 0.71}, or {text: falls}."""
    at: dict[str, Annotated[Test, BeforeValidator(_read_test), WithJsonSchema(_TEST_SCHEMA)]]
    """The tests by scale; in the file `at_reduced`, `at_extended`, …"""
    status: dict[str, Verdict] = {}
    """The registered verdict of each scale; one word holds for every tested scale."""
    note: Annotated[Text | None, Field(validate_default=True)] = None
    """What was seen instead; required beside a registered `contradicted`."""

    @model_validator(mode="before")
    @classmethod
    def _gather_tests(cls, raw: Any, info: ValidationInfo) -> Any:
        """`at_<scale>` of the file's scales become `at`; any other unknown key stays, and is refused."""
        if not isinstance(raw, dict):
            return raw
        tests = {scale: raw[f"at_{scale}"] for scale in info.context or () if f"at_{scale}" in raw}
        rest = {key: value for key, value in raw.items() if key not in {f"at_{scale}" for scale in tests}}
        if rest.get("status", {}) is None:
            del rest["status"]
        elif not isinstance(rest.get("status", {}), dict):
            rest["status"] = dict.fromkeys(tests, rest["status"])
        return rest | {"at": tests}

    @field_validator("at")
    @classmethod
    def _tested_somewhere(cls, at: dict[str, Test], info: ValidationInfo) -> dict[str, Test]:
        if not at:
            keys = ", ".join(f"at_{scale}" for scale in info.context or ())
            raise ValueError(f"needs a test at one scale at least: {keys}")
        return at

    @field_validator("status")
    @classmethod
    def _registered_where_tested(cls, status: dict[str, Verdict], info: ValidationInfo) -> dict[str, Verdict]:
        for scale in status:
            if scale not in info.data.get("at", status):
                raise ValueError(f"{scale!r}: {nearest(scale, info.data['at'])}")
        return status

    @field_validator("note")
    @classmethod
    def _explained(cls, note: str | None, info: ValidationInfo) -> str | None:
        if "contradicted" in info.data.get("status", {}).values() and not note:
            raise ValueError("a registered 'contradicted' needs a note that says what was seen")
        return note


def _paper_schema(schema: dict[str, Any]) -> None:
    """The slug is no key of the file."""
    del schema["properties"][_STEM]
    schema["required"].remove(_STEM)


class Headline(_Section):
    """What stands for the chapter at its head and on the Results page."""

    claims: Annotated[list[Text], Field(min_length=1, max_length=3)]
    """Ids of the claims that the abstract is about."""
    figure: Text
    """The name of the one figure."""


class Paper(_Section):
    """What the book knows of a paper without running it."""

    model_config = ConfigDict(json_schema_extra=_paper_schema)

    slug: Annotated[str, Field(alias=_STEM)]
    """Name of the chapter's two files."""
    citation: Annotated[Citation, Field(alias="paper")]
    area: Area
    """The part of the book."""
    order: int = 0
    """Inside its area: papers are sorted by this number, then by year and slug."""
    idea: Text
    """One sentence that says what the paper found."""
    evidence: Evidence
    scales: dict[str, dict[str, Any]]
    """Parameters that differ from the notebook's parameters cell, which is the reduced scale."""
    claims: Annotated[list[Claim], Field(min_length=1)]
    names: Annotated[dict[str, Text], Field(validate_default=True)] = {}
    """Words for every metric that a page would else print as its key: those of an `order` of several."""
    headline: Headline | None = None
    """Left out, it is the first three claims of the abstract and the first figure."""
    not_tested: list[Text] = []
    """What is not tested at any scale, and why."""

    @property
    def title(self) -> str:
        return self.citation.title

    @property
    def authors(self) -> list[str]:
        return self.citation.authors

    @property
    def year(self) -> int:
        return self.citation.year

    @property
    def arxiv(self) -> str | None:
        return self.citation.arxiv

    @property
    def headlines(self) -> list[Claim]:
        """The claims at the head of the chapter, three at most, in their order."""
        if self.headline:
            by_id = {claim.id: claim for claim in self.claims}
            return [by_id[name] for name in self.headline.claims]
        papers = [claim for claim in self.claims if claim.source not in OUR_OWN]
        first = [claim for claim in papers if claim.source == "abstract"]
        return (first or papers or self.claims)[:3]

    @property
    def place(self) -> tuple[int, int, int, str]:
        """Sorts papers as the book lists them."""
        return AREAS.index(self.area), self.order, self.year, self.slug

    @field_validator("scales")
    @classmethod
    def _reduced_first(cls, scales: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if next(iter(scales), None) != "reduced" or scales["reduced"]:
            raise ValueError("'reduced' must come first and be {}: the parameters cell is the reduced scale")
        return scales

    @field_validator("claims")
    @classmethod
    def _unique(cls, claims: list[Claim]) -> list[Claim]:
        ids = [claim.id for claim in claims]
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"two claims have the id {name!r}")
        return claims

    @field_validator("headline")
    @classmethod
    def _headline_known(cls, headline: Headline | None, info: ValidationInfo) -> Headline | None:
        ids = [claim.id for claim in info.data.get("claims", [])]
        for name in headline.claims if headline and ids else ():
            if name not in ids:
                raise ValueError(f"no claim {name!r}: {nearest(name, ids)}")
        return headline

    @field_validator("names")
    @classmethod
    def _named(cls, names: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        claims = info.data.get("claims", [])
        printed = {name for claim in claims for test in claim.at.values() for name in test.printed()}
        if missing := sorted(printed - names.keys()):
            raise ValueError(f"add words for {', '.join(missing)}: a page prints them")
        for name in names if claims else ():
            if name not in printed:
                raise ValueError(f"{name!r} is printed nowhere: {nearest(name, printed)}")
        return names


def read_paper(path: Path) -> Paper:
    """Read and validate one chapter's YAML.

    Raises:
        PaperError: naming the file, and each wrong key with its fix.
    """
    try:
        raw = yaml.load(path.read_text(), Loader=UniqueKeys)
    except yaml.YAMLError as error:
        raise PaperError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise PaperError(f"{path}: the file: must be a mapping; got {raw!r}")
    scales = list(raw["scales"]) if isinstance(raw.get("scales"), dict) else []
    try:
        return Paper.model_validate(raw | {_STEM: path.stem}, context=scales)
    except ValidationError as error:
        lines = [
            f"{path}: {_key(loc, raw)}: {fix(one, _allowed(loc, scales), _meaning(loc))}"
            for one in error.errors()
            for loc in [one["loc"]]
        ]
        raise PaperError("\n".join(lines)) from error


def _key(loc: tuple[int | str, ...], raw: Mapping[str, Any]) -> str:
    """`claims.band.at_reduced` of `("claims", 0, "at", "reduced")`: as the file says it."""
    parts = list(loc)
    if parts[0] == "claims" and len(parts) > 1:
        claim = raw["claims"][parts[1]]
        parts[1] = claim.get("id", parts[1]) if isinstance(claim, dict) else parts[1]
        if parts[2:3] == ["at"]:
            parts[2:4] = [f"at_{parts[3]}"] if len(parts) > 3 else []
    return ".".join(map(str, parts))


def _allowed(loc: tuple[int | str, ...], scales: Iterable[str]) -> list[str]:
    """The keys of the section that a key stands in."""
    if len(loc) == 1:
        return [field.alias or name for name, field in Paper.model_fields.items() if name != "slug"]
    if loc[0] == "paper":
        return list(Citation.model_fields)
    if loc[0] == "headline":
        return list(Headline.model_fields)
    if "paper" in loc:
        return list(Said.__annotations__)
    return [name for name in Claim.model_fields if name != "at"] + [f"at_{scale}" for scale in scales]


def _meaning(loc: tuple[int | str, ...]) -> str | None:
    """What a key of the file or of a claim says; None elsewhere."""
    section = Claim if loc[0] == "claims" else Paper
    field = section.model_fields.get(str(loc[-1])) if len(loc) in (1, 3) else None
    return field and field.description


def schema() -> str:
    """The text of `chapter.schema.json`: the form of a chapter's YAML as a JSON schema, for editors."""
    form = Paper.model_json_schema()
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **form}, indent=1) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(schema())
