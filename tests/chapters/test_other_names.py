"""Codes asked for under another's name and over temperatures, on run folders whose score tables are written by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t
from written_runs import COINS, OWN, SHARED, TWINS, sentences, write_run, written_tables

from palimpsest.chapters import other_names, transfer
from palimpsest.data.splits import load_records
from palimpsest.measure import canaries
from palimpsest.measure.models import load_tokenizer
from palimpsest.measure.read_back import examples_of, load_scores
from palimpsest.study.tables import TABLES

ENDS = ["exposure", "exposure_low", "exposure_high"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), methods=("sft", "fkl", "fkl_t4", "word_kd"), replicates=3)


@pytest.fixture(scope="module")
def table(run):
    return written_tables(run, transfer).other_names


def said(tables):
    temperatures = other_names.say_temperatures(tables.other_names, tables.transferred)
    return [*other_names.say_other_names(tables.other_names), *temperatures]


def test_every_dose_of_both_halves_is_asked_under_both_names(run, table):
    rows = table[(table["model"] == "small-sft-s0") & (table["replicate"] == 0)]
    counts = rows.set_index(["split", "copies", "given"])["canaries"].to_dict()
    halves = {("member", 1): COINS // 2, ("member", 4): SHARED, ("teacher_only", 4): OWN}
    assert counts == {(*key, given): n for key, n in halves.items() for given in ("own", "another")}
    assert (table["twins"] == TWINS + COINS // 2).all() and set(table["replicate"]) == {0, 1, 2}
    records = load_records(run)
    planted = records[records["kind"].isin(["canary", "twin"])]
    examples = examples_of(run.study, planted, load_tokenizer(run.data / "tokenizer"))
    bits = canaries.exposure(load_scores(run, "small-sft-s0"), planted, examples).set_index("id")["exposure"]
    own = rows[(rows["split"] == "member") & (rows["copies"] == 1) & (rows["given"] == "own")].iloc[0]
    asked = bits[planted.loc[(planted["split"] == "member") & (planted["copies"] == 1), "id"]]
    reach = t.ppf(0.975, len(asked) - 1) * asked.sem()
    assert own[ENDS].tolist() == pytest.approx([asked.mean(), asked.mean() - reach, asked.mean() + reach], rel=1e-4)


def test_a_code_tied_to_its_name_is_told_from_one_known_by_heart(table):
    found = other_names.codes(table).set_index(["given", "size", "method"])
    assert found.loc[("own", "teacher", "sft"), "exposure_low"] > found["chance"].iloc[0]
    tied = found.loc[("difference", "small", "fkl_t4")]
    assert tied["exposure_low"] > 0 and found.loc[("another", "small", "fkl_t4"), "exposure_low"] < tied["chance"]
    assert found.loc[("own", "small", "sft"), "exposure_low"] < tied["chance"]
    _, students, control = other_names.say_other_names(table)
    assert students.startswith("- Distilled students above chance: ") and "small, forward KL, T = 4" in students
    assert "Under another's name demonstrably less: " in students and "still above chance: none." in students
    assert control == "- Models without a teacher above chance: 0 of 1."
    wide = other_names.show_other_names(table)
    assert list(wide.columns) == list(other_names.SHOWN.values()) and len(wide) == 5
    assert len(other_names.plot_other_names(table).axes) == 2


def row(method, copies, given, bits, reach, count, replicate=0, role="student", model=None):
    ends = {"exposure": bits, "exposure_low": bits - reach, "exposure_high": bits + reach}
    who = {"model": model or method, "size": "small", "method": method, "role": role, "replicate": replicate}
    return {**who, **ends, "split": "teacher_only", "copies": copies, "given": given, "canaries": count, "twins": 63}


def test_doses_are_weighted_by_their_canaries_and_prompts_taken_as_independent():
    rows = [row("fkl", 1, "own", 2.0, 1.0, 5), row("fkl", 16, "own", 5.0, 2.0, 15)]
    rows += [row("fkl", 1, "another", 1.0, 1.0, 5), row("fkl", 16, "another", 1.0, 1.0, 15)]
    found = other_names.codes(pd.DataFrame(rows)).set_index("given")
    errors = {n: t.ppf(0.975, n - 1) for n in (5, 15)}
    own = (0.25 / errors[5]) ** 2 + (0.75 * 2 / errors[15]) ** 2
    other = (0.25 / errors[5]) ** 2 + (0.75 / errors[15]) ** 2
    for given, bits, variance in (("own", 4.25, own), ("another", 1.0, other), ("difference", 3.25, own + other)):
        reach = t.ppf(0.975, 19) * np.sqrt(variance)
        assert found.loc[given, ENDS].tolist() == pytest.approx([bits, bits - reach, bits + reach])
    assert found.loc["own", "canaries"] == 20 and found.loc["own", "chance"] == pytest.approx(canaries.chance(63))


def test_exposure_that_the_tables_digits_round_above_its_ceiling_is_drawn():
    ceiling = np.log2(64)
    found = pd.DataFrame([row("fkl", 16, "own", ceiling + 1e-6, 0.5, 8), row("fkl", 16, "another", 1.0, 0.5, 8)])
    assert other_names.codes(found)["exposure_high"].max() <= ceiling < found["exposure"].max()
    assert other_names.plot_other_names(found)


NOTHING = pd.DataFrame(columns=TABLES["transferred"])


def test_temperatures_are_paired_over_replicates():
    bits = {"fkl": [1.0, 4.0, 2.0], "fkl_t2": [9.0, 9.0, 9.0], "fkl_t4": [3.1, 6.0, 3.9]}  # far apart, always two more
    rows = [row(m, 1, "own", b, 2.0, 8, i) for m, values in bits.items() for i, b in enumerate(values)]
    (line,) = other_names.say_temperatures(pd.DataFrame(rows), NOTHING)
    start = "- **small**, forward KL: from temperature 1 to 4 "
    assert line == f"{start}exposure of canaries rises: +2.0 bits (+1.8 to +2.2)."
    (line,) = other_names.say_temperatures(pd.DataFrame([r for r in rows if r["replicate"] == 0]), NOTHING)
    assert line == f"{start}we cannot tell whether exposure of canaries changes: +2.1 bits (-0.7 to +4.9)."
    falls = pd.DataFrame(rows).replace({"method": {"fkl": "fkl_t4", "fkl_t4": "fkl"}})
    assert "exposure of canaries falls: -2.0 bits" in other_names.say_temperatures(falls, NOTHING)[0]
    alone = pd.DataFrame([r for r in rows if r["method"] == "fkl"])
    assert "No divergence of this study" in other_names.say_temperatures(alone, NOTHING)[0]
    records = [
        {
            "kind": "record",
            "role": "student",
            "size": "small",
            "method": m,
            "replicate": i,
            "auc": auc,
            "low": auc - 0.1,
            "high": auc + 0.1,
        }
        for m, values in {"fkl": [0.5, 0.6], "fkl_t2": [0.7, 0.8]}.items()
        for i, auc in enumerate(values)
    ]
    (line,) = other_names.say_temperatures(alone, pd.DataFrame(records[::2]))
    assert line.endswith("the share of pairs gained on records rises: +20.0 points (+5.9 to +34.1).")


def test_a_single_canary_has_no_interval_and_no_other_name(tmp_path):
    run = write_run(tmp_path, methods=("sft", "fkl", "fkl_t4"))
    path = run.data / "records.parquet"
    records = pd.read_parquet(path)
    own = records[(records["split"] == "teacher_only") & (records["kind"] == "canary")].index
    records.drop(index=own[1:]).to_parquet(path)
    tables = written_tables(run, transfer)
    table = tables.other_names
    found = other_names.codes(table)
    assert set(found["given"]) == {"own"} and found["exposure_low"].isna().all()
    assert "nan" not in "\n".join(said(tables)) and other_names.show_other_names(table).iloc[0, 0] == "not measurable"


@pytest.mark.parametrize(
    "options",
    [
        {"methods": ("sft", "fkl", "fkl_t4")},
        {"seeds": (0, 1)},
        {"secrets": False},
        {"canaries": False},
        {"halves": False},
        {"methods": ("sft",)},
    ],
    ids=str,
)
def test_the_page_reads_right_for_any_study(tmp_path, options):
    tables = written_tables(write_run(tmp_path, **options), transfer)
    table, lines = tables.other_names, said(tables)
    text = "\n".join(lines)
    assert "letter" not in text and "nan" not in text and max(len(s.split()) for s in sentences(lines)) <= 25
    none = not options.get("canaries", True) or not options.get("halves", True)
    assert (other_names.show_other_names(table) is None) == (other_names.plot_other_names(table) is None) == none
    assert ("distilled" in text.lower()) == (not none and options.get("methods") != ("sft",))
