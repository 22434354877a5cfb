"""The site's checker finds what it is there to find."""

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

GOOD = '<html><body><h1 id="top">A</h1><a href="b.html#end">b</a><a href="https://x.org">x</a></body></html>'


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    path = Path(__file__).parents[2] / "ci" / "check_site.py"
    spec = importlib.util.spec_from_file_location("check_site", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_site"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text(GOOD)
    (tmp_path / "b.html").write_text('<html><body><p id="end"><img src="x.png" alt=""></p></body></html>')
    (tmp_path / "x.png").write_text("")
    (tmp_path / "_static").mkdir()
    return tmp_path


def test_a_good_site_passes(checker: ModuleType, site: Path) -> None:
    assert checker.check_files(site) == []


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('<a href="gone.html">', "index.html: broken link gone.html"),
        ('<a href="b.html#middle">', "index.html: broken link b.html#middle"),
        ('<a href="#nowhere">', "index.html: broken link #nowhere"),
        ('<img src="x.png">', "index.html: image without alternative text: x.png"),
        (
            '<script src="https://cdn.org/a.js"></script>',
            "index.html: would load https://cdn.org/a.js from outside",
        ),
        (
            "<script>load('https://cdn.org/b.js')</script>",
            "index.html: would load https://cdn.org/b.js from outside",
        ),
        (
            '<link rel="stylesheet" href="//cdn.org/c.css">',
            "index.html: would load //cdn.org/c.css from outside",
        ),
    ],
)
def test_each_fault_is_named(checker: ModuleType, site: Path, body: str, complaint: str) -> None:
    (site / "index.html").write_text(GOOD.replace("</body>", f"{body}</body>"))
    assert checker.check_files(site) == [complaint]


def test_a_style_sheet_must_not_load_from_outside(checker: ModuleType, site: Path) -> None:
    (site / "_static" / "a.css").write_text("@import 'https://fonts.org/f.css';")
    assert checker.check_files(site) == ["_static/a.css: would load https://fonts.org/f.css from outside"]


def test_without_a_browser_that_part_is_skipped_loudly(
    checker: ModuleType, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checker.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["check_site.py", str(site)])
    assert checker.main() == 0
    assert "SKIPPED" in capsys.readouterr().err


@pytest.fixture
def page(checker: ModuleType) -> Iterator[Page]:
    if not shutil.which("chromium"):
        pytest.skip("no chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=checker.SWITCHES)
        with checker.opened(browser, "desktop", []) as page:
            yield page
        browser.close()


def show(page: Page, content: str) -> None:
    page.set_content(f'<body style="background: #fff"><button></button><article>{content}</article>')


def rules(wrong: list[str]) -> list[str]:
    return [line.split(": ")[1] for line in wrong]


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ('<img src="x.png">', "image-alt"),
        ("<button></button>", "button-name"),
        ('<p style="color: #666">words</p><img src="x.png" alt="x">', None),
    ],
)
def test_what_axe_finds_in_the_content_is_named(checker, page, content, rule):
    show(page, content)
    assert rules(checker._broken_rules(Axe(), page, "article", checker.RULES, "a page")) == [rule] * bool(
        rule
    )


@pytest.mark.parametrize(
    "pale",
    [
        '<p style="color: #bbb">words</p>',
        '<div style="background: #888"><p style="color: #666">words</p></div>',
        '<div style="opacity: 0.3"><p style="color: #666">words</p></div>',
        '<p style="color: #666; background: #999">words</p>',
    ],
)
def test_pale_words_are_found_beside_others_that_share_all_but_one_thing(checker, page, pale):
    show(page, f'<p style="color: #666">words</p>{pale}')
    looks: set[str] = set()
    assert rules(checker._contrast(Axe(), page, looks, "a page")) == ["color-contrast"]
    assert len(looks) == 2


def test_a_look_is_judged_once_and_only_where_it_is_seen(checker, page):
    pale = '<p style="color: #bbb">words</p>'
    looks: set[str] = set()
    show(page, f"<div hidden>{pale}</div>")
    assert checker._contrast(Axe(), page, looks, "a page") == []
    show(page, pale * 3)
    assert rules(checker._contrast(Axe(), page, looks, "a page")) == ["color-contrast"]
    show(page, pale)
    assert checker._contrast(Axe(), page, looks, "another page") == []
