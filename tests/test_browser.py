"""The walk through a book finds each kind of fault in a small site that has it."""

import pytest
from browser import chromium, walk

pytestmark = [
    pytest.mark.xdist_group("smoke"),
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
