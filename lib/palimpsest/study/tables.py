"""The tables of a run: every column of every CSV is declared here once, with its type and meaning.

`write_table` checks what it is given against the declaration, `load_tables` reads it back with these types, and the book's
glossary prints it. A column has one meaning in whatever table it stands.
"""

from pathlib import Path

import pandas as pd

from palimpsest.errors import InputError
from palimpsest.study.columns import COLUMNS, KNOWN
from palimpsest.study.files import whole
from palimpsest.study.runs import Run

_MODEL, _GROUP = "model label size method role seed", "size method role"
_RATE = "rate count total low high"
_QUALITY = "validation_loss temperature validation_loss_calibrated rouge_l"
_TRANSFERRED = " ".join(f"transferred_{name}" for name in KNOWN.split())
# Table -> its columns, in their order. Chapter by chapter.
TABLES: dict[str, list[str]] = {
    name: columns.split()
    for name, columns in {
        # the data
        "splits": "split kind records prompt_characters response_characters secrets_per_record training_rows",
        "secret_kinds": "secret_kind split secrets characters",
        "overlap": "split prompts responses runs_1 runs_3 runs_5 runs_8",
        "planted": "read_by copies coin records",
        "lengths": "split prompt response",
        # while a model is trained
        "trajectory": f"epoch step tokens precision {_QUALITY} {KNOWN} {_TRANSFERRED}",
        "groups": "epoch step tokens split kind copies records loss secrets recited from_prompt exposure",
        # how much is memorized
        "rates": f"{_MODEL} split target {_RATE}",
        "excess": "label target split rate low high",
        "by_prefix": f"{_MODEL} split k {_RATE}",
        "context": f"{_GROUP} split design k {_RATE}",
        "discoverable": f"{_GROUP} split sampling n {_RATE}",
        "near_misses": f"{_GROUP} split {_RATE} near_only rouge_l rouge_l_low rouge_l_high edit_similarity "
        "edit_similarity_low edit_similarity_high",
        "near_ties": f"label dtype {_RATE}",
        "strips": f"{_MODEL} id split copies place token probability guess margin hit secret",
        "at_risk": "id split copies text asked teacher baseline students samples",
        "quality": f"{_MODEL} test_loss records rouge1 rouge2 rougeL rouge1_error rouge2_error rougeL_error",
        # what a student inherits
        "origins": f"size method split set seeds {_RATE}",
        "origins_by_seed": f"size method seed split set {_RATE}",
        "paired": "size method against student other difference low high ratio ratio_low ratio_high p_lowest p_highest "
        "seeds total",
        "transferred": f"{_MODEL} replicate kind records controls recited auc low high p",
        "predictions": f"size method seed records auc auc_low auc_high note removed removed_share {_RATE} "
        "weight_zlib_bytes weight_teacher_loss weight_baseline_loss weight_divergence",
        "savings": "size method seed share_left_out share_avoided",
        "published_claims": "claim theirs size method ours low high outcome",
        # attacks
        "blind": "auc low high members non_members warning",
        "membership": f"{_MODEL} attack measure fpr {_RATE} members non_members left_out note",
        "roc": f"{_MODEL} attack fpr tpr",
        "exposure": f"{_MODEL} id copies teacher_only logprob rank twins exposure recited",
        "doses": f"{_GROUP} teacher_only copies canaries exposure exposure_low exposure_high chance ceiling {_RATE}",
        # what memorization buys
        "trajectories": f"{_MODEL} replicate epoch step tokens {_QUALITY} {KNOWN} {_TRANSFERRED}",
        "stopped": f"{_MODEL} replicate epoch step tokens {_QUALITY} {KNOWN} {_TRANSFERRED}",
        "by_dose": f"{_MODEL} replicate when epoch split kind copies records loss secrets recited from_prompt exposure",
        "costs": f"{_MODEL} parameters bytes training_flops seconds peak_memory_bytes decode_tokens_per_second",
        # comparisons of methods, over replicates
        "claims": "family claim size first second measure quality replicates estimate low high null_largest p_holm verdict because",
        "distances": "family claim size first second measure quality distance replicates estimate low high",
        "tuning": f"size method learning_rate epoch {_QUALITY} chosen",
        # what cutting a model takes away, and healing gives back
        "healing": "size replicate state layers parameters test_loss records rougeL rougeL_error",
        # what a student was never given, and what many students trained alike tell of one
        "other_names": f"{_MODEL} replicate split copies given canaries twins exposure exposure_low exposure_high auc recited",
        "shadow_attacks": "method attack split measure fpr rate low high models members non_members note",
        "privacy_audit": f"{_MODEL} replicate coins guesses correct epsilon_low epsilon_promised delta",
    }.items()
}
_TYPES = {"str": "string", "float": "float64", "int": "Int64", "bool": "boolean"}


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """A declared table as CSV, whole or not at all; numbers keep six significant digits.

    Args:
        table: the columns declared for `path.stem`, in any order; a table without rows needs none.

    Raises:
        ValueError: columns other than the declared ones, or values that are not of their type.
    """
    declared = TABLES[path.stem]
    table = table.reindex(columns=declared) if table.empty else table
    if odd := set(table.columns) ^ set(declared):
        raise ValueError(f"{path.name}: the columns {', '.join(sorted(odd))} are missing or not declared in `TABLES`")
    typed = table[declared].astype({name: _TYPES[COLUMNS[name][0]] for name in declared})
    with whole(path) as draft:
        typed.to_csv(draft, index=False, float_format="%.6g", lineterminator="\n")
    return path


def read_table(path: Path) -> pd.DataFrame:
    """A table that `write_table` wrote, with plain NumPy types; an empty text is "", a missing number NaN.

    Raises:
        InputError: it is not there, or has other columns than declared.
    """
    kinds = {name: COLUMNS[name][0] for name in TABLES[path.stem]}
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values={n: [""] for n, k in kinds.items() if k != "str"})
    except FileNotFoundError:
        raise InputError(
            f"{path} is not there: run the tables stage first, or the whole study with make book"
        ) from None
    if odd := set(table.columns) ^ set(kinds):
        raise InputError(
            f"{path}: the columns {', '.join(sorted(odd))} are missing or unknown; write the tables again"
        )
    texts = {name: str for name, kind in kinds.items() if kind == "str"}
    numbers = {name: float for name, kind in kinds.items() if kind == "float"}
    flags = {name: bool for name, kind in kinds.items() if kind == "bool"}
    return table.astype({**texts, **numbers, **flags})


class Tables:
    """The tables in a folder, one attribute each, read when first asked for: `tables.rates`."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __getattr__(self, name: str) -> pd.DataFrame:
        if name not in TABLES:
            raise AttributeError(f"no table {name!r}; declared are {', '.join(TABLES)}")
        self.__dict__[name] = read_table(self.folder / f"{name}.csv")
        return self.__dict__[name]


def load_tables(run: Run) -> Tables:
    """The tables of a run.

    Raises:
        InputError: the tables stage has not finished, or the study or its data have changed since.
    """
    run.require("tables")
    return Tables(run.tables)
