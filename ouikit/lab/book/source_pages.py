"""The pages of source code that the API pages link to, as `sphinx.ext.viewcode` makes them.

To see whether a page is older than its module, viewcode 7.4 imports the module: all of torch, Lightning and
Transformers whenever a sentence of the book has changed. The module's file is found without that.
"""

from functools import cache
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext import viewcode

from ouikit.lab.keys.packages import modules

_modules = cache(modules)  # one build reads one tree


def file_of(app: Sphinx, modname: str) -> str | None:
    """The file of a module; None where none is found, and viewcode then writes the page again."""
    path = _modules(modname.partition(".")[0]).get(modname)
    return None if path is None else str(path)


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls for an extension."""
    viewcode.get_module_filename = file_of
    return dict(viewcode.setup(app))
