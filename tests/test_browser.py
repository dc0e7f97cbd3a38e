"""The walk through a book finds each kind of fault in a small site that has it."""

import pytest
from browser import chromium, looks, pages_of, walk

pytestmark = [
    pytest.mark.xdist_group("smoke, read"),
    pytest.mark.skipif(chromium() is None, reason="no Chromium installed (Debian: apt-get install chromium)"),
]
GOOD = "<!doctype html><html><head><link rel='icon' href='data:,'></head><body><h1 id='a'>Page</h1>{}</body></html>"


def site(folder, body, other=""):
    (folder / "index.html").write_text(GOOD.format(body))
    (folder / "other.html").write_text(GOOD.format(other))
    return folder


def test_a_sound_site_has_no_faults(tmp_path):
    pages, faults = walk(site(tmp_path, "<a href='other.html#a'>next</a>", "<a href='index.html'>back</a>"))
    assert (pages, faults) == (["index.html", "other.html"], [])


FAULTS = {
    "<script>console.error('no good')</script>": "console: no good",
    "<script>undefinedName()</script>": "script: undefinedName is not defined",
    "<img src='none.png'>": "broken image none.png",
    "<img loading='lazy' style='margin-top: 9000px' src='far.png'>": "broken image far.png",
    "<a href='none.html'>x</a>": "404 for",
    "<a href='none.csv'>x</a>": "none.csv: link gives 404",
    "<a href='index.html#nowhere'>x</a>": "missing anchor, index.html#nowhere",
    "<link rel='stylesheet' href='none.css'>": "none.css",
    "<script src='http://127.0.0.2:9/x.js'></script>": "asks for http://127.0.0.2:9/x.js, outside the book",
    "<div class='output traceback'>ValueError: x</div>": "shows an error: ValueError: x",
}


def test_each_fault_is_found_on_a_page_behind_a_link(tmp_path):
    _, faults = walk(site(tmp_path, "<a href='other.html'>next</a>", "".join(FAULTS)))
    assert [m for m in FAULTS.values() if not any(m in fault for fault in faults)] == [], faults


def test_an_empty_page_is_found(tmp_path):
    (tmp_path / "index.html").write_text("<html></html>")
    assert "index.html: is empty" in walk(tmp_path)[1]


LOOKED_AT = """<!doctype html><html lang="en"><head><title>x</title><style>[data-theme=dark] p { background: #000; color: #222 }</style>
<script>document.documentElement.dataset.theme = localStorage.theme</script></head><body><main><h1>x</h1><p>text</p>
<table><tr><td>a<td style="min-width: 600px">b</table></main></body></html>"""


def test_what_is_cut_or_cannot_be_read_is_found_where_it_is(tmp_path):
    (tmp_path / "index.html").write_text("<html></html>")
    (tmp_path / "page.html").write_text(LOOKED_AT)
    assert pages_of(tmp_path) == ["page.html"]
    found = looks(tmp_path, ["page.html"], ["page.html"]).set_index("theme")
    assert found.loc["light", ["width", "cut", "axe"]].tolist() == [1280, [], []]
    assert [fault.split(":")[0] for fault in found.loc["dark", "axe"]] == ["color-contrast"]
    assert any("sticks out: table" in fault for fault in found.loc["dark", "cut"]) and found["bytes"].min() > 300
    assert looks(tmp_path, ["page.html"], [])["axe"].tolist() == [[], []]


def test_text_that_runs_out_of_its_box_and_pushes_the_page_sideways_is_found(tmp_path):
    (tmp_path / "page.html").write_text(GOOD.format(f"<main><h2>{'module.' * 8}</h2></main>"))
    found = looks(tmp_path, ["page.html"], []).set_index("width")
    assert found.loc[1280, "cut"] == [] and ["h2" in fault for fault in found.loc[390, "cut"]] == [True]
