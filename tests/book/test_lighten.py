"""Pages lose the scripts that they don't need, and only those."""

from palimpsest.book import lighten

HEAD = (
    '<script defer src="../_static/scripts/fontawesome.js?digest=5"></script>\n<script src="../_static/book.js"></script>'
    '<script defer="defer" src="../_static/mathjax/tex-chtml.js"></script>'
)


def test_icons_go_and_mathematics_stays_where_there_is_some(tmp_path):
    pages = {"plain": "<p>none</p>", "formula": '<span class="math notranslate nohighlight">\\(x\\)</span>'}
    for name, body in pages.items():
        (tmp_path / f"{name}.html").write_text(f"{HEAD}{body}")
    lighten.lighten(tmp_path)
    plain, formula = ((tmp_path / f"{name}.html").read_text() for name in pages)
    assert plain == '<script src="../_static/book.js"></script><p>none</p>'
    assert "fontawesome" not in formula and "tex-chtml.js" in formula and "book.js" in formula


def test_a_build_that_failed_is_left_alone(tmp_path):
    (tmp_path / "page.html").write_text(HEAD)
    calls = {}

    class App:
        outdir = str(tmp_path)
        connect = staticmethod(calls.__setitem__)

    assert lighten.setup(App)["parallel_read_safe"]
    calls["build-finished"](App, ValueError())
    assert (tmp_path / "page.html").read_text() == HEAD
    calls["build-finished"](App, None)
    assert "fontawesome" not in (tmp_path / "page.html").read_text()
