"""Chapter 05, is a secret tied to the name it is asked for under, and does the temperature of the divergence carry it over?

Of the table `other_names`, which `transfer.tables` makes: canaries and twins asked for under their own name, and each under that of
another one of its split and copies. A secret known by heart is as likely under either.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import t

from palimpsest.chapters import figures
from palimpsest.chapters.figures import COLORS, LABELS, between
from palimpsest.chapters.transfer import GROUP, WHO, over_replicates
from palimpsest.measure import canaries
from palimpsest.study import METHODS

SHOWN = {"own": "own name", "another": "another's name", "difference": "own minus another's"}


def codes(other_names: pd.DataFrame) -> pd.DataFrame:
    """Mean exposure of the teacher's own canaries, all doses together: a row per size, method, role and `given`: "own"
    name, "another", and the "difference", own minus another.

    Returns:
        `size, method, role, given, exposure, exposure_low, exposure_high, replicates`, and `canaries`, `twins`, `chance` (mean
        exposure of a canary that the model never saw, bits).
    """
    rows = _by_model(other_names)
    found = over_replicates(rows, [*GROUP, "given"], "exposure", "exposure_low", "exposure_high")
    counts = rows.groupby([*GROUP, "given"], sort=False)[["canaries", "twins"]].max().reset_index()
    found = found.merge(counts, on=[*GROUP, "given"])
    apart = found["given"] == "difference"  # exposure itself has a floor and a ceiling
    found["exposure_low"] = found["exposure_low"].clip(lower=np.where(apart, -np.inf, 0))
    found["exposure_high"] = found["exposure_high"].clip(upper=np.where(apart, np.inf, np.log2(found["twins"] + 1)))
    return found.assign(chance=[canaries.chance(twins) for twins in found["twins"]])


def _by_model(other_names: pd.DataFrame) -> pd.DataFrame:
    """The same of every model of every replicate, its intervals over canaries (those of two doses, or prompts, as independent)."""
    rows = other_names[other_names["split"] == "teacher_only"]
    keys = [*GROUP, "model", "replicate", "copies"]
    error = (rows["exposure_high"] - rows["exposure_low"]) / 2 / t.ppf(0.975, rows["canaries"] - 1)
    rows = rows.assign(variance=error**2)[[*keys, "given", "canaries", "twins", "exposure", "variance"]].set_index(
        keys
    )
    own, another = (rows[rows["given"] == given] for given in ("own", "another"))
    own, another = (part[part.index.isin(other.index)] for part, other in ((own, another), (another, own)))
    apart = own.assign(given="difference", exposure=own["exposure"] - another["exposure"])
    apart["variance"] = own["variance"] + another["variance"]
    rows = pd.concat([rows, apart]).reset_index()
    by = [*GROUP, "model", "replicate", "given"]
    weight = rows["canaries"] / rows.groupby(by)["canaries"].transform("sum")
    rows["exposure"], rows["variance"] = weight * rows["exposure"], weight**2 * rows["variance"]
    whole = rows.groupby(by, sort=False)[["exposure", "variance", "canaries"]].agg(lambda part: part.sum(skipna=False))
    whole = whole.assign(twins=rows.groupby(by, sort=False)["twins"].max()).reset_index()
    reach = t.ppf(0.975, np.maximum(1, whole["canaries"] - 1)) * np.sqrt(whole["variance"])
    return whole.assign(exposure_low=whole["exposure"] - reach, exposure_high=whole["exposure"] + reach)


def show_other_names(other_names: pd.DataFrame) -> pd.DataFrame | None:
    """Exposure in bits with its interval: a row per size and method, a column per prompt; None if no canary is the teacher's alone."""
    found = codes(other_names)
    if found.empty:
        return None
    forms = found["given"].map({"difference": "+.1f"}).fillna(".1f")
    values = found[["exposure", "exposure_low", "exposure_high"]].to_numpy(float)
    texts = [between(*v, form) for v, form in zip(values, forms, strict=True)]
    shown = found.assign(model=figures.names_of(found), given=found["given"].map(SHOWN))
    return figures.spread_out(shown, texts, "model", "given").reindex(columns=list(SHOWN.values()), fill_value="")


def plot_other_names(other_names: pd.DataFrame) -> plt.Figure | None:
    """Exposure under the own name (filled) and another's (hollow), a panel per size, with 95 % intervals; None as above."""
    found = codes(other_names)
    if found.empty:
        return None
    methods = [m for m in LABELS if m in set(found["method"])][::-1]
    figure, axes = figures.panels(1, found["size"].nunique(), height=0.4 + 0.3 * len(methods), sharex=True)
    for ax, (size, rows) in zip(axes[0], found.groupby("size", sort=False), strict=True):
        for row in rows[rows["given"] != "difference"].itertuples():
            own = row.given == "own"
            y = methods.index(row.method) + (0.15 if own else -0.15)
            style = {**figures.mark_of("teacher_only"), "color": COLORS[row.method]}
            style["mfc"] = None if own else "white"  # another's name is the control
            figures.dots(ax, row.exposure, row.exposure_low, row.exposure_high, y, **style)
        ax.axvline(rows["chance"].max(), color="#777777", lw=1, ls=":")
        ax.set(title=size, xlabel="exposure, bits")
        figures.name_rows(ax, [LABELS[m] for m in methods])
    return figure


def say_other_names(other_names: pd.DataFrame) -> list[str]:
    """What the teacher shows of its own canaries under both names; how many students show more than chance, and of these how many
    show less under another name, and how many still more than chance."""
    found = codes(other_names)
    if found.empty:
        return []
    by = found.set_index(["given", *GROUP])
    lines = []
    for row in found[(found["role"] == "teacher") & (found["given"] == "own")].itertuples():
        line = f"- Of its {row.canaries} own canaries, the teacher shows {_bits(row)} under their names"
        for other in found[(found["role"] == "teacher") & (found["given"] == "another")].itertuples():
            line += f" and {_bits(other)} under others'"
        lines.append(f"{line}. Chance is {row.chance:.1f} bits.")
    for who, roles in WHO.items():
        own = found[found["role"].isin(roles) & (found["given"] == "own")]
        if own.empty:
            continue
        above = own[own["exposure_low"] > own["chance"]].sort_values("exposure")
        line = f"- {who} above chance: {len(above)} of {len(own)}."
        for row in above.tail(1).itertuples():
            line += f" The highest: {row.size}, {LABELS[row.method]}, {_bits(row)}."
        lines.append(line + _under_another(by, [tuple(key) for key in above[GROUP].to_numpy()]))
    return lines


def _under_another(by: pd.DataFrame, keys: list[tuple]) -> str:
    """What becomes of those that show more than chance when they are asked under another name."""
    asked = [key for key in keys if ("another", *key) in by.index]
    if not asked:
        return ""
    less = sum(by.loc[("difference", *key), "exposure_low"] > 0 for key in asked)
    still = sum(by.loc[("another", *key), "exposure_low"] > by.loc[("another", *key), "chance"] for key in asked)
    return f" Under another's name demonstrably less: {less or 'none'} of these {len(asked)}; still above chance: {still or 'none'}."


def say_temperatures(other_names: pd.DataFrame, transferred: pd.DataFrame) -> list[str]:
    """What changes from the lowest to the highest temperature of a divergence, by size: the exposure of the teacher's own canaries
    under their own name, and how often more is gained on its other records than on unseen ones.

    Over replicates the difference is paired, since one teacher taught both; of one replicate the two are taken as independent.
    """
    rows = _by_model(other_names)
    rows = rows[(rows["given"] == "own") & (rows["role"] == "student")]
    lines = _changes(rows, ("exposure", "exposure_low", "exposure_high"), "exposure of canaries", "bits")
    rows = transferred[(transferred["kind"] == "record") & (transferred["role"] == "student")]
    points = rows.assign(**{name: 100 * rows[name] for name in ("auc", "low", "high")})
    lines += _changes(points, ("auc", "low", "high"), "the share of pairs gained on records", "points")
    return lines or [
        "- No divergence of this study has several temperatures, with records that the teacher alone read."
    ]


def _changes(rows: pd.DataFrame, names: tuple[str, str, str], what: str, unit: str) -> list[str]:
    lines, (value, lower, upper) = [], names
    for size, part in rows.groupby("size", sort=False):
        for group in _temperatures(list(part["method"].unique())):
            ends = (group[0], group[-1])
            cold, hot = (part[part["method"] == m].groupby("replicate").mean(numeric_only=True) for m in ends)
            apart = pd.DataFrame({"change": hot[value] - cold[value], "method": group[0]}).dropna()
            reach = np.hypot(*((side[upper] - side[lower]) / 2 for side in (cold, hot)))
            apart = apart.assign(low=apart["change"] - reach, high=apart["change"] + reach).reset_index()
            row = over_replicates(apart, ["method"], "change", "low", "high").iloc[0]
            found = f"{row['change']:+.1f} {unit} ({row['low']:+.1f} to {row['high']:+.1f})"
            start = f"- **{size}**, {LABELS[group[0]]}: from temperature {_temperature(ends[0]):g} to {_temperature(ends[1]):g}"
            if pd.isna(row["low"]):
                lines.append(f"{start} {what} can't be compared: one canary has no interval.")
            elif row["low"] <= 0 <= row["high"]:
                lines.append(f"{start} we cannot tell whether {what} changes: {found}.")
            else:
                lines.append(f"{start} {what} {'rises' if row['change'] > 0 else 'falls'}: {found}.")
    return lines


def _temperatures(methods: list[str]) -> list[list[str]]:
    """The methods that differ in the temperature of their divergence alone, coldest first; groups of two and more."""
    alike: dict[str, list[str]] = {}
    for method in sorted(methods, key=_temperature):
        rule = vars(METHODS[method])
        settings = {k: v for k, v in rule["settings"].items() if k != "temperature"}
        key = str([settings, *(v for k, v in rule.items() if k not in ("label", "settings"))])
        alike.setdefault(key, []).append(method)
    return [group for group in alike.values() if any(_temperature(a) < _temperature(b) for a, b in pairwise(group))]


def _temperature(method: str) -> float:
    return METHODS[method].settings.get("temperature", 1.0)


def _bits(row) -> str:
    return between(row.exposure, row.exposure_low, row.exposure_high, ".1f").replace(" (", " bits (", 1)
