"""What is measured of a model while it is trained, at every point of its trajectory: quality in three ways, and what it knows of
the records, by half and by copies in the training text.

One scoring pass over all watched records, one over the validation records under several temperatures, and greedy text for a fixed set
of validation prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from palimpsest.data.examples import Example
from palimpsest.measure import canaries, extraction, membership_inference
from palimpsest.measure.quality import generate_and_compare
from palimpsest.measure.score_file import flatten, reduce_records
from palimpsest.measure.scoring import score
from palimpsest.measure.statistics import auc

TEMPERATURES = tuple(np.geomspace(0.4, 2.5, 9).round(4))  # between which the loss is smooth enough for a parabola
ENOUGH = 20  # validation records that one temperature can be fitted on
HALVES = {"member": "", "teacher_only": "transferred_"}  # split -> prefix of its columns


@dataclass(frozen=True)
class Watched:
    """The records that are looked at while a model is trained.

    Attributes:
        records: `id, split, kind, secrets, copies, response`: members of both halves, non-members, validation, canaries and twins.
        examples: the same, tokenized, in the same order.
        window: response tokens of the headline reading.
        prompts: how many of the validation prompts are decoded.
    """

    records: pd.DataFrame
    examples: Sequence[Example]
    tokenizer: object
    window: int
    prompts: int


def take_point(model, watched: Watched) -> tuple[dict[str, float], pd.DataFrame]:
    """Measure a model on the watched records.

    Returns:
        tuple[dict[str, float], pd.DataFrame]: A row of numbers (columns of the table `trajectory`): `validation_loss` (nats per
        response token; non-members where no validation records were drawn), the `temperature` fitted there and the
        `validation_loss_calibrated` under it, `rouge_l` of greedy text; and for the half the students read and, `transferred_`,
        for the one only the teacher read: `member_loss`, `recited_unrepeated` and `recited_repeated` (share of secrets, or of
        records where none are marked, that are decoded greedily from the true text before them), the same `from_prompt_...` (from
        the prompt alone), `auc` (loss attack against the non-members), `exposure` (mean over canaries, bits) and
        `canaries_recited`. NaN where there is nothing to count.

        And the same by group: `split, kind, copies, records, loss, secrets, recited, from_prompt, exposure`, a row for each.
    """
    records, held_out = watched.records, "validation"
    if not (records["split"] == held_out).any():
        held_out = "non_member"
    asked = (records["split"] == held_out).to_numpy()
    examples = [e for e, is_asked in zip(watched.examples, asked, strict=True) if is_asked]
    row = validation_point(model, watched.tokenizer, examples, records[asked], watched.prompts)
    rest = [e for e, is_asked in zip(watched.examples, asked, strict=True) if not is_asked or held_out == "non_member"]
    scores = score(model, rest)
    each = _each(scores, rest, records, watched.window)
    others = each[each["split"] == "non_member"]
    signal = pd.Series(membership_inference.loss(scores), index=scores["id"].to_numpy())
    for split, prefix in HALVES.items():
        half = each[each["split"] == split]
        letters, planted = half[half["kind"] == "letter"], half[half["kind"] == "canary"]
        row[f"{prefix}member_loss"] = _loss(letters)
        for name, part in (("unrepeated", letters["copies"] == 1), ("repeated", letters["copies"] > 1)):
            for verdict in ("recited", "from_prompt"):
                row[f"{prefix}{verdict}_{name}"] = _share(letters[part], verdict)
        known, unknown = (signal.loc[part["id"]].dropna() for part in (letters, others))
        row[f"{prefix}auc"] = auc(known, unknown)["rate"] if min(len(known), len(unknown)) > 1 else np.nan
        row[f"{prefix}exposure"] = planted["exposure"].mean()
        row[f"{prefix}canaries_recited"] = _share(planted, "recited")
    return row, _groups(each[each["kind"] != "twin"])


def validation_point(
    model, tokenizer, examples: Sequence[Example], records: pd.DataFrame, prompts: int
) -> dict[str, float]:
    """The quality part of `take_point`, on the validation records alone: what stopping and tuning may look at.

    Args:
        records: with `response`, in the order of `examples`.
    """
    ways = {f"at_{i}": {"temperature": t} for i, t in enumerate(TEMPERATURES)}
    scores = score(model, examples, sampling=ways)
    losses = np.array([-flatten(scores, f"logprob_{name}")[0].mean() for name in ways])
    plain = -float(flatten(scores, "logprob")[0].mean())
    temperature, loss = fit_temperature(losses) if len(examples) >= ENOUGH else (np.nan, np.nan)
    row = {"validation_loss": plain, "temperature": temperature, "validation_loss_calibrated": min(loss, plain)}
    if prompts:
        text, _ = generate_and_compare(model, tokenizer, examples[:prompts], list(records["response"].head(prompts)))
    return row | {"rouge_l": float(text["rougeL"].mean()) if prompts else np.nan}


def fit_temperature(losses: Sequence[float]) -> tuple[float, float]:
    """The temperature of the least loss, and that loss, from the losses at `TEMPERATURES`: a parabola in the logarithm of the
    temperature through the least one and its neighbours (Guo et al. 2017, arXiv 1706.04599, fit the same number)."""
    x, y = np.log(TEMPERATURES), np.asarray(losses, dtype=float)
    i = int(np.clip(y.argmin(), 1, len(y) - 2))
    a, b, c = np.polyfit(x[i - 1 : i + 2], y[i - 1 : i + 2], 2)
    best = float(np.clip(-b / (2 * a), x[i - 1], x[i + 1])) if a > 0 else float(x[y.argmin()])
    return float(np.exp(best)), float(min(a * best**2 + b * best + c, y.min()))


def _each(scores: pd.DataFrame, examples, records: pd.DataFrame, window: int) -> pd.DataFrame:
    """A row per record: who it is, `tokens`, `logprob` (summed), `secrets`, how many are `recited` and `from_prompt`, `exposure`."""
    who = records.set_index("id").loc[scores["id"], ["split", "kind", "copies"]].reset_index(names="id")
    found = extraction.secrets(scores, examples)
    counts = found.groupby("id")[["recited", "from_prompt"]].sum().reindex(who["id"]).fillna(0)
    who = who.assign(secrets=found.groupby("id").size().reindex(who["id"]).fillna(0).to_numpy())
    who = who.assign(**{name: counts[name].to_numpy() for name in counts})
    plain = who["kind"] == "letter"
    if not who.loc[plain, "secrets"].any():  # none are marked: a record is the unit, and is recited from its prompt
        verdict = extraction.verbatim(scores, 0, window).fillna(False).to_numpy(float)
        for name, values in (("secrets", 1.0), ("recited", verdict), ("from_prompt", verdict)):
            who[name] = who[name].astype(float).mask(plain, values)
    logprob, starts = flatten(scores, "logprob")
    sums = reduce_records(np.add, logprob.astype(float), starts)
    who = who.assign(tokens=np.diff(starts), logprob=sums, exposure=np.nan)
    planted = records[records["kind"].isin(["canary", "twin"])]
    if (planted["kind"] == "canary").any():
        bits = canaries.exposure(scores, planted, examples).set_index("id")["exposure"]
        who["exposure"] = who["id"].map(bits)
    return who


def _groups(each: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (split, kind, copies), part in each.groupby(["split", "kind", "copies"], sort=True):
        verdicts = {name: _share(part, name) for name in ("recited", "from_prompt")}
        row = {"split": split, "kind": kind, "copies": copies, "records": len(part), "loss": _loss(part)}
        rows.append(row | {"secrets": int(part["secrets"].sum()), **verdicts, "exposure": part["exposure"].mean()})
    return pd.DataFrame(rows)


def _loss(part: pd.DataFrame) -> float:
    tokens = part["tokens"].sum()
    return -part["logprob"].sum() / tokens if tokens else np.nan


def _share(part: pd.DataFrame, name: str) -> float:
    total = part["secrets"].sum()
    return part[name].sum() / total if total else np.nan
