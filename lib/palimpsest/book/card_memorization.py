"""The section of a model card on memorization: what a model recites, who can be told from it, and what was not tested.

Every rate has its count and its interval. Of nothing found it says what cannot be excluded.
"""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from palimpsest.chapters.attacks import ATTACKS
from palimpsest.chapters.claims import PHRASES, amount, outcomes
from palimpsest.chapters.figures import between, rate_text
from palimpsest.data.markup import markdown_table
from palimpsest.measure.statistics import rate_of
from palimpsest.study import Arm, Run
from palimpsest.study.tables import Tables

WHEN = {"best": "best validation loss", "end": "end of training"}
GROUPS = {"member": "members", "teacher_only": "the half only the teacher read", "non_member": "non-members (control)"}
ONCE = {"member": "members that stand once", "repeated": "repeated members", "non_member": "non-members (control)"}
TARGETS = {
    "window": "first window of a record",
    "whole": "whole record",
    "next_window": "next window",
    "secret": "secret",
}


def memorization_section(run: Run, arm: Arm, tables: Tables) -> Iterable[str]:
    """Its parts in Markdown.

    Args:
        run: the replicate that the model belongs to.
        tables: those of the whole run; some measurements were made of its first replicate alone.
    """
    unit = run.require("data")["unit"]
    doses, attacks = own_rows(tables.by_dose, run, arm), own_rows(tables.membership, run, arm)
    given = "given the true text before them" if unit == "secrets" else "given the prompt"
    yield f"At the end of training, {given}:\n\n{_first(doses, attacks, unit)}"
    for row in own_rows(tables.privacy_audit, run, arm).itertuples():
        said = (
            f"Who guesses from it how {row.coins} coins fell, guesses {row.guesses} and is right {row.correct} times. "
        )
        bound = f"So its training is not private below epsilon {row.epsilon_low:.2f} (95 % bound)."
        yield said + (bound if row.epsilon_low > 0 else "That proves no leak, and excludes none.")
    if doses["epoch"].nunique() == 1:  # it is best at the end
        doses = doses[doses["when"] == "end"]
    rows = [
        [WHEN[row.when], GROUPS[row.split], row.kind, row.copies, row.records, *_recited(row), short(row.exposure)]
        for row in doses.itertuples()
    ]
    heads = [
        "when",
        "whose",
        "kind",
        "copies",
        "records",
        f"recited, {given}",
        "from the prompt alone",
        "exposure, bits",
    ]
    yield f"### By copies in the training text\n\nCounts are of {unit}; of canaries, of their codes. Intervals are Wilson's, 95 %."
    yield markdown_table(heads, rows)
    rates = own_rows(tables.rates, run, arm)
    if len(rates):
        asked = rates[rates["total"] > 0]
        yield "### What is recited at the end"
        yield markdown_table(
            ["what", "whose", "recited"],
            [[TARGETS[r["target"]], ONCE[r["split"]], _count(r)] for _, r in asked.iterrows()],
        )
        yield "### Who was in the training text (membership)"
        heads = ["attack", "AUC (95 %)", "members found, one non-member in 100 wrongly accused"]
        yield markdown_table(heads, _attacks(attacks))
    else:
        yield "### Membership\n\nAttacks were rated on the models of the first replicate; see their cards."
    given_away = own_rows(tables.transferred, run, arm)
    if len(given_away) and arm.role != "teacher":
        yield "### Records that only the teacher has read\n\nAUC: how often it gained more on one of these than on an unseen one."
        rows = [
            [
                r.kind,
                r.records,
                r.controls,
                f"{r.recited:g} of {r.records}",
                between(r.auc, r.low, r.high),
                short(r.p),
            ]
            for r in given_away.itertuples()
        ]
        yield markdown_table(["kind", "records", "unseen ones", "recited", "AUC (95 %)", "p"], rows)
    yield "### At equal quality"
    yield _compared(arm, outcomes(tables.claims))
    yield "### What was not tested"
    yield "\n".join(f"- {line}" for line in _untested(run, arm, tables))


def _first(doses: pd.DataFrame, attacks: pd.DataFrame, unit: str) -> str:
    """What it recites at the end, and whether one can tell who it was trained on; of nothing found, what can't be excluded."""
    rows = doses[(doses["when"] == "end") & (doses["split"] == "member") & (doses["kind"] == "letter")]
    told = []
    for called, part in (("that are repeated", rows["copies"] > 1), ("that stand once", rows["copies"] == 1)):
        total = int(rows.loc[part, "secrets"].sum())
        if total:
            found = rate_of(int(round((rows["recited"] * rows["secrets"])[part].sum())), total)
            said = f"- It recites {found['count']} of {total} {unit} of members {called} in its training text: {rate_text(found)}."
            told.append(said if found["count"] else f"{said} Up to {100 * found['high']:.1f} % cannot be excluded.")
    areas = attacks[(attacks["measure"] == "AUC") & attacks["rate"].notna()].sort_values("rate")
    if len(areas):
        best = areas.iloc[-1]
        area = between(best["rate"], best["low"], best["high"])
        told.append(
            f"- Members are told from non-members with an AUC of {area} by the best attack, *{ATTACKS[best['attack']]}*."
        )
    return "\n".join(told or ["- No member was asked about, so nothing is known."])


def _recited(row: Any) -> list[str]:
    """Both kinds of recital of a row of `by_dose`, with counts: shares there are of `secrets`."""
    shares = [(row.recited, row.secrets), (row.from_prompt, row.secrets)]
    return ["not asked" if pd.isna(share) else _count(rate_of(round(share * n), n)) for share, n in shares]


def _count(row: Any) -> str:
    return f"{row['count']:.0f} of {row['total']:.0f}: {rate_text(row)}"


def _attacks(rows: pd.DataFrame) -> list[list[str]]:
    """A row per attack: its AUC, and how many members it finds when it may accuse one non-member in a hundred."""
    out = []
    for attack, part in rows.groupby("attack", sort=False):
        area, found = part[part["measure"] == "AUC"].iloc[0], part[part["fpr"] == 0.01].iloc[0]
        shown = [_count(found) if pd.notna(found["rate"]) else found["note"]]
        out.append([ATTACKS[attack], between(area["rate"], area["low"], area["high"]), *shown])
    return out


def _compared(arm: Arm, found: pd.DataFrame) -> str:
    """The verdicts on its method against plain fine-tuning of the same size, over the replicates of the run."""
    if arm.role in ("teacher", "baseline"):
        return "Methods are compared with plain fine-tuning of the same size; this model is not one of those compared."
    mine = found[(found["first"] == arm.method) & (found["second"] == "sft") & (found["size"] == arm.size)]
    rows = [
        [PHRASES[r.measure][0], amount(r.measure, r.estimate) if pd.notna(r.estimate) else "not measured",
         f"{amount(r.measure, r.low, False)} to {amount(r.measure, r.high, False)}" if pd.notna(r.low) else "not measured",
         r.replicates, r.verdict if r.verdict != "undecided" else f"we cannot tell: {r.because}"]
        for r in mine[mine["moment"] == "equal"].drop_duplicates("measure").itertuples()
    ]  # fmt: skip
    if not rows:
        return "This method was not compared with plain fine-tuning at equal quality."
    said = "Its method minus plain fine-tuning of the same size, under the meaning of quality with the smallest difference."
    return f"{said}\n\n" + markdown_table(["measure", "difference", "95 % interval", "replicates", "verdict"], rows)


def _untested(run: Run, arm: Arm, tables: Tables) -> list[str]:
    study, how = run.study, run.study.measure
    shadows = tables.shadow_attacks
    attacks = own_rows(tables.membership, run, arm)
    strict = attacks[(attacks["measure"] == "TPR") & (attacks["fpr"] <= 0.01)]
    told = {
        "Prompts other than a record's own: paraphrases, other languages, several turns, attempts to talk it into an answer.": True,
        "Text that the study did not ask about, such as what its base model has read before.": True,
        "Secrets apart from whole records: the data marks none.": run.require("data")["target"] != "secret",
        "Planted secrets: the study has no canaries.": not (study.data.canaries or study.data.coins),
        "Records that only a teacher has read: the study has no such half.": not study.data.halves,
        "Text that comes out nearly, not exactly.": how.approximate == 0 or bool(study.replicate),
        "A context cut from the left.": not how.left_truncated or bool(study.replicate),
        "Membership attacks by shadow models, the strongest known.": arm.method not in set(shadows["method"]),
        "A lower bound on epsilon from planted coins.": not study.data.coins,
        "Membership at 1 % false accusations or fewer: too few non-members.": len(strict) > 0 and bool(strict["rate"].isna().all()),
        "Membership attacks on this model: they were rated on the first replicate.": bool(study.replicate),
    }  # fmt: skip
    return [line for line, holds in told.items() if holds]


def own_rows(table: pd.DataFrame, run: Run, arm: Arm) -> pd.DataFrame:
    """The rows about this model; tables without a replicate are about the first."""
    mine = table[table["model"] == arm.name]
    if "replicate" in mine:
        return mine[mine["replicate"] == run.study.replicate]
    return mine if not run.study.replicate else mine.head(0)


def short(value: float) -> str:
    """Three digits; nothing where there is no number."""
    return "" if pd.isna(value) else f"{value:.3g}"
