"""A Sphinx extension that makes the book's pages light, and readable by a program that reads them aloud, once they are built.

Left to itself, every page of the theme loads its icons twice (a font, and a script of 1.5 MB), 1.2 MB of mathematics, the index of
the search and the looks of cards and tabs, whether there is any of these on it or not.
"""

import gc
import re
from pathlib import Path

NEEDED_BY = {  # file of a script or a style sheet -> what stands on a page that needs it; None: no page does
    r"fontawesome\.js": None,
    r"mathjax/": r'class="[^"]*\bmath\b',
    r"(?:searchtools|language_data|searchindex)\.js": r'id="search-results"',
    r"(?:sphinx-design\.min\.css|design-tabs\.js)": r'class="[^"]*\bsd-',
}
LOADS = r'<(?:script|link)\b[^>]*\b(?:src|href)="(?:[^"]*/)?{}[^"]*"[^>]*>(?:</script>)?\s*'
ICON = re.compile(r'(?:\.fa-[\w-]+:before,?)+\{content:"[^"]*"\}')  # as the theme's sheet has two thousand of them
# A signature over several lines: Sphinx writes a list of definitions that has no terms, which axe-core calls a serious fault.
LINES = re.compile(r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>")
# A name of code, which has no space that a line could end at: it may end after each of its words.
NAME = re.compile(r'(?<=<span class="pre">)[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(\))?(?=</span>)')
WORD_END = re.compile(r"(?<=[^\W_])[_.]+(?=[^\W_])")
# The entries of a bibliography stand in a list, whose members must say that they are some.
ENTRIES = ('role="doc-biblioentry"', 'role="listitem"')


def lighten(folder: Path) -> None:
    """Take out of every HTML page in `folder` what it loads and doesn't need, and out of the theme's sheet the icons of no page."""
    written = []
    for path in folder.rglob("*.html"):
        before = path.read_text(encoding="utf-8")
        text = NAME.sub(_breakable, LINES.sub(_lines, before)).replace(*ENTRIES)
        for file, sign in NEEDED_BY.items():
            if sign is None or not re.search(sign, text):
                text = re.sub(LOADS.format(file), "", text)
        if text != before:
            path.write_text(text, encoding="utf-8")
        written.append(text)
    written += [path.read_text(encoding="utf-8") for path in folder.rglob("*.js")]
    icons = {name for text in written for name in re.findall(r"\bfa-[\w-]+", text)}
    for path in folder.rglob("pydata-sphinx-theme.css"):
        sheet = path.read_text(encoding="utf-8")
        path.write_text(ICON.sub(lambda rule: _if_used(rule[0], icons), sheet), encoding="utf-8")


def _lines(found: re.Match) -> str:
    return '<span class="sig-lines">\n' + found[1].replace("<dd>", "<span>").replace("</dd>", "</span>") + "</span>"


def _breakable(found: re.Match) -> str:
    return WORD_END.sub(r"\g<0><wbr>", found[0])


def _if_used(rule: str, icons: set[str]) -> str:
    return rule if icons.intersection(re.findall(r"\.(fa-[\w-]+)", rule)) else ""


def setup(app) -> dict[str, bool]:
    """What Sphinx calls (`_config.yml` names this module among the extensions)."""
    gc.set_threshold(
        100_000, 100, 100
    )  # by default a third of a build's time goes on looking for garbage among pages that stay
    app.connect("build-finished", lambda app, error: error or lighten(Path(app.outdir)))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
