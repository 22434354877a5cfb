"""A chapter's YAML: what is read, and the message for everything that can be wrong with it."""

import copy

import pytest
import yaml

from ouikit.lab.paper import PaperError, read_paper

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
            "metric": "best.oui",
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
        (changed("papers", value={}), "top level.papers", "did you mean 'paper'"),
        (changed("paper", "year", value="2025"), "paper.year", "must be int"),
        (changed("evidence", value="measure"), "evidence", "'measured'?"),
        (changed("area", value="cooking"), "area", "is not one of"),
        (changed("scales", value={"extended": {}}), "scales.reduced", "must come first"),
        (changed("scales", "reduced", value={"seeds": [0]}), "scales.reduced", "parameters cell"),
        (changed("claims", value=[]), "claims", "at least one"),
        (changed("claims", 0, "at_reducd", value={}), "claims.band.at_reducd", "did you mean 'at_reduced'"),
        (changed("claims", 0, "at_reduced", value={"within": 0.1}), "claims.band.at_reduced", "why"),
        (changed("claims", 0, "status", value="fine"), "claims.band.status", "is not one of"),
        (changed("claims", 0, "status", value="contradicted"), "claims.band.note", "needs a note"),
        (changed("claims", 0, "says", value=""), "claims.band.says", "must be a sentence"),
        (changed("claims", value=[GOOD["claims"][0]] * 2), "claims.band", "two claims"),
        (
            changed("claims", 0, "at_reduced", value={"order": "other > 1", "why": "x"}),
            "claims.band.at_reduced",
            "name the metric",
        ),
        (changed("claims", 0, "note", value=5), "claims.band.note", "must be a sentence"),
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
