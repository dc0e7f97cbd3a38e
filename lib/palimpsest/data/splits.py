"""Draw a study's splits: public, member, non-member, test, and the canaries with their unseen twins."""

import pandas as pd

from palimpsest.data.records import encode, read_records, template
from palimpsest.errors import InputError
from palimpsest.study.file import Study
from palimpsest.study.runs import Run

COMPARED = ("member", "non_member")
KEPT = ["id", "instruction", "context", "response", "split", "kind", "secrets", "copies", "teacher_only"]


def read_study_records(study: Study) -> pd.DataFrame:
    """All usable records of the study's source: texts present, duplicates settled, defaults filled in.

    `attrs` of the result counts what was dropped and why (`empty`, `duplicates`).

    Raises:
        InputError: as `read_records`; empty responses or duplicates where the study refuses them.
    """
    data = study.data
    records = read_records(data.source, columns=data.columns, annotations=data.annotations, revision=data.revision)
    if "response" not in records:
        raise InputError(f"{data.source} holds plain text; a study needs prompts and responses")
    empty = records["response"].str.strip() == ""
    if empty.any() and data.empty_responses == "refuse":
        raise InputError(
            f"{data.source}: {int(empty.sum())} record(s) have an empty response, first at record "
            f"{empty.idxmax() + 1}: mend them, or set data.empty_responses: drop"
        )
    records = records[~empty]
    twice = records.duplicated("id")
    if twice.any() and data.duplicates == "refuse":
        raise InputError(
            f"{data.source}: {int(twice.sum())} record(s) occur twice, first {records['id'][twice.idxmax()]}"
        )
    records = records[~twice].reset_index(drop=True)
    defaults = {"kind": "letter", "copies": 1, "teacher_only": False}
    records = records.assign(**{k: v for k, v in defaults.items() if k not in records})
    if "secrets" not in records:
        records["secrets"] = [[] for _ in range(len(records))]
    records.attrs["dropped"] = {"empty": int(empty.sum()), "duplicates": int(twice.sum())}
    return records


def fit_lengths(records: pd.DataFrame, study: Study, tokenizer, context_length: int) -> pd.DataFrame:
    """Settle records that are too long as `data.too_long` says; `attrs["dropped"]` counts them.

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
    records = records.assign(tokens=lengths, cut=over & ~over_prompt & (data.too_long == "cut"))
    for row in records.index[records["cut"]]:
        room = limit - prompts[row] - 1
        pieces = tokenizer(records["response"][row], add_special_tokens=False, return_offsets_mapping=True)
        end = pieces["offset_mapping"][room - 1][1] if room > 0 else 0
        records.loc[row, "response"] = records["response"][row][:end]
        records.at[row, "secrets"] = [s for s in records["secrets"][row] if s["end"] <= end]  # a cut secret is none
    keep = ~over_prompt & (~over | records["cut"])
    kept = records[keep & (records["response"] != "")].reset_index(drop=True)
    kept.attrs["dropped"] = {**records.attrs.get("dropped", {}), "too_long": len(records) - len(kept)}
    kept.attrs["cut"] = int(kept["cut"].sum())
    return kept


def draw_splits(records: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Draw the asked numbers of records with the study's data seed; a source's own `split` column is respected.

    Raises:
        InputError: fewer records than asked for (per split: wanted and found).
    """
    data = study.data
    wanted = {"public": data.public, "member": data.members, "non_member": data.non_members, "test": data.test}
    letters = records[records["kind"] == "letter"].sample(frac=1, random_state=data.seed)
    if "split" not in records:
        total = sum(wanted.values())
        if len(letters) < total:
            raise InputError(
                f"{data.source}: {total} records asked for ({', '.join(f'{k} {v}' for k, v in wanted.items())}), {len(letters)} "
                "usable ones found: ask for fewer, or raise the length limits"
            )
        letters = letters.assign(
            split=[name for name, count in wanted.items() for _ in range(count)] + [""] * (len(letters) - total)
        )
    parts = []
    for name, count in wanted.items():
        part = letters[letters["split"] == name].head(count)
        if len(part) < count:
            raise InputError(
                f"{data.source}: {count} {name} records asked for, {len(part)} found: ask for fewer in the study's data"
            )
        parts.append(part)
    if data.canaries:
        parts.append(records[records["kind"] != "letter"])
    drawn = pd.concat(parts, ignore_index=True)
    drawn["copies"] = drawn["copies"].where(drawn["split"] == "member", 0).astype(int)
    drawn.attrs = records.attrs
    return drawn[[c for c in KEPT if c in drawn]]


def load_records(run: Run) -> pd.DataFrame:
    """The prepared records of all splits."""
    run.require("data")
    records = pd.read_parquet(run.data / "records.parquet")
    return records.assign(secrets=[list(s) for s in records["secrets"]])


def select(records: pd.DataFrame) -> pd.DataFrame:
    """Members and non-members, canaries left out: their form would give them away."""
    return records[(records["kind"] == "letter") & records["split"].isin(COMPARED)].reset_index(drop=True)
