"""Looks at the built site as readers do: called by `make site`, after `make docs`.

    python tools/site_check.py [PAGE...]        screenshots go to build/screenshots/desktop and .../phone

Of each page it is asked, in headless Chromium (Debian's packages chromium and chromium-driver), at the width of a
desktop and of a phone: does it scroll sideways, does anything stick out, is a picture missing? And without a browser:
does each link inside the site lead to a page and a heading that are there, and does anything come from another host?
"""

import argparse
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from selenium import webdriver

TOP = Path(__file__).parents[1]
SITE = TOP / "build" / "site"
SCREENSHOTS = TOP / "build" / "screenshots"
FAULTS_SHOWN = 5
"""Of a page: what is inside of something too wide is too wide as well."""
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
LOADS = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("object", "data")}
IS_LINK = {"canonical", "index", "search", "next", "prev", "author"}  # of a <link>: leads somewhere, loads nothing

# What sticks out of the page, but for code and tables, which scroll by themselves; pictures that did not load.
ASK = """
const width = arguments[0], wrong = [];
if (document.documentElement.scrollWidth > width)
    wrong.push(`scrolls sideways: ${document.documentElement.scrollWidth} of ${width} pixels`);
const scrolls = e => e.matches("pre, .table-wrapper") && ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
for (const e of document.querySelectorAll("article *")) {
    const box = e.getBoundingClientRect();
    if (box.width === 0 || box.right <= width + 1) continue;
    let parent = e;
    while (parent && !scrolls(parent)) parent = parent.parentElement;
    if (!parent) wrong.push(`sticks out: <${e.tagName.toLowerCase()}> ${e.textContent.trim().slice(0, 40)}`);
}
for (const e of document.querySelectorAll("article pre"))
    if (e.scrollWidth > e.clientWidth + 1 && !scrolls(e)) wrong.push(`code is cut off: ${e.textContent.slice(0, 40)}`);
for (const e of document.querySelectorAll("img"))
    if (e.complete && e.naturalWidth === 0 && e.loading !== "lazy") wrong.push(`no picture: ${e.src}`);
return wrong;
"""


class Page(HTMLParser):
    """Where a page leads, what it loads, and what can be linked to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Notes what it says."""
        given = dict(attributes)
        self.anchors.update(value for name in ("id", "name") if (value := given.get(name)))
        if tag == "a" and (link := given.get("href")):
            self.links.append(link)
        for name, value in given.items():
            is_link = tag == "link" and set((given.get("rel") or "").split()) & IS_LINK
            if (tag, name) in LOADS and value and not is_link:
                self.loads.append(value)


def broken_links(pages: dict[Path, Page]) -> Iterator[str]:
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                yield f"{path.name}: the link {link} leads nowhere"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{path.name}: the link {link} names a heading that is not there"
        for load in page.loads:
            if urlsplit(load).netloc:
                yield f"{path.name}: loads {load} from another host"


def look(paths: list[Path]) -> Iterator[str]:
    for name, (width, height) in WIDTHS.items():
        options = webdriver.ChromeOptions()
        for flag in FLAGS:
            options.add_argument(flag)
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": {"width": width, "height": height}})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
        try:
            for path in paths:
                driver.get(path.as_uri())
                for wrong in driver.execute_script(ASK, width)[:FAULTS_SHOWN]:
                    yield f"{path.name}, {name}: {wrong}"
                picture = SCREENSHOTS / name / path.relative_to(SITE).with_suffix(".png")
                picture.parent.mkdir(parents=True, exist_ok=True)
                driver.save_screenshot(str(picture))
        finally:
            driver.quit()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="*", help="look only at these: tutorial, kernel/matrix")
    arguments = parser.parse_args()
    if not SITE.exists():
        parser.error(f"{SITE} is not there: run make docs")
    all_paths = [path.resolve() for path in sorted(SITE.rglob("*.html")) if "_static" not in path.parts]
    chosen = [(SITE / name).with_suffix(".html").resolve() for name in arguments.page] or all_paths
    wrong = [*broken_links({path: Page(path) for path in all_paths}), *look(chosen)]
    print("\n".join(wrong), file=sys.stderr)
    print(f"{len(chosen)} pages at {len(WIDTHS)} widths: {len(wrong)} faults; {SCREENSHOTS.relative_to(TOP)}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
