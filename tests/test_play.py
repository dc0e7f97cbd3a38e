"""What a reader can play with in the book, played with in a browser: from a server, from the disk, and without script."""

import math
import re
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from browser import browser_page, chromium, first_column, nothing_leaves, serve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("smoke, read"),
    pytest.mark.skipif(chromium() is None, reason="no Chromium installed (Debian: apt-get install chromium)"),
]
MEMORIZATION, INHERITANCE = "notebooks/04_memorization.html", "notebooks/05_inheritance.html"
HOVER = re.compile(r"\d+%, guess \d+, margin -?\d+\.\d")


@contextmanager
def opened(run, how, errors=True):
    """A function that opens a page of the run's book, over HTTP or from the disk; nothing may be asked for outside the book, and, if
    `errors` are looked for, no script may fail."""
    html = run / "html"
    with serve(html) as base, browser_page() as page:
        own = base if how == "http" else f"file://{html}/"

        def open_page(name):
            page.goto(own + name, wait_until="load")
            return page

        with nothing_leaves(page, own, errors):
            yield open_page


@pytest.fixture(params=["http", "file"])
def book(request, smoke_run):
    with opened(smoke_run, request.param) as open_page:
        yield open_page


def shown(page):
    """(record, model) of every strip that is to be seen."""
    strips = page.locator(".strip:visible").all()
    return [(strip.get_attribute("data-record"), strip.get_attribute("data-model")) for strip in strips]


def test_a_reader_chooses_a_record_and_a_model_and_each_token_says_how_sure_it_was(book, smoke_run):
    page, strips = book(MEMORIZATION), pd.read_csv(smoke_run / "tables" / "strips.csv")
    records, models = list(dict.fromkeys(strips["id"])), list(dict.fromkeys(strips["model"]))
    still = shown(page)
    assert {record for record, _ in still} == {"0"} and len(still) == 3
    page.locator("select[data-of=record]").select_option("2")
    assert shown(page) == [("2", model) for _, model in still]
    page.locator("select[data-of=model]").select_option(models[-1])
    assert shown(page) == [("2", models[-1])]
    tokens = page.locator(".strip:visible .heat span")
    own = strips[(strips["id"] == records[2]) & (strips["model"] == models[-1])]
    assert tokens.count() == len(own)
    for number in (0, len(own) - 1):
        said, row = tokens.nth(number).get_attribute("title"), own.iloc[number]
        assert HOVER.fullmatch(said)
        assert said == f"{row['probability']:.0%}, guess {row['guess'] + 1}, margin {row['margin']:.1f}"
    tokens.nth(1).click()  # a telephone has no pointer to hover with
    told, said = page.locator(".strip:visible output"), [tokens.nth(n).get_attribute("title") for n in range(3)]
    assert told.inner_text() == f"{tokens.nth(1).inner_text().strip()}: {said[1]}"
    page.locator(".strip:visible .heat").press("ArrowRight")
    assert told.inner_text() == f"{tokens.nth(2).inner_text().strip()}: {said[2]}"
    page.locator("select[data-of=model]").select_option("")
    assert shown(page) == [("2", model) for _, model in still]


def test_the_slider_moves_the_bars_and_says_what_is_given(book, smoke_run):
    page, table = book(MEMORIZATION), pd.read_csv(smoke_run / "tables" / "by_prefix.csv")
    box = page.locator(".prefix-bars")
    slider = box.get_by_label("tokens of the response that are given")

    def bars():
        widths = [bar.evaluate("bar => bar.style.width") for bar in box.locator(".bar b").all()]
        return [math.floor(float(width.rstrip("%")) + 0.5) for width in widths], box.locator(
            "output"
        ).all_inner_texts()

    steps = [int(k) for k in box.get_attribute("data-steps").split(",")]
    rates = table[table["split"] == "member"].pivot(index="k", columns="model", values="rate")[
        [*dict.fromkeys(table["model"])]
    ]

    def follow():
        widths, numbers = bars()
        k = int(box.locator(".given").inner_text())
        assert np.allclose(widths, 100 * rates.loc[k], atol=1) and numbers == [f"{width}%" for width in widths]
        return steps.index(k), widths

    start, before = follow()
    further = next(
        i for i, k in enumerate(steps) if i > start and (rates.loc[k] - rates.loc[steps[start]]).max() > 0.05
    )
    slider.focus()
    for _ in range(further - start):
        page.keyboard.press("ArrowRight")
    now, after = follow()
    assert now == further and after != before
    assert slider.get_attribute("aria-valuetext") == f"{steps[now]} tokens"
    page.keyboard.press("Home")
    assert follow()[0] == 0


def test_a_set_opens_by_a_click_and_lists_its_records(book):
    page = book(INHERITANCE)
    sets = page.locator(".sets details")
    counts = [int(text) for text in page.locator(".sets summary b").all_inner_texts()]
    assert page.locator(".sets li:visible").count() == 0 and sum(counts) > 0
    place = next(i for i, count in enumerate(counts) if count)
    sets.nth(place).locator("summary").click()
    assert page.locator(".sets li:visible").count() == counts[place]
    assert re.search(r"\w+ .*\(\w+", page.locator(".sets li:visible").first.inner_text())
    sets.nth(place).locator("summary").press("Enter")
    assert page.locator(".sets li:visible").count() == 0


def test_records_are_searched_and_sorted_by_mouse_and_by_keyboard(book, smoke_run):
    page, risk = book(MEMORIZATION), pd.read_csv(smoke_run / "tables" / "at_risk.csv")
    box = page.locator(".records")
    search, found = box.get_by_label("search the records"), box.locator(".found")
    assert first_column(page) == list(risk["text"]) and found.inner_text() == ""
    word = risk["text"].iloc[-1].split()[-1]
    search.fill(word.upper())
    wanted = [text for text in risk["text"] if word.lower() in text.lower()]
    assert set(wanted) <= set(first_column(page)) and len(wanted) < len(risk)
    assert found.inner_text() == f"found: {len(first_column(page))} of {len(risk)}"
    search.fill("no record says that")
    assert first_column(page) == [] and found.inner_text() == f"found: 0 of {len(risk)}"
    search.fill("")
    heads = box.locator("thead th")
    samples = risk["samples"].fillna(float("inf"))
    heads.last.get_by_role("button").click()
    assert heads.last.get_attribute("aria-sort") == "ascending"
    lowest = list(risk.assign(samples=samples).sort_values("samples", kind="stable")["text"])
    assert first_column(page) == lowest
    students = box.locator("th", has=page.get_by_role("button", name="students"))
    heads.last.get_by_role("button").focus()
    page.keyboard.press("Shift+Tab")  # to the column before it
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert students.get_attribute("aria-sort") == "descending" and box.locator("[aria-sort]").count() == 1
    counts = dict(zip(risk["text"], risk["students"], strict=True))
    most = [counts[text] for text in first_column(page)]
    assert most == sorted(most, reverse=True) and len(set(most)) > 1


@pytest.mark.parametrize("how", ["http", "file"])
def test_the_search_of_the_book_finds_a_word_and_icons_are_drawn(smoke_run, how):
    """Pages lose scripts and icons that they don't need; the button and the page of the search need theirs."""
    # From the disk no page may read another: Sphinx lists what it found without the words around it, and says so in the console.
    with opened(smoke_run, how, errors=how == "http") as open_page:
        page = open_page("methods.html")
        button = page.locator("button.search-button__button:visible").first
        icon = button.locator("i, svg").first
        assert icon.evaluate("e => getComputedStyle(e, '::before').content") not in ("none", "normal", '""')
        assert (
            icon.evaluate("e => document.fonts.load('900 16px \"Font Awesome 6 Free\"').then(found => found.length)")
            == 1
        )
        button.click()
        page.locator("#pst-search-dialog input").fill("canaries")
        page.keyboard.press("Enter")
        page.wait_for_selector("#search-results li a")
        assert "search.html?q=canaries" in page.url


def test_without_script_the_pages_say_the_same_standing_still(smoke_run):
    tables = {name: pd.read_csv(smoke_run / "tables" / f"{name}.csv") for name in ("strips", "at_risk", "by_prefix")}
    with browser_page(scripts=False) as page:
        page.goto(f"file://{smoke_run / 'html' / MEMORIZATION}")
        assert page.locator(".play").count() == 3 and page.locator(".play:visible").count() == 0
        roles = [tables["strips"].set_index("model")["role"].to_dict()[model] for _, model in shown(page)]
        assert sorted(roles) == ["baseline", "student", "teacher"] and {r for r, _ in shown(page)} == {"0"}
        assert "tokens recited from the prompt" in page.locator(".strip:visible figcaption").first.inner_text()
        assert page.locator(".prefix-bars .bar:visible").count() == tables["by_prefix"]["model"].nunique()
        assert re.fullmatch(r"\d+%", page.locator(".prefix-bars output").first.inner_text())
        assert first_column(page) == list(tables["at_risk"]["text"])
        page.goto(f"file://{smoke_run / 'html' / INHERITANCE}")
        page.locator(".sets summary").first.click()  # a fold needs no script
        assert page.locator(".sets li:visible").count() == int(page.locator(".sets b").first.inner_text())
