"""What a model costs: parameters, training arithmetic, seconds, bytes on disk and tokens per second."""

from pathlib import Path

import pandas as pd

from palimpsest.measure import results
from palimpsest.study import Study
from palimpsest.study.methods import METHODS


def training_flops(facts: dict, method: str) -> float:
    """Floating-point operations of one fine-tuning, by the usual 6 N D (Kaplan et al. 2020).

    2 N per token for a forward pass, 4 N for the backward one. Student text adds 2 N per token to write it (key-value cache,
    so each token is computed once) and 2 N_teacher per token for the teacher's opinion of it. With references the teacher
    runs once, not every epoch.
    """
    tokens, epochs, n = facts["tokens_per_epoch"], facts["epochs"], facts["parameters"]
    rule, teacher = METHODS[method], facts.get("teacher_parameters", 0)
    share = {"student": 1.0, "mixed": 0.5}.get(rule.text, 0.0)
    own = share * tokens * epochs
    once = tokens if rule.needs_teacher and rule.text in ("references", "mixed") else 0
    return 6 * n * tokens * epochs + own * (2 * n + 2 * teacher) + 2 * teacher * once


def table(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """One row per measured model; the bases' own training is not counted with the models that start from them."""
    rows = []
    for name in results.model_names(study, run_dir):
        facts, who = results.run_facts(run_dir, name), results.describe(name)
        method = facts["method"]
        rows.append(
            {
                **who,
                "parameters": facts["parameters"],
                "bytes": facts["bytes"],
                "training_flops": training_flops(facts, method) if "steps" in facts else 0.0,
                "seconds": facts.get("train_seconds", 0.0),
                "peak_memory_bytes": facts["peak_memory_bytes"],
                "decode_tokens_per_second": facts["measured"]["decode_tokens_per_second"],
            }
        )
    return results.label_seeds(pd.DataFrame(rows))
