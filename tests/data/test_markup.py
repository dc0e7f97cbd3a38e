"""Tables as HTML that a page can restyle, with no text of the data alive in them."""

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from tags import Tags

from palimpsest.data.markup import MOST, SCRIPT, records_as_html, table_as_html


def test_intervals_are_set_apart_and_text_is_inert():
    html = table_as_html(pd.DataFrame({"a": ["12.3 % (10.0 to 14.9)", "<b>bold</b> (x)"]}))
    assert "12.3\u00a0% <small>(10.0 to 14.9)</small>" in html and "<b>" not in html and html.count("<small>") == 1
    assert 'role="region" tabindex="0"' in html


def test_a_table_has_one_row_of_heads_and_words_are_no_numbers():
    frame = pd.DataFrame({"rate": ["12 %"], "so": ["we cannot tell"]}, index=pd.Index(["small, SFT"], name="student"))
    html = table_as_html(frame)
    assert (
        html.count("<tr>") == 2
        and '<th scope="col" class="words">student</th>' in html
        and '<th scope="row">small, SFT</th>' in html
    )
    assert "<td>12\u00a0%</td>" in html and '<td class="words">we cannot tell</td>' in html and " many" not in html
    wide = pd.concat({"best": frame, "end": frame.assign(more=1.23456)}, axis=1)
    html = table_as_html(wide)
    assert ">best: rate</th>" in html and "table-frame many" in html and ">1.23" in html


def test_outer_levels_of_an_index_stand_above_their_rows_and_take_no_column():
    index = pd.MultiIndex.from_tuples([("a<b>", "x"), ("a<b>", "y"), ("c", "x")], names=["half", "model"])
    html = table_as_html(pd.DataFrame({"recited": ["1 of 2", "0 of 2", "2 of 2"]}, index=index))
    groups = [f'<tr class="group"><th scope="rowgroup" colspan="2">{name}</th></tr>' for name in ("a&lt;b&gt;", "c")]
    assert [html.count(group) for group in groups] == [1, 1] and html.index(groups[0]) < html.index(groups[1])
    assert html.count('<th scope="row">') == 3 and "half" not in html and html.count('scope="col"') == 2


def test_a_column_of_words_is_one_however_short_they_are():
    html = table_as_html(pd.DataFrame({"word": ["it", "minutes"], "count": ["1", "12"]}).set_index("count"))
    assert html.count('<td class="words">') == 2


def test_a_table_leaves_nothing_of_a_text_alive():
    evil = "<img src=x onerror=alert(1)> \u202eexe\u200b & 'q'"
    frame = pd.DataFrame({"<i>\u202e": ["a<b>"], "text": [evil], "none": [None], "n": [7]}).set_index("<i>\u202e")
    shown = table_as_html(frame)
    assert "onerror" in shown and "<img" not in shown and "\\u202eexe\\u200b &amp; &#x27;q&#x27;" in shown
    assert "a&lt;b&gt;" in shown and "<td></td>" in shown and "<td>7</td>" in shown and "\u202e" not in shown
    assert "x" * 5_000 in table_as_html(pd.DataFrame({"text": ["x" * 5_000]}))


@given(st.text(min_size=1), st.text())
def test_no_cell_or_heading_of_a_table_is_markup(heading, text):
    parser = Tags()
    parser.feed(table_as_html(pd.DataFrame({heading: [f"<b>{text}"]}).set_index(heading)))
    assert parser.seen == ["div", "table", "thead", "tr", "th", "tbody", "tr", "th"]


def test_records_carry_the_numbers_they_are_sorted_by_and_a_page_lists_no_more_than_it_can_bear():
    samples = [3.0, 1_234_567.0, float("inf"), float("nan")]
    frame = pd.DataFrame(
        {"row": ["1", "2", "3", "4"], "samples": ["3", "1.23 million", "never", "never"], "record": "7 <b>"}
    )
    html = records_as_html(frame, {"samples": samples}, 4)
    assert '<td data-v="3">3</td><td class="words">7 &lt;b&gt;</td>' in html and 'data-v="1.23457e+06"' in html
    assert html.count('<td data-v="Infinity">never</td>') == 2 and "most at risk of" not in html
    assert '<p class="play" hidden>' in html and 'class="dataframe sortable"' in html and "<script" not in html
    many = pd.DataFrame({"row": [str(i) for i in range(MOST + 1)]})
    html = records_as_html(many, {"row": range(MOST + 1)}, 1_000_000)
    assert html.count("<tr>") == MOST + 1 and "<p>The 500 most at risk of 1,000,000.</p>" in html
    assert "$" not in SCRIPT.read_text()  # the report is a template
