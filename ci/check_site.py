"""Walk a built book: links, alternative text, nothing from outside; then every page in headless Chromium.

    python ci/check_site.py build/html [--screenshots DIR]

The first part reads files. The second opens each page over HTTP below a sub-path, at desktop and phone width,
looks at it in the light and, without loading it again, in the dark, and opens it once more from file://;
axe-core judges it in both themes by WCAG 2.1 AA. Without Chromium on PATH the second part is skipped, loudly.
Exit code 1 if anything is wrong.
"""

import argparse
import functools
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import Browser, Page, Request

LOADS = {"src", "href", "srcset", "data-src", "poster"}
POINTS = {"canonical", "search", "next", "prev", "index", "genindex"}  # <link rel=…> that loads nothing
OUTSIDE = re.compile(r"(https?:)?//")
THEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
# Chromium calls its vendor's servers even so; no name but the local one may resolve.
SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

SETTLED = """async () => {
  for (const image of document.images) image.loading = 'eager';
  if (document.querySelector('.math') && window.MathJax?.startup) await MathJax.startup.promise;
  await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
}"""
PROBLEMS = r"""() => {
  const seen = element => element.offsetParent !== null;
  const broken = [...document.images].filter(i => seen(i) && !i.naturalWidth).map(i => `image not loaded: ${i.src.slice(0, 90)}`);
  const bare = [...document.querySelectorAll('article .math')].filter(m => !m.querySelector('mjx-container'));
  const fonts = [...document.fonts].filter(font => font.status === 'error').map(f => `font not loaded: ${f.family}`);
  const wide = document.documentElement.scrollWidth - innerWidth;
  return [...broken, ...fonts, ...bare.map(m => `mathematics not rendered: ${m.textContent.slice(0, 60)}`),
          ...(wide > 1 ? [`page is ${wide} px wider than the window`] : [])];
}"""  # noqa: E501
# WCAG 2.1, levels A and AA. Contrast, the slowest rule and the only one of colours, is judged apart.
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    "resultTypes": ["violations"],
    "preload": False,  # else axe fetches style sheets anew, from paths that do not exist
    # Docutils writes a bibliography with a role that was given up, and with links between its entries.
    "rules": {
        name: {"enabled": False}
        for name in ("aria-deprecated-role", "aria-required-children", "color-contrast")
    },
}
CONTRAST = {"runOnly": ["color-contrast"], "resultTypes": ["violations"], "preload": False}
# All that contrast depends on: the text's own style, and every background and opacity that lies beneath it.
# One text of each such look is marked; looks that were judged before are not judged again, on any page.
MARK_NEW_LOOKS = """known => {
  const looks = new Set(known), below = new Map([[null, '']]);
  const ground = element => {
    if (!below.has(element)) {
      const {backgroundColor, backgroundImage, opacity} = getComputedStyle(element);
      const own = [backgroundColor, backgroundImage, opacity].join();
      const under = ground(element.parentElement);
      below.set(element, own === 'rgba(0, 0, 0, 0),none,1' ? under : own + '|' + under);
    }
    return below.get(element);
  };
  document.querySelectorAll('[data-new-look]').forEach(element => delete element.dataset.newLook);
  for (const element of document.querySelectorAll('article *')) {
    const text = [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!text || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const {color, fontSize, fontWeight} = getComputedStyle(element);
    const look = [color, fontSize, fontWeight, ground(element)].join('|');
    if (!looks.has(look)) element.dataset.newLook = '';
    looks.add(look);
  }
  return [...looks];
}"""


@dataclass
class Document(HTMLParser):
    """What one page loads, links to and names."""

    path: Path
    outside: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    no_alt: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(errors="replace"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.names |= {given[key] for key in ("id", "name") if key in given}
        if tag == "img" and "alt" not in given:
            self.no_alt.append(given.get("src", "")[:90])
        rel = set(given.get("rel", "").split())
        points = tag == "a" or (tag == "link" and bool(rel & POINTS))
        for key in LOADS & given.keys():
            if OUTSIDE.match(given[key]):
                self.outside += [] if points else [given[key]]
            elif key in ("src", "href"):
                self.links.append(given[key])

    def handle_data(self, data: str) -> None:
        if self.cdata_elem in ("script", "style"):
            self.outside += re.findall(r"https?://[^\s\"'<>)]+", data)


def check_files(root: Path) -> list[str]:
    """Everything wrong that the files alone tell."""
    # _static holds the theme's own templates, which are no pages.
    pages = {
        p: Document(p) for p in sorted(root.rglob("*.html")) if "_static" not in p.relative_to(root).parts
    }
    targets = {path.resolve(): page.names for path, page in pages.items()}
    wrong = []
    for path, page in pages.items():
        name = path.relative_to(root)
        wrong += [f"{name}: would load {url} from outside" for url in page.outside]
        wrong += [f"{name}: image without alternative text: {src}" for src in page.no_alt]
        wrong += [
            f"{name}: broken link {link}" for link in sorted(set(page.links)) if _broken(link, path, targets)
        ]
    for sheet in root.rglob("*.css"):
        urls = re.findall(
            r"(?:@import|url\()\s*['\"]?((?:https?:)?//[^'\")\s]+)", sheet.read_text(errors="replace")
        )
        wrong += [f"{sheet.relative_to(root)}: would load {url} from outside" for url in urls]
    print(f"{len(pages)} pages, {sum(len(p.links) for p in pages.values())} internal links")
    return wrong


def _broken(link: str, path: Path, names: dict[Path, set[str]]) -> bool:
    parts = urlsplit(link)
    if parts.scheme:  # data:, mailto:, javascript:
        return False
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
    target = target / "index.html" if target.is_dir() else target
    if target not in names and not target.is_file():
        return True
    return bool(parts.fragment and target in names and unquote(parts.fragment) not in names[target])


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder over HTTP on the loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def check_browser(root: Path, chromium: str, screenshots: Path | None) -> list[str]:
    """Everything wrong that a reader would see or hear of."""
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    axe = Axe()
    wrong: list[str] = []
    looks: dict[str, set[str]] = {theme: set() for theme in THEMES}
    names = [p.relative_to(root).as_posix() for p in sorted(root.rglob("*.html"))]
    names = [n for n in names if not n.startswith(("_static/", "_modules/")) and n != "index.html"]
    with sync_playwright() as playwright, served(root.parent) as address:
        browser = playwright.chromium.launch(executable_path=chromium, args=SWITCHES)
        site = f"{address}/{root.name}"
        for size in SIZES:
            with opened(browser, size, wrong) as page:
                for name in names:
                    page.goto(f"{site}/{name}", wait_until="load")
                    for theme in THEMES:
                        _turn(page, theme)
                        _look(page, f"{name} ({size}, {theme})", wrong)
                        if size == "desktop":  # the colours are the same on a phone
                            wrong += _contrast(axe, page, looks[theme], f"{name} ({theme})")
                        if screenshots:
                            shot = f"{name.removesuffix('.html').replace('/', '-')}-{size}-{theme}.png"
                            page.screenshot(path=screenshots / shot, full_page=True)
                    if size == "desktop":
                        wrong += _broken_rules(axe, page, "article", RULES, name) + _keyboard(page, name)
        with opened(browser, "desktop", wrong) as page:
            for name in names:
                page.goto((root / name).as_uri(), wait_until="load")
                _look(page, f"{name} (file://)", wrong)
            wrong += _search(page, site) + _theme_button(page, site)
        browser.close()
    print(f"{len(names)} pages × {len(SIZES)} widths × 2 themes in Chromium, once more from file://")
    return wrong


@contextmanager
def opened(browser: "Browser", size: str, wrong: list[str]) -> Iterator["Page"]:
    """A tab that notes every failure under the address of its page."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=THEMES[0])
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: script error: {error}"))
    page.on("requestfailed", lambda r: wrong.append(f"{page.url}: {_failure(r)}") if _failure(r) else None)
    page.on(
        "response", lambda r: wrong.append(f"{page.url}: {r.status} {r.url}") if r.status >= 400 else None
    )
    page.on("request", lambda r: wrong.append(f"{page.url}: asks {r.url}") if _leaves(r.url) else None)
    yield page
    context.close()


def _failure(request: "Request") -> str:
    """What did not load. Leaving a page aborts its requests; browsers refuse to *preload* fonts from file://."""
    preload = request.resource_type == "font" and request.url.startswith("file:")
    return "" if preload or request.failure == "net::ERR_ABORTED" else f"failed to load {request.url[:120]}"


def _leaves(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https", "ws", "wss") and urlsplit(url).hostname != "127.0.0.1"


def _turn(page: "Page", theme: Literal["light", "dark"]) -> None:
    """As when the reader's system turns dark in the evening: the page follows."""
    page.emulate_media(color_scheme=theme)
    page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)


def _look(page: "Page", name: str, wrong: list[str]) -> None:
    page.evaluate(SETTLED)
    wrong += [f"{name}: {problem}" for problem in page.evaluate(PROBLEMS)]


def _contrast(axe: "Axe", page: "Page", looks: set[str], name: str) -> list[str]:
    """Texts with too little contrast, among those that look like none of `looks`, which grows."""
    found = set(page.evaluate(MARK_NEW_LOOKS, sorted(looks)))
    new = found - looks
    looks |= found
    return _broken_rules(axe, page, "[data-new-look]", CONTRAST, name) if new else []


def _broken_rules(axe: "Axe", page: "Page", within: str, rules: dict[str, Any], name: str) -> list[str]:
    """Each rule of axe-core that the content breaks, with the first places; the frame is the theme's."""
    if not page.locator("article").count():  # the search page is nothing but frame
        return []
    wrong = []
    for broken in axe.run(page, within, rules).response["violations"]:
        for node in broken["nodes"][:3]:
            found = " ".join(node["failureSummary"].split())
            wrong.append(f"{name}: {broken['id']}: {' '.join(map(str, node['target']))}: {found[:200]}")
    return wrong


def _search(page: "Page", site: str) -> list[str]:
    page.goto(f"{site}/search.html?q=papers")
    try:
        page.wait_for_selector("#search-results li a", timeout=10_000)
        page.click("#search-results li a")
        page.wait_for_selector("article h1", timeout=10_000)
    except Exception as error:
        return [f"search finds nothing: {error}"]
    return []


def _theme_button(page: "Page", site: str) -> list[str]:
    page.goto(f"{site}/intro.html")
    themes = set()
    for _ in range(3):  # auto, light, dark
        page.click(".theme-switch-button:visible")
        themes.add(page.get_attribute("html", "data-theme"))
    return (
        [] if themes == {"light", "dark"} else [f"the theme button only reaches {sorted(map(str, themes))}"]
    )


def _keyboard(page: "Page", name: str) -> list[str]:
    """The first Tab offers to skip the navigation; from there the next ones reach the content's links."""
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.querySelector('main').contains(document.activeElement)"):
            return []
    return [f"{name}: the Tab key does not reach the content"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Check a built book.")
    parser.add_argument("html", type=Path, help="folder of the built site")
    parser.add_argument("--screenshots", type=Path, help="write a PNG of every page, width and theme here")
    given = parser.parse_args()
    root = given.html.resolve()
    if not (root / "index.html").exists():
        parser.error(f"{root} holds no index.html; build the book first")
    wrong = check_files(root)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium:
        if given.screenshots:
            given.screenshots.mkdir(parents=True, exist_ok=True)
        wrong += check_browser(root, chromium, given.screenshots)
    else:
        print("!!! SKIPPED: no chromium on PATH; the pages were NOT opened in a browser !!!", file=sys.stderr)
    for line in dict.fromkeys(wrong):
        print("WRONG", line)
    print("site: " + (f"{len(set(wrong))} problems" if wrong else "ok"))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
