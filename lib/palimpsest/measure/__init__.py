"""Measure memorization: one forward pass, then arithmetic. Nothing here changes a model.

In: a model and its tokenizer (`models`: from a folder, or a hub id and revision) and examples (`data.encoding`): tokens, how
many of them are the prompt, which are secret.

Out: *scores* (`scoring.score`), a table with one row per record and lists with one value per response token; everything else
is arithmetic on it, a noun that returns numbers:

- what is recited (`extraction`): `verbatim`, `verbatim_by_prefix`, `verbatim_target`, `strength`, `longest_span`, `secrets`;
  sampled instead of greedy: `log_probability`, `samples_needed`; how near it comes otherwise: `near_verbatim`, which decodes;
- how far a planted secret stands out (`canaries`): `exposure`, `dose_response`;
- whether a record was trained on (`membership_inference`): `membership`, `attack_rates`, `blind_baseline`; with models trained
  for it (`shadow_attacks`): `lira`, `rmia`; and how private training is at most (`privacy_audit`): `one_run_audit`;
- what a model is like while it is trained (`watched`): `take_point`, with quality in three ways (`validation_point`);
- whose memory it is (`lineage`): `origins`, `counterfactual`; which records it will be: `prediction`;
- and how sure one can be (`statistics`): `rate`, `auc`, `wilson`, `newcombe`.

A study's model is measured by `finished`; `read_back` reads what that wrote, and like all arithmetic here needs no torch.

Open first: `scoring`, then `extraction`. Where models differ from one another: `checkpoints` (where a model is), `damage`
(whether its files are whole), `models` (loading), `adapters` (LoRA on its base), `layers` (cutting one), `forward` (logits at
labelled places), `memory` (what fits), `compatibility` (what is known before anything is trained).

To add a measure: 1. a function of scores, in the module of its kind, with the paper it is from; 2. its test against a plain
definition; 3. its row in the book's index of measures, `book/measures.md` (a test asks for it); 4. its columns in
`study.tables`, if a chapter shows it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(  # a room whole, of which only what is asked for is imported
    __name__,
    submod_attrs={
        "canaries": ["dose_response", "exposure"],
        "checkpoints": ["find_checkpoint"],
        "compatibility": ["check_models"],
        "extraction": [
            "left_truncated_examples",
            "log_probability",
            "longest_span",
            "near_ties",
            "probability_in",
            "samples_needed",
            "secrets",
            "strength",
            "verbatim",
            "verbatim_at_every_prefix",
            "verbatim_by_prefix",
            "verbatim_target",
        ],
        "finished": ["load_trained", "measure_model"],
        "generation": ["generate"],
        "layers": ["block_influence", "keep_layers"],
        "lineage": ["origins", "recites", "transferred"],
        "membership_inference": [
            "attack_rates",
            "blind_baseline",
            "lowercased",
            "membership",
            "operating_points",
            "tpr_at_fpr",
        ],
        "models": [
            "build_model",
            "check_same_tokenizer",
            "context_length",
            "default_device",
            "load_config",
            "load_model",
            "load_tokenizer",
            "parameter_count",
            "train_tokenizer",
        ],
        "near_verbatim": ["near_misses"],
        "prediction": ["features", "predict"],
        "privacy_audit": ["epsilon_lower_bound", "one_run_audit", "pooled_audit"],
        "quality": ["generate_and_compare"],
        "scoring": ["score", "score_to_parquet"],
        "shadow_attacks": ["confidence_logit", "lira", "rmia", "shadow_rates"],
        "statistics": ["auc", "newcombe", "over_seeds", "rate", "rate_of", "wilson"],
        "watched": ["Watched", "fit_temperature", "take_point", "validation_point"],
    },
)
