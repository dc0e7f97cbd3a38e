"""Chapter 06, the strongest attacks: a model attacked with others trained alike, and what planted records prove of privacy.

`tables` reads the score tables of all parts of a run; the rest takes the frames it made.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from palimpsest.chapters import figures
from palimpsest.chapters.figures import COLORS, LABELS, auc_text, least_to_most, rate_text
from palimpsest.data.records import training_rows
from palimpsest.data.splits import load_records
from palimpsest.errors import InputError
from palimpsest.measure import canaries, membership_inference
from palimpsest.measure.privacy_audit import one_run_audit
from palimpsest.measure.read_back import examples_of, load_scores, tokenizer_of
from palimpsest.measure.shadow_attacks import FEWEST_POPULATION, MODELS_WANTED, lira, rmia, shadow_rates
from palimpsest.study import Arm, Run
from palimpsest.study.tables import TABLES

SHOWN = {"lira": "LiRA", "rmia": "RMIA", "loss": "loss", "reference": "reference ratio"}
ASKED = {"member": "records the student read", "teacher_only": "records the teacher alone read"}
NO_SHADOWS = "This study trains no shadow models, so their attacks can't be made."
NO_COINS = "In this study no coin decided who is trained on a canary, so nothing is proven about privacy."
OUTSIDE = ("non_member", "test")


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """`shadow_attacks` and `privacy_audit`, as `study.tables` declares them; without rows where a study has no shadow models, or
    no canary that a coin decided about."""
    return {"shadow_attacks": _shadow_attacks(run), "privacy_audit": _privacy_audit(run)}


# ---------------------------------------------------------------- shadow models


def _shadow_attacks(run: Run) -> pd.DataFrame:
    """Per method and split, each attack on the same targets: the shadow models themselves, each attacked with the others.

    A model's signal of a record is the mean log-probability of the response minus that of the model's own base: every shadow has
    a base, and perhaps a tokenizer, of its own, and what that finds of a record says nothing about membership.
    """
    parts = [part for name, part in run.parts().items() if name.startswith("shadow")]
    if not parts:
        return pd.DataFrame()
    methods, size = run.study.shadows.methods, run.study.shadows.size
    drawn = pd.DataFrame({i: load_records(part).set_index("id")["split"] for i, part in enumerate(parts)}).T
    drawn = drawn.loc[:, drawn.isin([*ASKED, *OUTSIDE]).any()]
    never = drawn.isin(OUTSIDE).all()  # of every model: what RMIA compares with
    rows = []
    for method in methods:
        known = [_signals(part, Arm(size, method, part.study.seeds[0]), size) for part in parts]
        loss, gain = (pd.DataFrame([pair[which] for pair in known], index=drawn.index) for which in (0, 1))
        for split in ASKED:
            asked = drawn.loc[:, ~never & (drawn == split).any()]
            if asked.shape[1]:
                other = asked.isin(set(ASKED) - {split})  # a third role, neither inside nor outside
                sides = (part.reindex(columns=asked.columns).mask(other) for part in (loss, gain))
                population = gain.reindex(columns=drawn.columns[never]).to_numpy()
                found = _attacked(*(side.to_numpy(float) for side in sides), (asked == split).to_numpy(), population)
                rows += [part.assign(method=method, attack=attack, split=split) for attack, part in found.items()]
    return pd.concat(rows, ignore_index=True)[TABLES["shadow_attacks"]]


def _signals(part: Run, arm: Arm, size: str) -> tuple[pd.Series, pd.Series]:
    """Mean log-probability of every record's response, by id, and the same minus the base's."""
    own, base = (load_scores(part, name) for name in (arm.name, f"base-{size}"))
    loss, before = (pd.Series(membership_inference.loss(s), index=s["id"].to_numpy()) for s in (own, base))
    return loss, loss - before.reindex(loss.index)


def _attacked(
    loss: np.ndarray, gain: np.ndarray, inside: np.ndarray, population: np.ndarray
) -> dict[str, pd.DataFrame]:
    """Rates of each attack, all on the records that LiRA gives a score for a target; a row that says why of one that can't be made."""
    try:
        scores = {"lira": lira(gain, inside)}
    except InputError:
        return {"lira": _refused("no record that two other models read and two did not", inside)}
    refused, population = {}, population[:, np.isfinite(population).all(0)]
    if population.shape[1] < FEWEST_POPULATION:
        why = f"{population.shape[1]} records that no model read, {FEWEST_POPULATION} needed"
        refused["rmia"] = _refused(why, inside)
    else:
        scores["rmia"] = rmia(gain, inside, population)
    scores |= {"loss": loss, "reference": gain}
    common = np.where(np.isnan(scores["lira"]), np.nan, 0.0)
    return {name: shadow_rates(values + common, inside) for name, values in scores.items()} | refused


def _refused(why: str, inside: np.ndarray) -> pd.DataFrame:
    row = {**dict.fromkeys(("fpr", "rate", "low", "high"), np.nan), "measure": "AUC", "models": len(inside)}
    counts = {"members": int(inside.sum(1).min()), "non_members": int((~inside).sum(1).min())}
    return pd.DataFrame([{**row, **counts, "note": f"not measurable: {why}"}])


def show_shadow_attacks(shadow_attacks: pd.DataFrame) -> pd.DataFrame | None:
    """A row per half, method and attack: the AUC, and the members found at each false positive rate; None without shadow models."""
    rows = shadow_attacks.assign(split=shadow_attacks["split"].map(ASKED))
    if rows.empty:
        return None
    at = ["AUC" if np.isnan(fpr) else f"found at {100 * fpr:g} % false positives" for fpr in rows["fpr"]]
    texts = [auc_text(row) if row["measure"] == "AUC" else rate_text(row) for _, row in rows.iterrows()]
    who = rows["method"].map(LABELS) + ": " + rows["split"]
    shown = rows.assign(at=at, attack=rows["attack"].map(SHOWN), students=who)
    return figures.spread_out(shown, texts, ["students", "attack"], "at")


def plot_shadow_attacks(shadow_attacks: pd.DataFrame) -> plt.Figure | None:
    """AUC of every attack, a panel per half, a mark per method, with 95 % intervals; None without shadow models."""
    rows = shadow_attacks[(shadow_attacks["measure"] == "AUC") & shadow_attacks["rate"].notna()]
    if rows.empty:
        return None
    splits, attacks, methods = rows["split"].unique(), list(SHOWN), list(rows["method"].unique())
    figure, axes = figures.panels(1, len(splits), height=2.2, sharex=True)
    for ax, split in zip(axes[0], splits, strict=True):
        for row in rows[rows["split"] == split].itertuples():
            y = attacks.index(row.attack) + 0.6 * ((methods.index(row.method) + 0.5) / len(methods) - 0.5)
            style = {"color": COLORS[row.method], "label": LABELS[row.method], **figures.mark_of(split)}
            figures.dots(ax, row.rate, row.low, row.high, y, **style)
        ax.axvline(0.5, color="#999999", lw=1, ls="--")
        ax.set(title=ASKED[split], xlabel="AUC", yticks=range(len(attacks)), yticklabels=list(SHOWN.values()))
    axes[0, 0].invert_yaxis()
    return figures.legend(figure, axes)


def say_shadow_attacks(shadow_attacks: pd.DataFrame) -> list[str]:
    """Per method and half, LiRA beside the plain loss attack, and what it finds with 1 false alarm in 100; then what lacks."""
    if shadow_attacks.empty:
        return [f"- {NO_SHADOWS}"]
    lines, known = [], shadow_attacks[shadow_attacks["rate"].notna()]
    for (method, split), rows in known.groupby(["method", "split"], sort=False):
        areas = rows[rows["measure"] == "AUC"].set_index("attack")
        if "lira" in areas.index:
            line = f"- **{LABELS[method]}**, {ASKED[split]}: LiRA has an AUC of {auc_text(areas.loc['lira'])}"
            line += f", the loss alone {auc_text(areas.loc['loss'])}."
            for _, row in rows[(rows["attack"] == "lira") & (rows["fpr"] == 0.01)].iterrows():
                line += f" Accusing 1 outsider in 100 wrongly, it finds {rate_text(row)}."
            lines.append(line)
    return lines + [f"- {line}" for line in _missing(shadow_attacks)]


def _missing(shadow_attacks: pd.DataFrame) -> list[str]:
    """What could not be measured, once each."""
    lines = []
    for attack, rows in shadow_attacks[shadow_attacks["measure"] == "AUC"].groupby("attack", sort=False):
        if rows["rate"].isna().any():
            lines.append(f"{SHOWN[attack]} is {rows.loc[rows['rate'].isna(), 'note'].iloc[0].rstrip('.')}.")
    rates = shadow_attacks[shadow_attacks["measure"] == "TPR"]
    for fpr, rows in rates.groupby("fpr", sort=True):
        if rows["rate"].isna().all():
            lines.append(
                f"For 1 in {1 / fpr:,.0f} we would need {1 / fpr:,.0f} non-members; a model has {rows['non_members'].max()}."
            )
    if (count := shadow_attacks["models"].max()) < MODELS_WANTED:
        lines.append(f"With {count} models these are rough: figures to publish want {MODELS_WANTED}.")
    return lines


# ---------------------------------------------------------------- what planted records prove of privacy


def _privacy_audit(run: Run) -> pd.DataFrame:
    """Per fine-tuned model and replicate, the lower bound on epsilon that its coin canaries prove.

    A canary's score is the log-probability of its secret minus the base's: no model looks at another's coins, so the bound of each
    stands by itself. delta is that of DP-SGD in the same replicate, else 1 / (10 x records trained on): from 1 / records on,
    publishing one record drawn at random would count as private.
    """
    rows = []
    for part in run.replicates():
        records = load_records(part)
        tossed = records[records["coin"]]
        if tossed.empty:
            continue
        examples, arms = examples_of(part.study, tossed, tokenizer_of(part)), part.measured()
        promises = {arm: promise for arm in arms if (promise := part.facts(arm).get("privacy"))}
        trained = training_rows(records, "student")["id"].nunique()
        common = min((promise["delta"] for promise in promises.values()), default=0.1 / trained)
        before: dict[str, pd.Series] = {}
        for arm in arms:
            scores = load_scores(part, arm.name)
            scores = scores[scores["id"].isin(tossed["id"])].reset_index(drop=True)
            known = canaries.secret_logprob(scores, examples).set_index("id")["logprob"]
            if arm.role == "base":
                before[arm.size] = known
                continue
            promised = promises.get(arm, {})
            delta = promised.get("delta", common)
            included = known.index.map(tossed.set_index("id")["split"] == "member").to_numpy(bool)
            row = {**arm.columns(), "replicate": part.study.replicate, "coins": len(known), "delta": delta}
            row["epsilon_promised"] = promised.get("epsilon", np.nan)
            try:
                found = one_run_audit((known - before[arm.size]).to_numpy(), included, delta)
            except InputError:  # a delta so large that no bound follows
                found = {"guesses": pd.NA, "correct": pd.NA, "epsilon": np.nan}
            row |= {"epsilon_low": found["epsilon"], "guesses": found["guesses"], "correct": found["correct"]}
            rows.append(row)
    return pd.DataFrame(rows)


def show_privacy_audit(privacy_audit: pd.DataFrame) -> pd.DataFrame | None:
    """A row per model, over trainings the range; None without coins."""
    if privacy_audit.empty:
        return None
    out = {}
    for label, rows in figures.label_seeds(privacy_audit).groupby("label", sort=False):
        counts = {"coins": "coins", "guesses": "guesses", "right": "correct"}
        shown = {name: least_to_most(rows[column], ".0f") for name, column in counts.items()}
        shown["ε at least"] = least_to_most(rows["epsilon_low"], ".2f") or "not measurable"
        out[label] = {**shown, "ε promised": least_to_most(rows["epsilon_promised"], ".2f")}
    return pd.DataFrame(out).T.rename_axis("model")


def say_privacy_audit(privacy_audit: pd.DataFrame) -> list[str]:
    """Of how many models something is proven, of which one most, and every promise beside its proof; over replicates, the range."""
    if privacy_audit.empty:
        return [f"- {NO_COINS}"]
    known = privacy_audit[privacy_audit["epsilon_low"].notna()]
    by = known.groupby("label", sort=False)["epsilon_low"].agg(["min", "mean", "max", "size"]).sort_values("mean")
    if by.empty:
        return ["- Not measurable: with so many coins among so few records, no bound on ε follows."]
    some = by[by["max"] > 0]
    lines = [f"- Something is proven of {len(some)} of {len(by)} models."]
    if len(some):
        lines[0] += f" Most of {some.index[-1]}: ε is at least {_range(some.iloc[-1])}."
    for label, part in known[known["epsilon_promised"].notna()].groupby("label", sort=False):
        over = int((part["epsilon_low"] > part["epsilon_promised"]).sum())
        proven = f"proven is at least {_range(by.loc[label])}" if by.loc[label, "max"] else "nothing is proven"
        line = f"- {label} promises an ε of at most {part['epsilon_promised'].max():.1f}; {proven}."
        lines.append(line + (f" In {over} of {len(part)} trainings that is more than promised." if over else ""))
    return lines


def _range(row: pd.Series) -> str:
    return least_to_most(row[["min", "max"]], ".1f") + (
        f" over {row['size']:.0f} trainings" if row["size"] > 1 else ""
    )
