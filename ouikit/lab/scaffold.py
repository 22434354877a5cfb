"""`ouikit new`: a chapter pair that runs, checks and renders at once."""

import json
import re
from pathlib import Path


class SlugError(ValueError):
    """A slug that cannot name a chapter."""


TEMPLATES = Path(__file__).with_name("templates")


def write(root: Path, slug: str, title: str) -> list[Path]:
    """Write `chapters/<slug>.ipynb` and `.yaml` from the templates and return their paths.

    Raises:
        SlugError: if the slug is not lower case with underscores.
        FileExistsError: if one of the files is there already; nothing is overwritten.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", slug):
        raise SlugError(
            f"slug {slug!r}: use lower-case letters, digits and underscores, for example my_paper"
        )
    if not title.strip():
        raise SlugError('the title is empty; give --title "What the paper is called"')
    pair = [root / "chapters" / f"{slug}{kind}" for kind in (".ipynb", ".yaml")]
    for path in pair:
        if path.exists():
            raise FileExistsError(f"{path} is there already; choose another slug or remove it")
    for path in pair:
        text = TEMPLATES.joinpath(f"chapter{path.suffix}").read_text()
        quoted = json.dumps(title.strip(), ensure_ascii=False)  # a valid scalar in YAML, and inside JSON
        title_there = {".yaml": ('"My paper\'s title"', quoted), ".ipynb": ("My paper's title", quoted[1:-1])}
        path.write_text(text.replace("my_paper", slug).replace(*title_there[path.suffix]))
    return pair
