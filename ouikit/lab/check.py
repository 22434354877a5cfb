"""The form of a chapter: what must hold before it is run, so that twenty chapters read as one book."""

import ast
import re
from collections.abc import Iterator

from ouikit.lab import notebook, parameters
from ouikit.lab.chapter import Chapter
from ouikit.lab.paper import PaperError

SECTIONS = [
    "In one minute",
    "What the paper claims",
    "Parameters",
    "Method",
    "Experiment",
    "Results",
    "Paper vs ours",
    "Try it yourself",
    "Provenance and cite",
]
LONGEST_CELL = 15
INTERVAL = re.compile(r"\d \[[-−]?\d[\d.]*, [-−]?\d[\d.]*\]")  # as in 0.71 [0.66, 0.75]


def problems(chapter: Chapter) -> list[str]:
    """Everything that is wrong with a chapter's two files; empty when it may be published."""
    try:
        chapter.paper, chapter.parameters  # noqa: B018 (reading validates)
    except (PaperError, ValueError) as error:
        return [str(error)]
    return [f"{chapter.path.name}: {line}" for line in (*_form(chapter), *_code(chapter), *_scales(chapter))]


def _form(chapter: Chapter) -> Iterator[str]:
    nb = notebook.read(chapter.path)
    prose = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
    headings = [
        line[3:].strip() for source in prose for line in source.splitlines() if line.startswith("## ")
    ]
    if not nb.cells or not nb.cells[0].source.startswith("# "):
        yield "the first cell must be the title, `# …`"
    if headings != SECTIONS:
        yield f"sections must be {SECTIONS}; they are {headings}"
    for source in prose:
        if measured := INTERVAL.search(source):
            yield f"prose states a result of a run, which the next run may change: {measured[0]}"
    if not notebook.normalise(chapter.path, check=True):
        yield f"not in normal form (outputs or metadata); run `ouikit check --fix {chapter.slug}`"


def _code(chapter: Chapter) -> Iterator[str]:
    calls: list[ast.Call] = []
    for i, lines in notebook.long_cells(notebook.read(chapter.path), LONGEST_CELL):
        yield f"visible code cell {i} has {lines} lines; {LONGEST_CELL} at most: move it to ouikit"
    for i, source in enumerate(chapter.code):
        try:
            calls += [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        except SyntaxError as error:
            yield f"code cell {i} is not plain Python: {error.msg}: {(error.text or '').strip()}"
    for call in calls:
        if ast.unparse(call.func) == "study.figure":
            words = {k.arg: k.value for k in call.keywords}
            if not words.get("alt") or ast.unparse(words["alt"]) in ("''", '""'):
                yield f"a figure has no alt text: {ast.unparse(call)[:60]}"
    for needed in ("begin", "report", "provenance"):
        if sum(_name(call) == needed for call in calls) != 1:
            yield f"must call {needed}() exactly once"


def _scales(chapter: Chapter) -> Iterator[str]:
    for scale, overrides in chapter.paper.scales.items():
        try:
            parameters.resolve(chapter.parameters, overrides)
        except parameters.ParameterError as error:
            yield f"scales.{scale}: {error}"
    for claim in chapter.paper.claims:
        if "reduced" in claim.at and "reduced" not in claim.status:
            yield f"claims.{claim.id}: no verdict is registered at reduced; run the chapter and register it"


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
