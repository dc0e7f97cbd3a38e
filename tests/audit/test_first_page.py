"""The first page: what an authority reads, with the numbers of the summary, readable on a telephone."""

import re

import pytest
from browser import CUT, THEMES, WIDTHS, axe_faults, browser_page, chromium, first_column, nothing_leaves

from palimpsest.audit.first_page import show_tested


def test_the_first_page_says_who_is_at_risk_what_was_tested_and_what_the_family_passed_on(family_audit):
    out, summary = family_audit
    text = (out / "report.html").read_text()
    order = ["The answer", "Most at risk", "What was tested, and what can't be excluded", "Teacher, student, baseline"]
    places = [text.index(f"<h2>{title}</h2>") for title in order]
    assert places == sorted(places) and places[-1] < text.index("<h2>What was audited</h2>")
    for words in ("direct extraction", "probabilistic extraction", "membership", "Chance level: of 24 non-members"):
        assert words in text
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", text, re.S)]
    first, kept = summary["most_at_risk"][0], next(r for r in summary["family"]["sets"] if r["name"] == "kept")
    assert any(row[:1] == [str(first["row"])] for row in rows)
    assert any(row[0] == "kept" and row[1].startswith(f"{kept['count']} of 24: ") for row in rows if len(row) > 1)


def test_membership_that_was_not_tested_is_said_to_be_so():
    shown = show_tested({"tested": [], "membership": []})
    assert shown.loc[0, "tested"] == "not tested: give --non-members"


@pytest.mark.skipif(chromium() is None, reason="no Chromium")
@pytest.mark.parametrize("theme", THEMES)
def test_nothing_is_cut_at_a_desk_or_on_a_telephone_and_anyone_can_read_it(family_audit, theme):
    with browser_page() as page:
        page.emulate_media(color_scheme=theme)
        page.goto(f"file://{family_audit[0] / 'report.html'}")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(CUT) == []
        assert axe_faults(page) == []


@pytest.mark.skipif(chromium() is None, reason="no Chromium")
def test_records_most_at_risk_can_be_searched_and_sorted_from_the_disk(family_audit):
    out, summary = family_audit
    rows = summary["most_at_risk"]
    inherent = [str(row["row"]) for row in rows]
    address = f"file://{out / 'report.html'}"
    with browser_page() as page, nothing_leaves(page, address):
        page.goto(address)
        assert first_column(page) == inherent
        page.get_by_label("search the records").fill("RECITED")
        recited = [str(row["row"]) for row in rows if row["recited"]]
        assert first_column(page) == recited and 0 < len(recited) < len(rows)
        assert page.locator(".found").inner_text() == f"found: {len(recited)} of {len(rows)}"
        page.get_by_label("search the records").fill("")
        page.get_by_role("button", name="row", exact=True).click()
        assert first_column(page) == sorted(inherent, key=int)
        head = page.locator("th", has=page.get_by_role("button", name="samples", exact=True))
        head.get_by_role("button").focus()
        page.keyboard.press("Enter")
        needed = {str(row["row"]): row["samples_needed"] for row in rows}
        assert head.get_attribute("aria-sort") == "ascending"
        assert [needed[name] for name in first_column(page)] == sorted(needed.values())
        page.keyboard.press("Space")
        assert head.get_attribute("aria-sort") == "descending" and page.locator("[aria-sort]").count() == 1
        assert [needed[name] for name in first_column(page)] == sorted(needed.values(), reverse=True)


@pytest.mark.skipif(chromium() is None, reason="no Chromium")
def test_without_script_the_records_stand_there_most_at_risk_first(family_audit):
    out, summary = family_audit
    with browser_page(scripts=False) as page:
        page.goto(f"file://{out / 'report.html'}")
        assert page.locator(".records .play").is_hidden() and page.locator("th button").count() == 0
        assert first_column(page) == [str(row["row"]) for row in summary["most_at_risk"]]
