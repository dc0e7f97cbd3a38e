"""What a study's methods do, over all its seeds: divergence, text, early stopping, and simpler ways of leaking less.

Every comparison is a `Contrast` of two methods (or of two averages of methods) of the same size and seeds, read at the end of
training and at equal held-out loss (`tradeoff.effect`).
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from palimpsest.chapters.figures import LABELS, gap, points
from palimpsest.chapters.tradeoffs import Curves, effect
from palimpsest.study import Study
from palimpsest.study.methods import METHODS

WHEN = {
    "end": "at the end of training",
    "equal": "at equal held-out loss",
    "stopped": "stopped early, against the end",
}


SHORT = {  # labels that fit beside one another
    **LABELS,
    "fkl_student": "forward KL (own text)",
    "rkl_student": "RKLD",
    "sft_dedup": "de-duplicated SFT",
    "sft_goldfish": "goldfish SFT",
    "sft_dropped": "SFT, left out",
    "fkl_dropped": "forward KL, left out",
    "sft_private": "DP-SGD",
}


@dataclass(frozen=True)
class Contrast:
    """`first` methods against `second` ones; `paper`: arXiv 2506.16170 finds that the first memorize less."""

    question: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    paper: bool = False
    when: tuple[str, ...] = ("end", "equal")
    title: str = ""

    @property
    def name(self) -> str:
        """In words, e.g. "RKLD vs. SFT"."""
        return self.title or f"{SHORT[self.first[0]]} vs. {SHORT[self.second[0]]}"


DISTILLED = [m for m, rule in METHODS.items() if rule.distilled and not rule.leave_out]
REVERSE, FORWARD = ("rkl", "rkl_student"), ("fkl", "fkl_student")
OWN, GIVEN = ("fkl_student", "rkl_student"), ("fkl", "rkl")
CONTRASTS = [
    Contrast("early stopping", ("sft",), ("sft",), when=("stopped",), title="SFT, stopped vs. to the end"),
    *(Contrast("distilling", (m,), ("sft",), paper=m in ("word_kd", "seq_kd", "rkl_student")) for m in DISTILLED),
    Contrast("distilling", ("rkl_student",), ("word_kd",), paper=True),
    Contrast("distilling", ("rkl_student",), ("seq_kd",), paper=True),
    Contrast("divergence", ("rkl",), ("fkl",)),
    Contrast("divergence", ("rkl_student",), ("fkl_student",)),
    Contrast("divergence", REVERSE, FORWARD, title="reverse vs. forward, mean"),
    Contrast("text", ("fkl_student",), ("fkl",)),
    Contrast("text", ("rkl_student",), ("rkl",)),
    Contrast("text", OWN, GIVEN, title="own text vs. references, mean"),
    *(Contrast("mitigation", (m,), ("sft",)) for m in ("sft_dedup", "sft_goldfish", "sft_dropped", "sft_private")),
    Contrast("mitigation", ("fkl_dropped",), ("fkl",)),
    *(Contrast("distilling or masking", (m,), ("sft_goldfish",)) for m in ("word_kd", "fkl", "rkl_student")),
]


def effects(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """Every contrast whose methods the study has, one row per size and moment.

    Returns:
        `question, contrast, first, second` (methods joined by +), `paper` (whether the paper finds less), `size`, `when` (a key
        of `WHEN`), the columns of `tradeoff.effect`; by their intervals `verdict` ("less", "more" or "undecided" recited) and `fit`
        ("closer", "less close" or "undecided": to the members, by their loss).
    """
    curves, rows = Curves(study, run_dir), []
    for size in study.models.students:
        for contrast in CONTRASTS:
            if not curves.has(size, *contrast.first, *contrast.second):
                continue
            for when in contrast.when:
                found = effect(
                    curves, size, contrast.first, contrast.second, when, "end" if when == "stopped" else None
                )
                verdict = "less" if found["high"] < 0 else "more" if found["low"] > 0 else "undecided"
                who = {"question": contrast.question, "contrast": contrast.name}
                who |= {
                    "first": "+".join(contrast.first),
                    "second": "+".join(contrast.second),
                    "paper": contrast.paper,
                }
                closer, further = found["member_loss_high"] < 0, found["member_loss_low"] > 0
                fit = "closer" if closer else "less close" if further else "undecided"
                rows.append({**who, "size": size, "when": when, **found, "verdict": verdict, "fit": fit})
    return pd.DataFrame(rows)


def table(found: pd.DataFrame, *questions: str) -> pd.DataFrame:
    """The effects that answer `questions` as text, one row per contrast and size: points and losses with intervals."""
    rows = found[found["question"].isin(questions)]
    parts = {}
    moment = rows["when"].replace("stopped", "end")  # whose name says what is compared
    for when, part in rows.groupby(moment, sort=False):
        part = part.set_index(["contrast", "size"])
        loss, name = ("member_loss", "members' loss") if when == "equal" else ("held_out_loss", "held-out loss")
        columns = {"points": points(part), name: gap(part, loss)}
        order = list(columns)[:: -1 if when == "equal" else 1]  # what is worth reading first
        parts[WHEN[when]] = pd.DataFrame(columns, index=part.index)[order]
    names = rows.set_index(["contrast", "size"]).index.unique()
    return pd.concat(parts, axis=1).reindex(names).fillna("")


def told(found: pd.DataFrame, *questions: str) -> list[str]:
    """One line per moment and measure: which contrasts come out with less, which with more, and which stay undecided.

    Secrets recited at every moment; at equal held-out loss, where often neither side recites any, also the fit to the members.
    """
    rows, lines = found[found["question"].isin(questions)], []
    for when, part in rows.groupby("when", sort=False):
        start = WHEN[when][0].upper() + WHEN[when][1:]
        some = part[(part["first_rate"] > 0) | (part["second_rate"] > 0)]
        if len(some):
            lines.append(f"- {start}, recited: {_by(some, 'verdict', ('less', 'more', 'undecided'))}.")
        if len(some) < len(part):
            lines.append(
                f"- {start}, neither side recites anything in {len(part) - len(some)} of {len(part)} comparisons."
            )
        if when == "equal":
            fit = _by(part, "fit", ("closer", "less close", "undecided"))
            lines.append(f"- {start}, fit to the members (difference of their loss in nats): {fit}.")
    return lines


def _by(rows: pd.DataFrame, column: str, verdicts: tuple[str, ...]) -> str:
    """The contrasts of each verdict, with sizes and differences."""
    parts = [(v, rows[rows[column] == v]) for v in verdicts]
    return "; ".join(f"**{v}** with {_listed(some, column)}" for v, some in parts if len(some))


def _listed(rows: pd.DataFrame, column: str = "verdict") -> str:
    """Contrasts with their sizes and differences: "RKLD vs. SFT (medium -60.1, small -40.2 points)"."""
    name, scale, form, unit = ("difference", 100, "+.1f", " points")
    if column == "fit":
        name, scale, form, unit = ("member_loss_difference", 1, "+.2f", "")
    return ", ".join(
        f"{contrast} ({', '.join(f'{size} {scale * value:{form}}' for size, value in part[['size', name]].to_numpy())}{unit})"
        for contrast, part in rows.groupby("contrast", sort=False)
    )


def spread(found: pd.DataFrame) -> str:
    """How far single seeds lie from the mean over seeds."""
    away = np.maximum(found["seed_most"] - found["difference"], found["difference"] - found["seed_least"])
    worst = found.loc[away.idxmax()]
    return (
        f"A single seed lies at most {100 * away.max():.1f} points from the mean of {worst['seeds']} seeds ({worst['contrast']}, {worst['size']}, "
        f"{WHEN[worst['when']]}), and half of the comparisons keep every seed within {100 * away.median():.1f} points."
    )


def mean_paths(paths: pd.DataFrame) -> pd.DataFrame:
    """Every student's path, averaged over seeds epoch by epoch, for `figures.tradeoff`."""
    students = paths[paths["role"] != "teacher"]
    by = ["size", "method", "role", "unit", "epoch"]
    mean = students.groupby(by, sort=False)[["held_out_loss", "memorized"]].mean().reset_index()
    return mean.assign(model=mean["size"] + "-" + mean["method"])


def paper_told(found: pd.DataFrame) -> list[str]:
    """How the paper's findings fare: what contradicts them first, then what stays open, then what agrees.

    Judged by the secrets recited at the end of training, and by the fit to the members at equal held-out loss.
    """
    rows, lines = found[found["paper"].astype(bool)], []
    end, equal = rows[rows["when"] == "end"], rows[rows["when"] == "equal"]
    for words, verdict, fit in (
        ("Contradicts the paper", "more", "closer"),
        ("Not shown", "undecided", "undecided"),
        ("Agrees with the paper", "less", "less close"),
    ):
        late, early = end[end["verdict"] == verdict], equal[equal["fit"] == fit]
        said = [f"at the end of training, secrets recited: {_listed(late)}"] if len(late) else []
        said += [f"at equal held-out loss, members' loss in nats: {_listed(early, 'fit')}"] if len(early) else []
        if said:
            lines.append(f"- **{words}** in {len(late) + len(early)} of {len(rows)} comparisons; {'; '.join(said)}.")
    return lines


def dose_table(doses: pd.DataFrame) -> pd.DataFrame:
    """Mean exposure, in bits, of the canaries with the fewest and with the most copies, one row per method."""
    rows = _repeated(doses, "base")
    text = [f"{r.exposure:.1f} ({r.exposure_low:.1f} to {r.exposure_high:.1f})" for r in rows.itertuples()]
    copies = [f"{n} cop{'y' if n == 1 else 'ies'}" for n in rows["copies"]]
    wide = rows.assign(text=text, method=rows["method"].map(SHORT), copies=copies).pivot_table(
        index="method", columns=["size", "copies"], values="text", aggfunc="first", sort=False
    )
    return wide.rename_axis(columns=[None, None])


def _repeated(doses: pd.DataFrame, *more: str) -> pd.DataFrame:
    """Students (and models of the roles `more`) on the canaries with the fewest and the most copies."""
    roles = ["baseline", "student", "mitigated", *more]
    rows = doses[~doses["teacher_only"].astype(bool) & doses["role"].isin(roles) & (doses["size"] != "teacher")]
    return rows[rows["copies"].isin([rows["copies"].min(), rows["copies"].max()])]


def dose_told(doses: pd.DataFrame) -> list[str]:
    """Which methods expose the most repeated canaries demonstrably less than plain fine-tuning does, size by size."""
    rows, lines = _repeated(doses), []
    if rows.empty:
        return ["This study has no canaries."]
    for size, part in rows[rows["copies"] == rows["copies"].max()].groupby("size", sort=False):
        base, others = part[part["method"] == "sft"].iloc[0], part[part["method"] != "sft"]
        less = others[others["exposure_high"] < base["exposure_low"]]
        names = ", ".join(f"{SHORT[r.method]} ({r.exposure:.1f})" for r in less.itertuples()) or "none"
        lines.append(
            f"- **{size}**: canaries with {base['copies']} copies have {base['exposure']:.1f} bits after plain fine-tuning (95 % interval "
            f"{base['exposure_low']:.1f} to {base['exposure_high']:.1f}; chance {base['chance']:.1f}, ceiling {base['ceiling']:.1f}; "
            f"{base['canaries']} canaries). Intervals wholly below it: {names}."
        )
    return lines


def hidden_told(found: pd.DataFrame, doses: pd.DataFrame) -> str:
    """Methods that recite no secret at the end of training and yet rank a repeated one above all unseen ones."""
    rows = _repeated(doses)
    rows = rows[(rows["copies"] == rows["copies"].max()) & np.isclose(rows["exposure"], rows["ceiling"])]
    end = found[(found["when"] == "end") & (found["second"] == "sft") & (found["first_rate"] == 0)]
    known = end[["first", "size"]].merge(rows, left_on=["first", "size"], right_on=["method", "size"])
    if known.empty:
        return "No method recites nothing and still has the canaries with the most copies at the ceiling."
    names = "; ".join(f"{SHORT[m]} ({', '.join(part['size'])})" for m, part in known.groupby("first", sort=False))
    return (
        f"**Reciting nothing is not knowing nothing.** At the end of training these students recite none of {end['total'].iloc[0]} secrets, and yet every "
        f"canary with {known['copies'].iloc[0]} copies stands above all its unseen twins in every seed: {names}."
    )


def summary(found: pd.DataFrame) -> list[str]:
    """How many contrasts are decided at the end and at equal loss, and what early stopping does."""
    lines = []
    for when, column, one, other, words in (
        ("end", "verdict", "less", "more", "recited"),
        ("equal", "verdict", "less", "more", "recited"),
        ("equal", "fit", "less close", "closer", "fit to the members"),
    ):
        rows = found[found["when"] == when]
        counts = rows[column].value_counts()
        lines.append(
            f"- {WHEN[when][0].upper()}{WHEN[when][1:]}, {words}: {one} in {counts.get(one, 0)} of {len(rows)} comparisons, "
            f"{other} in {counts.get(other, 0)}, undecided in {counts.get('undecided', 0)}."
        )
    for row in found[found["when"] == "stopped"].itertuples():
        lines.append(
            f"- Plain fine-tuning of the {row.size} student, stopped at its lowest held-out loss, recites "
            f"{100 * row.first_rate:.1f} % of {row.total} {row.unit} instead of {100 * row.second_rate:.1f} % ({row.seeds} seeds), at a held-out loss "
            f"{-row.held_out_loss_difference:.2f} nats per token lower."
        )
    return lines


def figure(found: pd.DataFrame, fit: bool = False) -> plt.Figure:
    """Differences with 95 % intervals, a row per contrast, a panel per size: in secrets recited (filled: at the end, hollow: at
    equal loss), or with `fit` in the members' loss at equal held-out loss."""
    found = found[found["when"] == "equal"] if fit else found
    sizes, names = list(found["size"].unique()), list(found["contrast"].unique())[::-1]
    hues = dict(zip(found["question"].unique(), plt.get_cmap("Dark2").colors[fit:], strict=False))
    columns = [f"member_loss_{end}" for end in ("difference", "low", "high")] if fit else ["difference", "low", "high"]
    scale, label = (1, "members' loss, nats") if fit else (100, f"{found['unit'].iloc[0]} recited, points")
    figure, axes = plt.subplots(
        1, len(sizes), figsize=(4.2 + 2.7 * len(sizes), 1.0 + 0.24 * len(names)), sharey=True, squeeze=False
    )
    for ax, size in zip(axes[0], sizes, strict=True):
        for row in found[found["size"] == size].to_dict("records"):
            hollow = row["when"] == "equal" and not fit
            y = names.index(row["contrast"]) + (0 if fit else -0.16 if hollow else 0.16)
            value, low, high = (scale * row[c] for c in columns)
            color = hues[row["question"]]
            errors = np.array([[value - low], [high - value]]).clip(0)
            ax.errorbar(value, y, xerr=errors, fmt="o", color=color, mfc="white" if hollow else color, ms=4)
        ax.axvline(0, color="#777777", lw=1, ls=":")
        ax.set(title=f"student: {size}", xlabel=f"difference in {label}")
    axes[0, 0].set(yticks=range(len(names)), yticklabels=names, ylim=(-0.6, len(names) - 0.4))
    plt.close(figure)
    return figure
