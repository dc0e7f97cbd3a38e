"""The first page of an audit's report, as an authority reads it: who is most at risk, what was tested, what a family passed on."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from palimpsest.audit.family import ROLES
from palimpsest.audit.signoff import CHANCES
from palimpsest.data.markup import records_as_html, table_as_html
from palimpsest.data.masking import escape
from palimpsest.measure.membership_inference import LABELS
from palimpsest.measure.statistics import interval, say_copies, say_samples

SETS = {  # `measure.lineage.SETS` in words: what teacher, student and baseline recite
    "inherited": "only through the teacher: teacher and student, not the baseline",
    "easy": "all three",
    "teacher_only": "dropped: the teacher alone",
    "student_only": "the student alone",
    "baseline_only": "the baseline alone",
    "shed": "dropped, though the baseline recites it too",
    "small_only": "student and baseline, not the teacher",
    "none": "none of the three",
}


def risk_section(summary: Mapping[str, Any]) -> str:
    """The records, and persons, most at risk, each with the samples after which one expects it, and the chance level, as HTML."""
    other = summary["chance"]
    words = "<p>After so many samples one expects the record (with probability one half, by the decoding rule that gives it most "
    words += "easily), first the fewest. "
    if other and other["total"]:
        words += (
            f"Chance level: of {other['total']:,} non-members the easiest takes {say_samples(other['fewest'])} samples, the "
            f"median one {say_samples(other['median'])}. "
        )
    if not (other or any(role in summary["others"] for role in CHANCES)):
        words += "There is no chance level beside it: give <code>--non-members</code> or <code>--reference</code>. "
    words += "<code>row</code> is the record's place in its file.</p>"
    parts = [words, show_records_at_risk(summary)]
    if summary["persons_at_risk"]:
        column = escape(summary["settings"]["group_by"])
        parts.append(
            f"<p>Persons, told apart by the column <code>{column}</code>, whose values are data and stand nowhere in this report: "
            "a person is known by the first row that names them.</p>"
        )
        parts += [in_frame(show_persons_at_risk(summary)), in_frame(_persons(summary))]
    return "".join(parts)


def secrets_section(summary: Mapping[str, Any]) -> str:
    """What comes out of the secrets that were marked or found by their form, as HTML; nothing where none were looked for."""
    asked, rows = summary["settings"]["secrets"], [row for row in summary["secrets"] if row["total"]]
    if not asked:
        return ""
    table = pd.DataFrame(
        {"kind": row["kind"], "among": row["group"].replace("_", "-"), "given": row["given"], "come out": _of(row)}
        for row in rows
    )
    found = in_frame(table) if rows else "<p>None were found.</p>"
    if asked == "marked":
        return (
            f"<h2>Marked secrets</h2><p>As the records' own column marks them; others were not looked for.</p>{found}"
        )
    marked = " Those that the records mark stand beside them." if asked.startswith("marked") else ""
    return f"<h2>Addresses, numbers and keys</h2><p>Found by their form, so some are missed and some are none.{marked}</p>{found}"


def in_frame(table: pd.DataFrame) -> str:
    """A table as the book shows them, its first column naming the rows."""
    return table_as_html(table.set_index(table.columns[0]) if len(table) else table)


def show_records_at_risk(summary: Mapping[str, Any]) -> str:
    """The records most at risk, which a reader can search and sort, as HTML."""
    rows = pd.DataFrame(summary["most_at_risk"])
    samples = {"samples": rows["samples_needed"].astype(float)}
    for role, name in {**CHANCES, "teacher": "the teacher"}.items():
        if role in summary["others"]:
            samples[f"samples, {name}"] = rows[f"{role}_samples_needed"].astype(float)
    said = [
        f"{row.text}: {row.length} tokens, {say_copies(row.copies)}" + (", recited" if row.recited else "")
        for row in rows.itertuples()
    ]
    shown = pd.DataFrame({"row": rows["row"].astype(str)})
    shown = shown.assign(**{name: needed.map(say_samples) for name, needed in samples.items()}, record=said)
    return records_as_html(shown, {"row": rows["row"], **samples}, summary["data"]["members"]["records"])


def show_persons_at_risk(summary: Mapping[str, Any]) -> pd.DataFrame:
    """One row per person most at risk."""
    return pd.DataFrame(
        {
            "person of row": row["person"],
            "records": row["records"],
            "recited": row["recited"],
            "worst: row": row["row"],
            "samples": say_samples(row["samples_needed"]),
        }
        for row in summary["persons_at_risk"]
    )


def _persons(summary: Mapping[str, Any]) -> pd.DataFrame:
    rows = [row for row in summary["rates"] if row["measure"] == "persons"]
    return pd.DataFrame(
        {
            "persons among": row["group"].replace("_", "-"),
            "by": "the audited model" if row["model"] == "model" else f"the {row['model']}",
            "with a record recited": _of(row),
        }
        for row in rows
    )


def _of(row: Mapping[str, Any]) -> str:
    return f"{row['count']} of {row['total']}: {interval(row['rate'], row['low'], row['high'])}"


def show_tested(summary: Mapping[str, Any]) -> pd.DataFrame:
    """One row per test: what was found, the upper bound, the chance level."""
    rows = []
    for row in summary["tested"]:
        what = row["what"]
        for name, label in LABELS.items() if row["kind"] == "membership" else ():
            what = what.replace(f"by {name} ", f"by the {label} attack ")
        found = _percent(row["rate"]) if row["count"] is None else f"{row['count']} of {row['total']}"
        rows.append(
            {
                "kind": row["kind"],
                "tested": what,
                "found": found,
                "at most": _percent(row["upper"]),
                "chance": "no control" if row["chance"] is None else _percent(row["chance"]),
                "would be seen": "" if row["least"] is None else _percent(row["least"]),
            }
        )
    if not any(row["kind"] == "membership" for row in rows):
        why = "not measurable with so few non-members" if summary["membership"] else "not tested: give --non-members"
        rows.append(
            {"kind": "membership", "tested": why, **dict.fromkeys(("found", "at most", "chance", "would be seen"), "")}
        )
    return pd.DataFrame(rows)


def _percent(share: float) -> str:
    number = f"{100 * share:.1f}" if share >= 0.01 or not share else f"{100 * share:.2g}"
    return f"{number}\N{NO-BREAK SPACE}%"  # in narrow cells


def family_section(summary: Mapping[str, Any]) -> str:
    """What a family's models recite of the same records, as HTML; nothing where one model was audited alone."""
    said = summary["family"]
    if not said:
        return ""
    parts = [
        "<h2>Teacher, student, baseline</h2><p>The student is the audited model. Every model was given the same tokens of the same "
        "records; a record counts as recited if it follows from the prompt alone.</p>",
        in_frame(_sets(said, "name")),
    ]
    if any(row["set"] for row in said["sets"]):
        parts += ["<p>Every record is in one of eight sets:</p>", in_frame(_sets(said, "set"))]
    parts.append("<p>On the same members, the first minus the second (McNemar's exact test, Holm over the rows):</p>")
    parts.append(in_frame(show_comparisons(said["comparisons"])))
    if said["through_teacher"]:
        parts.append("<p>Known only through the teacher, the likeliest first; samples needed by each:</p>")
        rows = [
            {"row": row["row"], **{role: say_samples(row[f"{role}_samples"]) for role in ROLES}}
            for row in said["through_teacher"]
        ]
        parts.append(in_frame(pd.DataFrame(rows)))
    return "".join(parts)


def _sets(said: Mapping[str, Any], key: str) -> pd.DataFrame:
    """A row per set, a column per group."""
    table: dict[str, dict[str, str]] = {}
    for row in (row for row in said["sets"] if row[key]):
        name = SETS[row[key]] if key == "set" else row[key]
        table.setdefault(name, {"recited by" if key == "set" else "": name})[row["group"].replace("_", "-")] = _of(row)
    return pd.DataFrame(table.values())


def show_comparisons(rows: list[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per two models."""
    return pd.DataFrame(
        {
            "first": row["first"],
            "second": row["second"],
            "points": f"{100 * row['difference']:+.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})",
            "only first": row["only_one"],
            "only second": row["only_other"],
            "p": f"{row['p_holm']:.2g}",
            "the first recites": row["verdict"].replace("undecided", "we cannot tell"),
        }
        for row in rows
    )
