"""Open a built site in a real browser and list everything that is wrong with it."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urldefrag, urlsplit

import pandas as pd
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
           --disable-component-update --disable-sync""".split()
# Run in the page: what it links to, which anchors it has, and what shows that something is broken.
LOOK = """async () => {
  if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
  const broken = [];
  for (const image of document.images) {
    image.loading = 'eager';
    try { await image.decode(); } catch { broken.push(image.getAttribute('src')); }
  }
  return {
    broken,
    links: [...document.querySelectorAll('a[href]')].map(a => a.href),
    anchors: [...document.querySelectorAll('[id]')].map(e => e.id),
    errors: [...document.querySelectorAll('.output.traceback, .output_error, mjx-merror, .system-message')]
      .map(e => e.textContent.trim().slice(0, 200)),
    empty: document.body.innerText.trim() === '',
  };
}"""
# What stands outside the page or its own frame: an element further right than the window, and a table that must be scrolled.
CUT = """() => {
  const main = document.querySelector('main') || document.body, wide = document.documentElement.clientWidth, found = [];
  const name = e => e.tagName.toLowerCase() + (e.className && e.className.baseVal === undefined ? '.' + e.className : '') + ' "'
    + e.textContent.trim().slice(0, 40) + '"';
  const scrolls = e => { for (; e && e !== main; e = e.parentElement) {
    if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(e).overflowX)) return e; } };
  for (const e of main.querySelectorAll('*')) {
    const box = e.getBoundingClientRect();
    if (box.width && box.right > wide + 1 && !e.closest('.headerlink') && !scrolls(e)) found.push('sticks out: ' + name(e));
  }
  // Text runs out of a heading's box without the box sticking out: then the whole page can be pushed sideways.
  if (document.documentElement.scrollWidth > wide + 1) {
    const over = [...main.querySelectorAll('*')].filter(e => e.scrollWidth > wide && !scrolls(e)).at(-1);
    found.push(`the page scrolls sideways (${document.documentElement.scrollWidth} of ${wide}): ` + (over ? name(over) : 'outside main'));
  }
  for (const table of main.querySelectorAll('table')) {
    const frame = scrolls(table.parentElement);
    if (table.offsetWidth && frame && frame.scrollWidth > frame.clientWidth + 1)
      found.push(`cut table (${frame.scrollWidth} of ${frame.clientWidth}): ` + name(table));
  }
  return found;
}"""
WEIGHT = """() => [...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')]
  .reduce((sum, e) => sum + e.decodedBodySize, 0)"""
WIDTHS, THEMES = (1280, 390), ("light", "dark")
TIMEOUT = 120_000  # milliseconds: a busy machine is not a fault of the book
SERIOUS = ("serious", "critical")


def chromium() -> str | None:
    """Path of an installed Chromium, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of 127.0.0.1; yields its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args):
            pass  # the browser hung up

    with Server(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


@contextmanager
def browser_page(scripts: bool = True) -> Iterator[Page]:
    """A page in a browser of its own; with `scripts` False, one that runs none."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900}, java_script_enabled=scripts)
        page.set_default_timeout(TIMEOUT)
        yield page
        browser.close()


@contextmanager
def nothing_leaves(page: Page, own: str, errors: bool = True) -> Iterator[None]:
    """Fails if the page meanwhile asks for anything that does not begin with `own`, or, with `errors`, if one of its scripts fails."""
    faults: list[str] = []

    def request(r) -> None:
        if not r.url.startswith((own, "data:", "blob:")):
            faults.append(f"asks for {r.url}")

    def error(e) -> None:
        faults.append(f"script: {e}")

    page.on("request", request)
    page.on("websocket", lambda socket: socket.url.startswith(own.replace("http", "ws")) or faults.append(socket.url))
    if errors:
        page.on("pageerror", error)
    yield
    assert faults == []


def first_column(page: Page) -> list[str]:
    """What names the rows of a page's table of records, those that are shown, in their order."""
    return page.locator(".records tbody tr:visible th").all_inner_texts()


def walk(folder: Path) -> tuple[list[str], list[str]]:
    """Visit every page that can be reached by links from `index.html`.

    Returns the pages (paths below `folder`, in the order visited) and the faults: console errors, failed requests, requests
    to anywhere else, links to missing pages or anchors, broken images, error outputs, empty pages.
    """
    faults: list[str] = []
    with serve(folder) as base, browser_page() as page:

        def fault(what: str) -> None:
            line = f"{page.url.removeprefix(base)}: {what}"
            if line not in faults:
                faults.append(line)

        def own(url: str) -> bool:
            return url.endswith("/favicon.ico")  # asked for by the browser, by no page

        def request(r) -> None:
            if not r.url.startswith((base, "data:", "blob:")):
                fault(f"asks for {r.url}, outside the book")

        page.on("request", request)
        # Aborted: the browser itself gave up on a request because it moved on to the next page.
        page.on(
            "requestfailed", lambda r: "ERR_ABORTED" in r.failure or fault(f"request failed: {r.url} ({r.failure})")
        )
        page.on("response", lambda r: r.status >= 400 and not own(r.url) and fault(f"{r.status} for {r.url}"))
        page.on("console", lambda m: m.type == "error" and not own(m.location["url"]) and fault(f"console: {m.text}"))
        page.on("pageerror", lambda e: fault(f"script: {e}"))
        queue, seen, wanted, anchors = [f"{base}index.html"], set(), {}, {}
        while queue:
            url = queue.pop(0)
            if url in seen:
                continue
            seen.add(url)
            if not urlsplit(url).path.endswith((".html", "/")):
                if (answer := page.request.get(url)).status >= 400:
                    faults.append(f"{url.removeprefix(base)}: link gives {answer.status} (from {wanted.get(url)})")
                continue
            page.goto(url, wait_until="networkidle")
            seen.add(urldefrag(page.url).url)  # index.html sends the reader on to the first page
            found = page.evaluate(LOOK)
            anchors[url] = anchors[urldefrag(page.url).url] = {*found["anchors"], "", "top"}
            for image in found["broken"]:
                fault(f"broken image {image}")
            for text in found["errors"]:
                fault(f"shows an error: {text}")
            if found["empty"]:
                fault("is empty")
            for link in found["links"]:
                target, anchor = urldefrag(link)
                if target.startswith(base):
                    wanted.setdefault(target, page.url.removeprefix(base))
                    wanted.setdefault((target, unquote(anchor)), page.url.removeprefix(base))
                    queue.append(target)
        for key, source in wanted.items():
            if isinstance(key, tuple) and key[0] in anchors and key[1] not in anchors[key[0]]:
                faults.append(f"{source}: link to a missing anchor, {key[0].removeprefix(base)}#{key[1]}")
    return [url.removeprefix(base) for url in anchors], faults


def pages_of(folder: Path) -> list[str]:
    """Every page of a built book, but `index.html`, which only sends the reader on to the first."""
    pages = (path.relative_to(folder) for path in folder.rglob("*.html"))
    return sorted(page.as_posix() for page in pages if "_static" not in page.parts and page.as_posix() != "index.html")


def axe_faults(page: Page) -> list[str]:
    """The serious faults that axe-core finds on a page as it is shown, by rule and element."""
    faults = Axe().run(page).response["violations"]
    return [f"{f['id']}: {n['html'][:90]}" for f in faults if f["impact"] in SERIOUS for n in f["nodes"]]


def looks(folder: Path, pages: Sequence[str], axe: Sequence[str]) -> pd.DataFrame:
    """Every page as it looks at each of `WIDTHS`: at a desk in the light, on a telephone in the dark.

    Returns a row per page and width: `cut` (what stands outside the page, or is a table that must be scrolled sideways), `axe`
    (see `axe_faults`; of the pages in `axe` alone, for it takes a second for every thousand elements) and `bytes` (all that the
    page asks for).
    """
    rows = []
    with serve(folder) as base, browser_page() as first:
        for width, theme in zip(WIDTHS, THEMES, strict=True):
            page = first.context.browser.new_page(viewport={"width": width, "height": 900})
            page.set_default_timeout(TIMEOUT)
            page.add_init_script(f"for (const name of ['mode', 'theme']) localStorage.setItem(name, '{theme}')")
            for name in pages:
                page.goto(base + name, wait_until="load")
                page.evaluate(LOOK)  # pictures and formulas are there
                row = {"page": name, "width": width, "theme": theme, "bytes": page.evaluate(WEIGHT)}
                rows.append({**row, "cut": page.evaluate(CUT), "axe": axe_faults(page) if name in axe else []})
            page.close()
    return pd.DataFrame(rows)


def main() -> None:
    """`python tests/browser.py FOLDER [PAGE ...]`: what is wrong with how the pages of a built site look."""
    folder, *pages = sys.argv[1:]
    pages = pages or pages_of(Path(folder))
    for row in looks(Path(folder), pages, pages).itertuples():
        print(f"{row.page} {row.width} {row.theme}: {row.bytes / 1e6:.2f} MB, {len(row.cut)} cut, {len(row.axe)} axe")
        print("".join(f"    {line}\n" for line in dict.fromkeys([*row.cut, *row.axe])), end="")


if __name__ == "__main__":
    main()
