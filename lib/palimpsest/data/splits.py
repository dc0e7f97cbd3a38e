"""Draw a study's splits: public, both halves of the members, non-members, validation, test; canaries and their unseen twins."""

from hashlib import sha256
from random import Random

import numpy as np
import pandas as pd

from palimpsest.data.encoding import encode
from palimpsest.data.records import read_records, template
from palimpsest.errors import InputError
from palimpsest.study.file import Study
from palimpsest.study.runs import Run

COMPARED = ("member", "non_member")
KEPT = ["id", "messages", "instruction", "context", "response", "split", "kind", "secrets", "copies", "coin"]


def read_study_records(study: Study) -> pd.DataFrame:
    """All usable records of the study's source: texts present, duplicates settled, defaults filled in.

    `attrs` of the result counts what was dropped and why (`empty`, `duplicates`).

    Raises:
        InputError: as `read_records`; duplicates where the study refuses them; conversations where it has no `template: chat`.
    """
    data = study.data
    records = read_records(
        data.source,
        columns=data.columns,
        annotations=data.annotations,
        empty="skip" if data.empty_responses == "drop" else "refuse",
        chat=data.template == "chat",
        revision=data.revision,
    )
    if "response" not in records:
        raise InputError(f"{data.source} holds plain text; a study needs prompts and responses")
    if "messages" in records and data.template != "chat":
        raise InputError(f"{data.source} holds conversations: set data.template: chat, or map other columns")
    twice = records.duplicated("id")
    if twice.any() and data.duplicates == "refuse":
        raise InputError(
            f"{data.source}: {int(twice.sum())} record(s) occur twice, first {records['id'][twice.idxmax()]}"
        )
    records = records[~twice].reset_index(drop=True)
    defaults = {"kind": "letter", "split": "private", "secrets": [[] for _ in range(len(records))]}
    records = records.assign(**{k: v for k, v in defaults.items() if k not in records})
    records.attrs["dropped"] = {"empty": records.attrs["empty"], "duplicates": int(twice.sum())}
    return records


def fit_lengths(records: pd.DataFrame, study: Study, tokenizer, context_length: int) -> pd.DataFrame:
    """Settle records that are too long as `data.too_long` says, and leave out letters whose response has fewer tokens of text than
    `data.min_response_tokens`; `attrs["dropped"]` counts both.

    Raises:
        InputError: a record exceeds the limits and the study refuses such records.
    """
    data, limit = study.data, min(study.data.max_tokens or context_length, context_length)
    examples = encode(records, tokenizer, template(data.template))
    lengths = pd.Series([len(e.input_ids) for e in examples], index=records.index)
    prompts = pd.Series([e.prompt_length for e in examples], index=records.index)
    prompt_limit = min(data.max_prompt_tokens or limit - 1, limit - 1)  # room for one response token at least
    over_prompt, over = prompts > prompt_limit, lengths > limit
    if (over_prompt | over).any() and data.too_long == "refuse":
        worst = lengths.idxmax()
        raise InputError(
            f"{int((over_prompt | over).sum())} of {len(records)} records do not fit (prompt up to {prompt_limit} tokens, whole "
            f"up to {limit}); the longest, {records['id'][worst]}, has {lengths[worst]} with a prompt of {prompts[worst]}: set "
            "data.too_long to drop or cut, or use a model with a longer context"
        )
    records = records.assign(cut=over & ~over_prompt & (data.too_long == "cut"))
    for row in records.index[records["cut"]]:
        room = limit - prompts[row] - examples[records.index.get_loc(row)].closing
        pieces = tokenizer(records["response"][row], add_special_tokens=False, return_offsets_mapping=True)
        end = pieces["offset_mapping"][room - 1][1] if room > 0 else 0
        records.loc[row, "response"] = records["response"][row][:end]
        records.at[row, "secrets"] = [s for s in records["secrets"][row] if s["end"] <= end]  # a cut secret is none
    keep = ~over_prompt & (~over | records["cut"]) & (records["response"] != "")
    answers = np.minimum(lengths, limit) - prompts - [e.closing for e in examples]
    short = keep & (records["kind"] == "letter") & (answers < (data.min_response_tokens or 0))
    kept = records[keep & ~short].reset_index(drop=True)
    kept.attrs["dropped"] = {
        **records.attrs.get("dropped", {}),
        "too_long": int((~keep).sum()),
        "short": int(short.sum()),
    }
    kept.attrs["cut"] = int(kept["cut"].sum())
    return kept


def draw_splits(records: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Draw the splits of the study's replicate, and how often each record stands in the training text.

    Records that the source itself has put in a split stay there, with its own `copies` if it has them; the others (`private`) are
    dealt out in one order, shuffled with the data seed. Every replicate is dealt the next ones, so that no two share a record as
    far as the source reaches; where it doesn't, each shuffles them all anew (`attrs["disjoint"]` is False). Public text that the
    source names is not private and doesn't count there.

    Returns:
        The columns `KEPT`, one row per record; `copies` is 0 outside the training text, and `coin` marks canaries and twins that
        the toss of a fair coin told apart.

    Raises:
        InputError: fewer records than asked for (per split: wanted and found); a source that calls a record trained on and
            unseen.
    """
    data, counted = study.data, "copies" in records
    records = records.assign(coin=False, **({} if counted else {"copies": 1}))
    halves = ("member", "teacher_only") if data.halves else ("member",)
    letters, codes = records[records["kind"] == "letter"], records[records["kind"] != "letter"]
    doses = [copies for copies, count in sorted(data.doses.items()) for _ in range(count)]
    # Public comes first: a tokenizer is trained on it before long records are dropped, and none of it may move to the members.
    asked = {"public": [0] * data.public, **dict.fromkeys(halves, doses), "non_member": [0] * data.non_members}
    asked |= {"validation": [0] * data.validation, "test": [0] * data.test}
    own = [name for name in asked if (letters["split"] == name).any()]
    private, free = letters[letters["split"] == "private"], [name for name in asked if name not in own]
    pools = [(private, free)]
    if data.limit:
        within = [name for name in free if name in (*halves, "non_member")]
        after = [name for name in free if name not in within]
        rest = sum(len(asked[name]) for name in after)
        pools = [(private.head(data.limit), within), (private.iloc[data.limit : data.limit + rest], after)]
    pools += [(letters[letters["split"] == name], [name]) for name in own]
    parts, disjoint = [], True
    for pool, names in pools:
        splits = [name for name in names for _ in asked[name]]
        part, apart = _deal(pool, splits, study, "records")
        if not (counted and set(names) <= set(own)):
            part = part.assign(copies=[copies for name in names for copies in asked[name]])
        parts.append(part)
        disjoint &= apart or names == ["public"]
    given, planted, apart = _plant(codes, halves, study)
    drawn = pd.concat([part for part in (*parts, given, planted) if len(part)], ignore_index=True)
    _refuse_contradictions(drawn[drawn["split"].isin(halves)], data.source)
    drawn.loc[drawn["split"] == "twin", "kind"] = "twin"
    drawn["copies"] = drawn["copies"].where(drawn["split"].isin(halves), 0).astype(int)
    drawn.attrs = {**records.attrs, "disjoint": disjoint and apart and (given.empty or study.replicates == 1)}
    return drawn[[name for name in KEPT if name in drawn]]


def _plant(codes: pd.DataFrame, halves: tuple[str, ...], study: Study) -> tuple[pd.DataFrame, pd.DataFrame, bool]:
    """Canaries and twins that the source has placed, those dealt here, and whether no other replicate has any of the latter."""
    data, toss = study.data, Random(f"{study.data.seed} {study.replicate}")
    unread = (codes["kind"] == "twin") & (codes["split"] == "private")
    codes = codes.assign(split=codes["split"].mask(unread, "twin"))
    plan = [(half, copies, False) for half in halves for copies, count in data.canaries.items() for _ in range(count)]
    plan += [("member", 1, True) if toss.random() < 0.5 else ("twin", 0, True) for _ in range(data.coins)]
    plan += [("twin", 0, False)] * data.twins
    dealt, apart = _deal(codes[codes["split"] == "private"], [split for split, _, _ in plan], study, "canaries")
    dealt = dealt.assign(copies=[copies for _, copies, _ in plan], coin=[coin for _, _, coin in plan])
    return codes[codes["split"].isin([*halves, "twin"])], dealt, apart


def _deal(pool: pd.DataFrame, splits: list[str], study: Study, what: str) -> tuple[pd.DataFrame, bool]:
    """This replicate's records, one for each of `splits`, and whether no other replicate has any of them."""
    data, size = study.data, len(splits)
    if len(pool) < size:
        counts = ", ".join(f"{name} {splits.count(name)}" for name in dict.fromkeys(splits))
        raise InputError(
            f"{data.source}: {size} {what} asked for ({counts}), {len(pool)} usable ones found: ask for fewer, or raise the "
            "length limits"
        )
    apart = len(pool) >= size * max(study.replicates, study.replicate + 1)
    seed, first = f"{data.seed} {0 if apart else study.replicate}", size * study.replicate if apart else 0
    # Sorted by a hash, not by a generator's numbers: records left out elsewhere don't change the order of the others.
    order = pool["id"].map(lambda name: sha256(f"{seed} {name}".encode()).hexdigest()).sort_values().index
    return pool.loc[order[first : first + size]].assign(split=splits), apart


def _refuse_contradictions(trained: pd.DataFrame, source: str) -> None:
    """Raise `InputError` if the source has put a record in the training text that stands there no time, or is a twin."""
    for wrong, what in (
        (trained["copies"] == 0, "copies 0"),
        (trained["kind"] == "twin", "kind twin, which no model reads"),
    ):
        if wrong.any():
            first = trained.loc[wrong.idxmax()]
            raise InputError(
                f"{source}: {int(wrong.sum())} record(s) in the training text have {what}, first {first['id']} (split "
                f"{first['split']}): correct split, kind or copies in the source, or leave one of them out of data.annotations"
            )


def load_records(run: Run) -> pd.DataFrame:
    """The prepared records of all splits."""
    run.require("data")
    records = pd.read_parquet(run.data / "records.parquet")
    return records.assign(secrets=[list(s) for s in records["secrets"]])


def select(records: pd.DataFrame) -> pd.DataFrame:
    """Members and non-members, canaries left out: their form would give them away."""
    return records[(records["kind"] == "letter") & records["split"].isin(COMPARED)].reset_index(drop=True)
