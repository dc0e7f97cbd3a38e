"""PrivacyGuard's part of `privacyguard.py`, run by the Python of PrivacyGuard's own environment: times and a row per record.

    PYTHON privacyguard_side.py FOLDER

FOLDER holds `stops`, `runs_on` and `base` (models), `members.jsonl` and `others.jsonl` (`prompt`, `target`), `scores.json`.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from privacy_guard.analysis.extraction.edit_similarity_node import EditSimilarityNode
from privacy_guard.analysis.extraction.probabilistic_memorization_analysis_node import (
    ProbabilisticMemorizationAnalysisNode,
)
from privacy_guard.analysis.extraction.reference_model_comparison_input import ReferenceModelComparisonInput
from privacy_guard.analysis.extraction.reference_model_comparison_node import ReferenceModelComparisonNode
from privacy_guard.analysis.extraction.text_inclusion_analysis_node import TextInclusionAnalysisNode
from privacy_guard.analysis.mia.aggregate_analysis_input import AggregationType
from privacy_guard.analysis.mia.analysis_node import AnalysisNode
from privacy_guard.attacks.extraction.generation_attack import GenerationAttack
from privacy_guard.attacks.extraction.logprobs_attack import LogprobsAttack
from privacy_guard.attacks.extraction.predictors.huggingface_predictor import HuggingFacePredictor
from privacy_guard.attacks.lira_attack import LiraAttack
from privacy_guard.attacks.loss_attack import LossAttack

RULES = {"plain": {}, "top_k10": {"top_k": 10}, "temperature0.7_top_p0.9": {"temperature": 0.7, "top_p": 0.9}}
NEW_TOKENS = 96  # the longest target has fewer; its default of 512 would run on further


class Clock:
    """Processor seconds of every step, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, step: Callable[[], Any]) -> Any:
        began = time.process_time()
        found = step()
        self.seconds[name] = time.process_time() - began
        return found


def written(model: Path, data: Path, batch: int, padding: str = "left") -> pd.DataFrame:
    """Texts decoded greedily and what is made of them; `lcs` of any length, not only 150 characters or none."""
    predictor = HuggingFacePredictor(
        str(model),
        device="cpu",
        tokenizer_kwargs={"padding_side": padding},
        include_prompt_in_generation_result=False,
    )
    attack = GenerationAttack(
        str(data), None, predictor, output_format=None, batch_size=batch, max_new_tokens=NEW_TOKENS, do_sample=False
    )
    said = attack.run_attack()
    said.lcs_bound_config = None
    found = TextInclusionAnalysisNode(said).run_analysis()
    similar = EditSimilarityNode(said).run_analysis()
    return pd.DataFrame(
        {
            "prediction": found.augmented_output_dataset["prediction"],
            "exact_match": found.exact_match,
            "inclusion": found.inclusion_score,
            "common": [max(one.values()) for one in found.longest_common_substring],
            "edit_similarity": similar.edit_similarity_score,
        }
    )


def drawn(model: Path, data: Path, rule: dict) -> pd.Series:
    """The probability that one sample is the target."""
    predictor = HuggingFacePredictor(str(model), device="cpu")
    attack = LogprobsAttack(str(data), None, predictor, output_format=None, batch_size=16, **rule)
    return ProbabilisticMemorizationAnalysisNode(attack.run_attack()).run_analysis().model_probability


def losses(model: Path, folder: Path) -> dict[str, float]:
    """Membership by the loss of each text, which the user computes; AUC with the bootstrap's interval."""
    predictor = HuggingFacePredictor(str(model), device="cpu")

    def of(_: Any, rows: list[dict]) -> torch.Tensor:
        prompts, targets = ([row[name] for row in rows] for name in ("prompt", "target"))
        return torch.tensor([-each.mean().item() for each in predictor.get_logprobs(prompts, targets, batch_size=16)])

    sides = [
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("members.jsonl", "others.jsonl")
    ]
    return rated(LossAttack(predictor.model, *sides, compute_loss=of).run_attack())


def rated(attacked) -> dict[str, float]:
    """AUC and empirical epsilon of an attack."""
    torch.manual_seed(0)
    found = AnalysisNode(attacked, delta=1e-6, n_users_for_eval=100).run_analysis()
    return {"auc": found.auc, "low": found.auc_ci[0], "high": found.auc_ci[1], "eps_cp": found.eps_cp}


def by_shadows(scores: dict) -> dict[str, Any]:
    """LiRA, online, of signals that are handed in: of the target, and means and deviations of its shadows."""
    frame = pd.DataFrame(scores).assign(user_id=range(len(scores["score_orig"])))
    sides = [frame[frame["member"] == inside].copy() for inside in (True, False)]
    options = {"use_fixed_variance": True, "std_dev_type": "mix", "online_attack": True}
    attacked = LiraAttack(*sides, AggregationType.NONE, **options).run_attack()
    order = pd.concat([attacked.df_train_merge, attacked.df_test_merge]).sort_values("user_id")
    return {**rated(attacked), "score": order["score"].tolist()}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    clock, data, out = Clock(), folder / "members.jsonl", {}
    for model in ("stops", "runs_on", "base"):
        out[f"{model}, batch 1"] = clock(f"generation, {model}, batch 1", lambda m=model: written(folder / m, data, 1))
    for padding in ("left", "right"):
        name = f"stops, batch 16, padded on the {padding}"
        out[name] = clock(f"generation, {name}", lambda p=padding: written(folder / "stops", data, 16, p))
    rows = pd.concat(out, names=["run", "row"]).reset_index()
    sampled = {
        name: clock(f"log-probabilities, {name}", lambda r=r: drawn(folder / "stops", data, r))
        for name, r in RULES.items()
    }
    pairs = ReferenceModelComparisonInput(out["stops, batch 1"].copy(), out["base, batch 1"].copy(), "exact_match")
    four = ReferenceModelComparisonNode(pairs).run_analysis()
    names = ("tgt_pos_ref_pos", "tgt_pos_ref_neg", "tgt_neg_ref_pos", "tgt_neg_ref_neg")
    attacks = {
        "loss": clock("membership by loss", lambda: losses(folder / "stops", folder)),
        "lira": clock("LiRA", lambda: by_shadows(json.loads((folder / "scores.json").read_text()))),
        "pairs": {name: int(getattr(four, name).sum()) for name in names},
        "seconds": clock.seconds,
    }
    rows.to_json(folder / "theirs.jsonl", orient="records", lines=True)
    pd.DataFrame(sampled).to_json(folder / "theirs_sampled.jsonl", orient="records", lines=True)
    (folder / "theirs.json").write_text(json.dumps(attacks))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
