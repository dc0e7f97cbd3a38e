"""Two finished audits beside each other: paired by record, and refused where they are not of the same."""

import json

import pandas as pd
import pytest
from audits import audited

from palimpsest import cli
from palimpsest.audit.compare import compare_audits
from palimpsest.errors import InputError
from palimpsest.measure.statistics import compare_verdicts


@pytest.fixture(scope="module")
def two(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    for name in ("base", "tuned"):
        options = {"window": 8, "approximate": False, "lowercase": False}
        audited(place / name, place / "members.jsonl", folder / name, **options)
    return folder


def test_the_same_records_are_compared_one_by_one(two, tmp_path, capsys):
    assert cli.main(["compare", str(two / "tuned"), str(two / "base"), "--out", str(tmp_path / "c.json")]) == 0
    said, found = capsys.readouterr().out, json.loads((tmp_path / "c.json").read_text())
    row = next(r for r in found["rows"] if r["measure"] == "verbatim_0")
    a, b = (pd.read_parquet(two / name / "records.parquet")["verbatim_0"].astype(bool) for name in ("tuned", "base"))
    wanted = compare_verdicts(a, b)
    assert row["difference"] == pytest.approx(a.mean() - b.mean()) and row["p"] == pytest.approx(wanted["p"])
    assert (row["only_first"], row["only_second"], row["verdict"]) == (
        int((a & ~b).sum()),
        int((b & ~a).sum()),
        "more",
    )
    table = pd.read_parquet(two / "tuned" / "records.parquet")
    name = "verbatim_0_no_end" if "verbatim_0_no_end" in table else "verbatim_0"
    a, b = (pd.read_parquet(two / one / "records.parquet")[name].astype(bool) for one in ("tuned", "base"))
    assert found["differ"] == {"only_first": table["row"][a & ~b].tolist()[:20], "only_second": []} and (a & ~b).any()
    assert "the first recites" in said and "verbatim_whole" in said and "tuned" in said


@pytest.mark.parametrize(("given", "measured"), [(18, [1]), (60, [])])
def test_records_that_are_too_short_have_no_verdict(place, tmp_path, given, measured):
    """Of the members, only the first has more than 18 tokens, and none has 60."""
    for name in ("base", "tuned"):
        options = {"window": 8, "prefix_lengths": [given], "approximate": False, "lowercase": False}
        audited(place / name, place / "members.jsonl", tmp_path / name, **options)
    found = compare_audits(tmp_path / "tuned", tmp_path / "base", tmp_path / "c.html")
    assert set(found["differ"]["only_first"] + found["differ"]["only_second"]) <= set(measured)
    totals = {row["measure"]: row["total"] for row in found["rows"]}
    assert totals.get(f"verbatim_{given}_no_end", 0) == len(measured) and totals["verbatim_whole"] == 24


def test_a_page_to_read_loads_nothing_and_names_whose_verdict_changed(two, tmp_path):
    assert cli.main(["compare", str(two / "tuned"), str(two / "base"), "--out", str(tmp_path / "c.html")]) == 0
    page, found = (tmp_path / "c.html").read_text(), compare_audits(two / "tuned", two / "base")
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>") and "<script" not in page
    assert f"not by the second: {', '.join(map(str, found['differ']['only_first']))}<" in page
    assert found["first"]["weights"] in page and "verbatim_whole" in page and "<title>Two audits compared" in page


def test_other_records_and_other_settings_are_refused_by_name(place, two, tmp_path):
    audited(place / "tuned", place / "members.jsonl", tmp_path / "window", window=5, approximate=False)
    with pytest.raises(InputError, match="can't be compared; they differ in settings.window: 8 and 5"):
        compare_audits(two / "tuned", tmp_path / "window")
    audited(place / "tuned", place / "others.jsonl", tmp_path / "others", window=8, approximate=False)
    with pytest.raises(InputError, match="they differ in data.members.sha256: "):
        compare_audits(two / "tuned", tmp_path / "others")
    with pytest.raises(InputError, match="holds no finished audit"):
        compare_audits(two / "tuned", tmp_path / "nowhere")
