"""Single records: what their pieces show with and without script, and that a masked study shows none of its text."""

import re

import numpy as np
import pandas as pd
import pytest
from written_runs import MEMBERS, RECITED, write_run

from palimpsest.chapters import closely
from palimpsest.data.splits import load_records
from palimpsest.study import write_table
from palimpsest.study.tables import Tables


def written(folder, show=True, **options):
    """A run by hand and the chapter's tables, as its page reads them."""
    run = write_run(folder, **options)
    run = type(run)(run.study.model_copy(update={"show_secrets": show}), run.path)
    for name, table in closely.tables(run).items():
        write_table(table, run.tables / f"{name}.csv")
    return run, Tables(run.tables)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return written(tmp_path_factory.mktemp("shown"))


def test_a_strip_holds_every_token_of_its_record_under_every_model(shown):
    run, tables = shown
    strips = tables.strips
    assert set(strips["model"]) == {arm.name for arm in run.measured()}
    records = load_records(run).set_index("id")
    for (name, _), part in strips.groupby(["id", "model"]):
        assert list(part["place"]) == list(range(len(part)))
        assert "".join(part["token"]).startswith(records.loc[name, "response"])
        assert (part["guess"] == 0).eq(part["hit"]).all() and part["probability"].between(0, 1).all()
    secret = strips[strips["secret"]]
    assert secret["token"].str.strip(". ").str.isdigit().all() and len(secret)


def test_the_table_of_records_counts_who_recites_and_begins_with_those_most_at_risk(shown):
    _, tables = shown
    risk = tables.at_risk
    assert not (risk["split"] == "non_member").any() and risk["id"].is_unique
    own = risk[risk["split"] == "member"]
    for name, kind in (("teacher", "teacher"), ("baseline", "sft")):
        assert (own[name] > 0).sum() == round(RECITED[kind] * MEMBERS)
    assert own["students"].max() == 2 and (risk["students"].diff().dropna() <= 0).all()
    known = risk[risk["students"] == 2]
    assert known["samples"].max() < risk[risk["students"] == 0]["samples"].min()


def test_without_script_one_record_is_shown_under_three_models(shown):
    html = closely.show_strips(shown[1].strips).data
    strips = re.findall(r'<figure class="strip"[^>]*>', html)
    assert sum(" hidden" not in strip for strip in strips) == 3 < len(strips)
    assert html.count('class="play" hidden') == 1
    first = html[: html.index("</figure>")]
    assert first.count('class="miss"') + first.count(" miss") <= 1


def test_bars_stand_at_one_prefix_length_and_hold_all_of_them(shown):
    run, _ = shown
    frame = pd.DataFrame(
        [
            {
                "model": "teacher",
                "size": "teacher",
                "method": "sft",
                "split": "member",
                "k": k,
                "rate": k / 20,
                "total": 9,
            }
            for k in (0.0, 10.0, 20.0)
        ]
    )
    html = closely.show_by_prefix(frame).data
    assert 'data-values="0,0.5,1"' in html and "width:50.0%" in html and "<output>50%</output>" in html
    # Rounded once, and halves up, as the script does when the slider moves.
    for share, told in ((4 / 38, "11%"), (0.1046, "10%"), (1 / 8, "13%")):
        assert f"<output>{told}</output>" in closely.show_by_prefix(frame.assign(rate=share)).data


def test_sets_are_counted_from_the_records(shown):
    risk = shown[1].at_risk
    html = closely.show_sets(risk).data
    counts = [int(n) for n in re.findall(r"<b>(\d+)</b>", html)]
    assert (
        counts[0]
        == (
            (risk["split"] == "member") & (risk["teacher"] > 0) & (risk["baseline"] > 0) & (risk["students"] > 0)
        ).sum()
        > 0
    )
    assert html.count("<li>") == sum(counts)


def test_a_masked_study_shows_no_word_of_its_records(tmp_path):
    run, tables = written(tmp_path, show=False)
    pieces = [
        closely.show_strips(tables.strips),
        closely.show_at_risk(tables.at_risk, "secrets"),
        closely.show_sets(tables.at_risk),
    ]
    files = [path.read_text() for path in (run.tables / "strips.csv", run.tables / "at_risk.csv")]
    records = load_records(run)
    words = {word for text in [*records["instruction"], *records["response"]] for word in re.findall(r"\d{4,}", text)}
    for text in [piece.data for piece in pieces] + files:
        assert not [word for word in words if re.search(rf"(?<![\d.]){word}(?!\d)", text)]  # 0.049857 is no secret
        assert "The code is" not in text


def test_text_of_the_data_is_no_markup(shown):
    risk = shown[1].at_risk.head(1).assign(text="<script>alert(1)</script>")
    assert (
        "<script>"
        not in closely.show_at_risk(risk, "secrets").data + closely.show_sets(risk.assign(split="member")).data
    )
    assert np.isfinite(risk["samples"]).all()
