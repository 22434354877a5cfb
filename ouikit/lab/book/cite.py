"""Citation entries, from the chapters' YAML alone: BibTeX and CITATION.cff."""

import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from ouikit.lab.paper import Citation, Paper

_OTHERS = re.compile(r"and \w+ others|and others")


def family_name(author: str) -> str:
    """`Mestre` of `Jose I. Mestre` and of `Mestre, Jose I.`."""
    return _parts(author)[0]


def _parts(author: str) -> tuple[str, str]:
    """Family and given name; a name without a comma ends with the family's."""
    if "," in author:
        family, _, given = author.partition(",")
    else:
        given, _, family = author.rpartition(" ")
    return family.strip(), given.strip()


def bibtex(slug: str, paper: Citation) -> str:
    """The paper as a BibTeX entry whose key is the chapter's slug."""
    authors = ["others" if _OTHERS.fullmatch(author) else author for author in paper.authors]
    fields = {"title": f"{{{paper.title}}}", "author": " and ".join(authors), "year": str(paper.year)}
    if paper.venue:
        fields["howpublished"] = paper.venue
    if paper.doi:
        fields["doi"] = paper.doi
    if paper.arxiv:
        fields |= {"eprint": paper.arxiv, "archiveprefix": "arXiv"}
        fields["url"] = f"https://arxiv.org/abs/{paper.arxiv}"
    body = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
    return f"@misc{{{slug},\n{body}}}\n"


def reference(paper: Citation) -> dict[str, object]:
    """The paper as an entry of the `references` of a CITATION.cff."""
    people = []
    for author in paper.authors:
        family, given = _parts(author)
        if _OTHERS.fullmatch(author):
            people.append({"name": "and others"})
        else:
            people.append({"family-names": family} | ({"given-names": given} if given else {}))
    names = [{"type": "other", "value": f"arXiv:{paper.arxiv}"}] if paper.arxiv else []
    names += [{"type": "doi", "value": paper.doi}] if paper.doi else []
    entry = {"type": "article", "title": paper.title, "authors": people, "year": paper.year}
    return entry | ({"identifiers": names} if names else {})


def refresh(citation_file: Path, papers: Iterable[Paper]) -> None:
    """Write the `references` of a CITATION.cff anew, in the order of the book; its head stays as it is.

    A file that is up to date, or absent, is left alone.
    """
    if not citation_file.exists():
        return
    before = citation_file.read_text()
    head, _, _ = before.partition("references:\n")
    entries = [reference(paper.citation) for paper in sorted(papers, key=lambda paper: paper.place)]
    listed = {"references": entries}
    after = head + yaml.safe_dump(listed, sort_keys=False, allow_unicode=True, width=110)
    if after != before:
        citation_file.write_text(after)
