"""Two finished audits of the same records, beside each other: whose verdicts differ, by how much, and how sure that is."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from palimpsest.audit.family import compared
from palimpsest.audit.first_page import in_frame
from palimpsest.audit.page import PAGE
from palimpsest.audit.people import record_hashes
from palimpsest.audit.records import NO_END, column
from palimpsest.audit.results import summary_in
from palimpsest.audit.shards import differing
from palimpsest.errors import InputError
from palimpsest.study.files import whole, write_json

LISTED = 20  # records listed whose verdicts differ

# What verdicts are about, besides the model: two audits that are compared must have the same.
SAME = ("tokenizer", "model.dtype", "data.*.sha256", "data.*.columns.*", "data.*.records")
SAME += tuple(
    f"settings.{name}"
    for name in ("template", "window", "prefix_lengths", "tie", "tokens.tokenize", "tokens.end_token")
)


def compare_audits(one: str | Path, other: str | Path, out: str | Path | None = None) -> dict[str, Any]:
    """Compare the verdicts of two audits, record by record.

    Args:
        one, other: folders of finished audits of the same records under the same settings, of any two models that share a
            tokenizer.
        out: a file for the result, a page to read where it ends in `.html`, else JSON.

    Returns:
        `first`, `second` (folders, models and `weights`), `differ` (of members, the rows that only the first, and only the second,
        recites from the prompt alone, at most `LISTED` each: `only_first`, `only_second`), `rows`: per group and verbatim measure `first`, `second` (rates), `difference`
        (first minus second) with `low`, `high` (95 %), `only_first`, `only_second`, `total`, `p` (McNemar, exact), `p_holm`
        over all rows, `verdict` (the first recites less, more, or undecided).

    Raises:
        InputError: a folder without an audit; audits of other records, under other settings or tokenizers, which are named.
    """
    folders = [Path(folder).expanduser() for folder in (one, other)]
    a, b = (summary_in(folder) for folder in folders)
    for folder, said in zip(folders, (a, b), strict=True):
        if said is None:
            raise InputError(
                f"{folder} holds no finished audit (no summary.json): give the --out of `palimpsest audit`"
            )
    if what := differing(a, b, SAME):
        raise InputError(
            f"{folders[0]} and {folders[1]} can't be compared; they differ in {'; '.join(what)}: audit both models with the same "
            "records and settings"
        )
    paths = [folder / "records.parquet" for folder in folders]
    names = [name for name in pq.read_schema(paths[0]).names if name.startswith("verbatim_")]
    pairs = {}
    for group in a["data"]:
        if not np.array_equal(*(record_hashes(path, group) for path in paths)):
            raise InputError(
                f"{folders[0]} and {folders[1]}: their {group.replace('_', '-')} are not the same records in the same order"
            )
        for name in names:
            sides = pd.concat([column(path, group, name) for path in paths], axis=1).dropna().astype(bool)
            if len(sides):
                pairs[group, name] = sides.iloc[:, 0], sides.iloc[:, 1]
    rows = [
        {"group": row["first"], "measure": row["second"], "first": row["one"], "second": row["other"]}
        | {key: row[key] for key in ("difference", "low", "high")}
        | {"only_first": row["only_one"], "only_second": row["only_other"]}
        | {key: row[key] for key in ("total", "p", "p_holm", "verdict")}
        for row in compared(pairs)
    ]
    about = [
        {"folder": str(folder), **{key: said["model"][key] for key in ("model", "weights")}}
        for folder, said in zip(folders, (a, b), strict=True)
    ]
    first, none = f"verbatim_{min(a['settings']['prefix_lengths'])}{NO_END}", pd.Series(dtype=bool)
    one, other = pairs.get(("members", first), (none, none))
    place = column(paths[0], "members", "row")[one.index]  # a record that is too short has no verdict
    differ = {"only_first": place[one & ~other], "only_second": place[other & ~one]}
    found = {"first": about[0], "second": about[1], "rows": rows}
    found["differ"] = {name: where[:LISTED].tolist() for name, where in differ.items()}
    if out and str(out).endswith(".html"):
        with whole(Path(out).expanduser()) as draft:
            draft.write_text(compared_page(found), encoding="utf-8")
    elif out:
        write_json(Path(out).expanduser(), found)
    return found


def show_compared(found: dict[str, Any]) -> str:
    """The comparison as a table for a terminal."""
    lines = [f"{name + ':':8}{found[name]['model']} ({found[name]['folder']})" for name in ("first", "second")]
    return "\n".join([*lines, "", compared_table(found).to_string(index=False)])


def compared_page(found: dict[str, Any]) -> str:
    """The comparison as an HTML page that loads nothing from elsewhere, looking like an audit's report."""
    head = (
        PAGE.read_text(encoding="utf-8").partition("</head>")[0].replace("Memorization audit", "Two audits compared")
    )
    sides = pd.DataFrame([{"": name, **found[name]} for name in ("first", "second")])
    listed = [
        f"<li>Recited by the {one} and not by the {other}: {', '.join(map(str, found['differ'][f'only_{one}'])) or 'none'}</li>"
        for one, other in (("first", "second"), ("second", "first"))
    ]
    return "\n".join(
        [
            f"{head}</head><body><h1>Two audits compared</h1>",
            "<p>The same records, verdict by verdict. Differences are the first's rate minus the second's with 95 % intervals; "
            "<code>p</code> is McNemar's exact test, by Holm's method over all rows. Where it is 0.05 or more, we cannot tell.</p>",
            in_frame(sides),
            in_frame(compared_table(found)),
            f"<h2>Whose verdict changed</h2><p>Rows of the members' file, given the prompt alone; at most {LISTED} each.</p>",
            f"<ul>{''.join(listed)}</ul></body></html>",
        ]
    )


def compared_table(found: dict[str, Any]) -> pd.DataFrame:
    """A row per group and measure, rates and differences as text."""
    return pd.DataFrame(
        {
            "group": row["group"].replace("_", "-"),
            "measure": row["measure"],
            "first": f"{100 * row['first']:.1f} %",
            "second": f"{100 * row['second']:.1f} %",
            "difference, points": f"{100 * row['difference']:+.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})",
            "only first": row["only_first"],
            "only second": row["only_second"],
            "n": row["total"],
            "p, Holm": np.format_float_positional(row["p_holm"], 2, fractional=False),
            "the first recites": row["verdict"],
        }
        for row in found["rows"]
    )
