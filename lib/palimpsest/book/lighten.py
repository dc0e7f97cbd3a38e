"""A Sphinx extension that makes the book's pages light: scripts that a page doesn't need are taken out once it is built.

Every page of the theme loads its icons a second time, as a script of 1.5 MB beside the font that it has them in, and 1.2 MB of
mathematics whether there is any on it or not.
"""

import re
from pathlib import Path

ICONS = re.compile(
    r'<script[^>]*src="[^"]*/fontawesome\.js[^"]*"[^>]*></script>\s*|<link[^>]*href="[^"]*/fontawesome\.js[^"]*"[^>]*/?>\s*'
)
MATHEMATICS = re.compile(r'<script[^>]*src="[^"]*/mathjax/[^"]*"[^>]*></script>\s*')
HAS_SOME = re.compile(r'class="[^"]*\bmath\b')


def lighten(folder: Path) -> None:
    """Take the script of icons out of every HTML page in `folder`, and MathJax out of those without mathematics."""
    for path in folder.rglob("*.html"):
        before = text = path.read_text(encoding="utf-8")
        text = ICONS.sub("", text)
        text = text if HAS_SOME.search(text) else MATHEMATICS.sub("", text)
        if text != before:
            path.write_text(text, encoding="utf-8")


def setup(app) -> dict[str, bool]:
    """What Sphinx calls (`_config.yml` names this module among the extensions)."""
    app.connect("build-finished", lambda app, error: error or lighten(Path(app.outdir)))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
