"""A chapter's YAML: what is read, and the message for everything that can be wrong with it."""

import copy
import json
import math

import jsonschema
import pytest
import yaml
from conftest import ROOT

from ouikit.lab.forms import UniqueKeys
from ouikit.lab.paper import AREAS, SCHEMA, PaperError, read_paper, schema

GOOD = {
    "paper": {"title": "On things", "authors": ["A. Author"], "year": 2025, "arxiv": "2504.17160"},
    "area": "activation patterns",
    "idea": "Things happen.",
    "evidence": "measured",
    "scales": {"reduced": {}, "extended": {"seeds": [0, 1]}},
    "claims": [
        {
            "id": "band",
            "says": "It lies in a band.",
            "where": "abstract",
            "source": "abstract",
            "metric": "best.oui",
            "null": 0.5,
            "paper": {"value": 0.7},
            "at_reduced": {"within": 0.1, "why": "the width of the band"},
            "at_extended": {"within": 0.05, "why": "more seeds"},
            "status": {"reduced": "reproduced"},
        }
    ],
    "not_tested": ["ImageNet"],
}


def write(tmp_path, raw):
    path = tmp_path / "my_paper.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw, sort_keys=False))
    return path


def changed(*where, value):
    raw = copy.deepcopy(GOOD)
    part = raw
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    return raw


def test_a_good_file_is_read(tmp_path):
    paper = read_paper(write(tmp_path, GOOD))
    assert (paper.slug, paper.arxiv, list(paper.scales)) == (
        "my_paper",
        "2504.17160",
        ["reduced", "extended"],
    )
    (claim,) = paper.claims
    assert claim.at["extended"].against == 0.05
    assert claim.status == {"reduced": "reproduced"}


def test_one_status_registers_every_tested_scale(tmp_path):
    (claim,) = read_paper(write(tmp_path, changed("claims", 0, "status", value="weaker"))).claims
    assert claim.status == {"reduced": "weaker", "extended": "weaker"}


@pytest.mark.parametrize(
    ("raw", "key", "fix"),
    [
        (changed("papers", value={}), "papers", "did you mean 'paper'"),
        (changed("paper", "year", value="2025"), "paper.year", "must be a whole number"),
        (changed("evidence", value="measure"), "evidence", "'measured'?"),
        (changed("area", value="cooking"), "area", "is not one of"),
        (changed("scales", value={"extended": {}}), "scales", "'reduced' must come first"),
        (changed("scales", "reduced", value={"seeds": [0]}), "scales", "'reduced' must come first and be {}"),
        (changed("claims", value=[]), "claims", "at least one"),
        (changed("claims", 0, "at_reducd", value={}), "claims.band.at_reducd", "did you mean 'at_reduced'"),
        (changed("claims", 0, "at_reduced", value={"within": 0.1}), "claims.band.at_reduced", "why"),
        (changed("claims", 0, "status", value="fine"), "claims.band.status", "is not one of"),
        (changed("claims", 0, "status", value="contradicted"), "claims.band.note", "needs a note"),
        (changed("claims", 0, "says", value=""), "claims.band.says", "must be a sentence"),
        (changed("claims", value=[GOOD["claims"][0]] * 2), "claims", "two claims have the id 'band'"),
        (changed("claims", value=["band"]), "claims.0", "must be a mapping"),
        (
            changed("claims", 0, "paper", value={"text": "x", "val": 1}),
            "claims.band.paper.val",
            "did you mean 'value'",
        ),
        (
            changed("claims", 0, "status", value={"reducd": "weaker"}),
            "claims.band.status",
            "did you mean 'reduced'",
        ),
        (changed("paper", "arxiv", value=2504.1716), "paper.arxiv", "put it in quotes"),
        (changed("names", value={"best.oui": "OUI"}), "names", "'best.oui' is printed nowhere"),
        (
            changed("claims", 0, "at_reduced", value={"order": "best.oui > other", "why": "x"}),
            "names",
            "add words for best.oui, other",
        ),
        ({key: value for key, value in GOOD.items() if key != "idea"}, "idea", "is missing"),
        (
            changed("claims", 0, "at_reduced", value={"order": "other > 1", "why": "x"}),
            "claims.band.at_reduced",
            "name the metric",
        ),
        (changed("claims", 0, "note", value=5), "claims.band.note", "must be a sentence"),
        (changed("claims", 0, "null", value="0.5"), "claims.band.null", "must be a number; got '0.5'"),
        (changed("claims", 0, "null", value=math.inf), "claims.band.null", "must be a finite number"),
        (
            changed("claims", 0, "null", value=0.65),
            "claims.band.at_reduced",
            "narrow the test, or correct `null`",
        ),
        (
            changed("claims", 0, "paper", "value", value=math.nan),
            "claims.band.paper.value",
            "a finite number",
        ),
        (
            changed("claims", 0, "at_reduced", value={"order": "best.oui > 0.01", "why": "x"}),
            "claims.band.at_reduced",
            "says 'reproduced' at the claim's null, 0.5, and so cannot fail",
        ),
        (
            changed("claims", 0, "at_extended", value={"within": [-1, 2], "why": "wider than its range"}),
            "claims.band.at_extended",
            "cannot fail",
        ),
        (changed("not_tested", value="all"), "not_tested", "must be a list"),
        (changed("paper", "title", value=""), "paper.title", "must be a sentence"),
        ("evidence: measured\nevidence: analytic\n", "", "'evidence' is given twice"),
        ("paper: [", "", "not valid YAML"),
        ("just words", "the file", "must be a mapping"),
    ],
)
def test_an_error_names_file_key_and_fix(tmp_path, raw, key, fix):
    path = write(tmp_path, raw)
    with pytest.raises(PaperError) as error:
        read_paper(path)
    assert str(error.value).startswith(f"{path}: {key}")
    assert fix in str(error.value)


def test_a_claim_says_where_its_metric_lies_if_it_is_false(tmp_path):
    without = changed("claims", 0, "null", value=None)
    del without["claims"][0]["null"]
    with pytest.raises(
        PaperError, match=r"claims\.band\.null: is missing; it says: Where the metric lies if"
    ):
        read_paper(write(tmp_path, without))
    as_people_write_it = yaml.safe_dump(GOOD, sort_keys=False).replace("'null': 0.5", "null: 0.5")
    assert "  null: 0.5" in as_people_write_it  # a key that YAML alone would read as None
    assert read_paper(write(tmp_path, as_people_write_it)).claims[0].null == 0.5


@pytest.mark.parametrize(
    "tolerance", [".inf", "-.inf", ".nan", "[-.inf, .inf]", "[0.6, .inf]", "[.nan, 0.8]"]
)
def test_a_tolerance_is_finite(tmp_path, tolerance):
    text = yaml.safe_dump(GOOD, sort_keys=False).replace("within: 0.1", f"within: {tolerance}")
    with pytest.raises(PaperError, match=r"claims\.band\.at_reduced: within: write a .*finite"):
        read_paper(write(tmp_path, text))


def test_every_error_is_listed(tmp_path):
    raw = changed("claims", 0, "says", value="")
    with pytest.raises(PaperError) as error:
        read_paper(write(tmp_path, raw | {"evidence": "guessed", "idea": None}))
    assert [line.split(": ")[1] for line in str(error.value).splitlines()] == [
        "idea",
        "evidence",
        "claims.band.says",
    ]


def test_papers_of_an_area_are_sorted_by_order_then_year_then_slug(tmp_path):
    written = {
        "c": changed("paper", "year", value=2024),
        "a": GOOD,
        "b": GOOD,
        "d": changed("order", value=-1),
        "e": changed("order", value=1),
        "f": changed("area", value=AREAS[-1]),
    }
    papers = []
    for slug, raw in reversed(written.items()):
        (tmp_path / f"{slug}.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
        papers.append(read_paper(tmp_path / f"{slug}.yaml"))
    assert [paper.slug for paper in sorted(papers, key=lambda p: p.place)] == ["d", "c", "a", "b", "e", "f"]


def test_the_schema_for_editors_is_up_to_date():
    assert SCHEMA.read_text() == schema(), "run `python -m ouikit.lab.paper`"


CHAPTERS = [
    *sorted((ROOT / "chapters").glob("*.yaml")),
    ROOT / "ouikit" / "lab" / "templates" / "chapter.yaml",
]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_editors_accept_every_chapter_by_the_schema_that_it_names(path):
    line = path.read_text().splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (ROOT / "chapters" / line).resolve() == SCHEMA
    raw = yaml.load(path.read_text(), Loader=UniqueKeys)
    jsonschema.validate(raw, json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize(
    "raw",
    [
        changed("area", value="cooking"),
        changed("claims", 0, "at_reduced", value={"within": 0.1}),
        changed("claims", 0, "status", value="fine"),
        changed("claims", 0, "sais", value="x"),
        changed("claims", 0, "null", value="half"),
        changed("slug", value="x"),
        {key: value for key, value in GOOD.items() if key != "idea"},
    ],
)
def test_editors_refuse_by_the_schema_what_the_reader_refuses(raw, tmp_path):
    jsonschema.validate(GOOD, json.loads(SCHEMA.read_text()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(raw, json.loads(SCHEMA.read_text()))
    with pytest.raises(PaperError):
        read_paper(write(tmp_path, raw))
