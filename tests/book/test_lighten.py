"""Pages lose what they load and don't need, and only that; a program that reads aloud finds lists where there are some."""

from palimpsest.book import lighten

HEAD = (
    '<script defer src="../_static/scripts/fontawesome.js?digest=5"></script>\n<script src="../_static/book.js"></script>'
    '<script defer="defer" src="../_static/mathjax/tex-chtml.js"></script><script src="../searchindex.js"></script>'
    '<script src="searchtools.js"></script><link rel="search" title="Search" href="../search.html" />'
    '<link rel="stylesheet" type="text/css" href="../_static/sphinx-design.min.css?v=6a" />'
    '<script data-sd-tabs-storage-prefix="sd-tab-" src="../_static/design-tabs.js"></script>'
)
KEPT = '<script src="../_static/book.js"></script><link rel="search" title="Search" href="../search.html" />'
BODIES = {
    "plain": "<p>none</p>",
    "formula": '<span class="math notranslate nohighlight">\\(x\\)</span>',
    "search": '<div id="search-results"></div>',
    "cards": '<div class="docutils sd-card"></div>',
}


def test_a_page_loads_only_what_it_needs(tmp_path):
    for name, body in BODIES.items():
        (tmp_path / f"{name}.html").write_text(f"{HEAD}{body}")
    lighten.lighten(tmp_path)
    pages = {name: (tmp_path / f"{name}.html").read_text() for name in BODIES}
    assert pages["plain"] == KEPT + BODIES["plain"]
    needed = {"formula": ["tex-chtml.js"], "search": ["searchindex.js", "searchtools.js"]}
    needed["cards"] = ["sphinx-design.min.css", "design-tabs.js"]
    for name, files in needed.items():
        assert all(file in pages[name] for file in ["book.js", *files]) and "fontawesome" not in pages[name]
        others = [file for other in needed.values() if other is not files for file in other]
        assert not [file for file in others if file in pages[name]]


def test_icons_that_no_page_and_no_script_names_go(tmp_path):
    rules = {name: f'.fa-{name}:before{{content:"\\f0"}}' for name in ("sun", "moon", "bug", "xmark")}
    both = '.fa-hi:before,.fa-sun:before{content:"\\f1"}'
    sheet = f".fa-lg{{font-size:2em}}{''.join(rules.values())}{both}p{{margin:0}}"
    (tmp_path / "pydata-sphinx-theme.css").write_text(sheet)
    (tmp_path / "page.html").write_text('<i class="fa-solid fa-sun"></i><i class="fa-moon"></i>')
    (tmp_path / "theme.js").write_text('icon.className="fa-xmark"')
    lighten.lighten(tmp_path)
    assert (tmp_path / "pydata-sphinx-theme.css").read_text() == sheet.replace(rules["bug"], "")


def test_a_signature_of_several_lines_is_no_list_of_definitions(tmp_path):
    real = '<dl class="field-list simple">\n<dt>Raises</dt>\n<dd><p>InputError</p></dd>\n</dl>'
    (tmp_path / "api.html").write_text(
        f"<dt>render(<dl>\n<dd><em>a</em>,</dd>\n<dd><em>b</em>,</dd>\n</dl>)</dt>{real}"
    )
    lighten.lighten(tmp_path)
    lines = '<span class="sig-lines">\n<span><em>a</em>,</span>\n<span><em>b</em>,</span>\n</span>'
    assert (tmp_path / "api.html").read_text() == f"<dt>render({lines})</dt>{real}"


def test_entries_of_a_bibliography_are_items_of_its_list(tmp_path):
    entry = '<div role="list" class="citation-list">\n<div class="citation" id="id3" role="{}">Carlini</div></div>'
    (tmp_path / "bibliography.html").write_text(entry.format("doc-biblioentry"))
    lighten.lighten(tmp_path)
    assert (tmp_path / "bibliography.html").read_text() == entry.format("listitem")


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


def test_a_name_of_code_may_end_a_line_after_each_of_its_words(tmp_path):
    code = '<code class="docutils literal notranslate"><span class="pre">{}</span></code>'
    names = {
        "verbatim_by_prefix": "verbatim_<wbr>by_<wbr>prefix",
        "study.load_tables()": "study.<wbr>load_<wbr>tables()",
        "_private": "_private",
        "jane.doe@x.org": "jane.doe@x.org",  # no name of ours: whoever looks for it in a page finds it whole
        "runs/a_b": "runs/a_b",
    }
    (tmp_path / "page.html").write_text("\n".join(map(code.format, names)))
    for _ in range(2):
        lighten.lighten(tmp_path)
        assert (tmp_path / "page.html").read_text() == "\n".join(map(code.format, names.values()))
