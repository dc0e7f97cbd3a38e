"""Measure memorization: one forward pass, then arithmetic. Nothing here changes a model.

In: a model and its tokenizer (`load_model`, `load_tokenizer`: a folder, a hub id and revision) and examples
(`data.encode`): tokens, how many of them are the prompt, which are secret.

Out: *scores* (`score`), a table with one row per record and lists with one value per response token; everything else is
arithmetic on it, a noun that returns numbers:

- what is recited: `verbatim`, `verbatim_by_prefix`, `verbatim_target`, `strength`, `longest_span`, `secrets`; sampled instead
  of greedy: `log_probability`, `samples_needed`; how near it comes otherwise: `near_misses`, which decodes (`generate`);
- how far a planted secret stands out: `exposure`, `dose_response`;
- whether a record was trained on: `membership`, `attack_rates`, `blind_baseline`; with models trained for it: `lira`, `rmia`,
  `shadow_rates`; and how private training is at most: `one_run_audit`, `epsilon_lower_bound`;
- what a model is like while it is trained: `take_point`, with quality in three ways (`validation_point`);
- whose memory it is: `origins`, `counterfactual`; which records it will be: `predict`;
- and how sure one can be: `rate`, `auc`, `wilson`, `newcombe`.

Open first: `scoring`, then `extraction`. Where models differ from one another: `checkpoints` (where a model is), `damage`
(whether its files are whole), `models` (loading), `adapters` (LoRA on its base), `layers` (cutting one), `forward` (logits at
labelled places), `memory` (what fits), `compatibility` (what is known before anything is trained).

To add a measure: 1. a function of scores, in the module of its kind, with the paper it is from; 2. its test against a plain
definition; 3. its row in the book's index of measures, `book/measures.md` (a test asks for it); 4. its columns in
`study.tables`, if a chapter shows it.
"""

from palimpsest.measure.canaries import dose_response, exposure
from palimpsest.measure.compatibility import check_models
from palimpsest.measure.extraction import (
    left_truncated_examples,
    log_probability,
    longest_span,
    near_ties,
    probability_in,
    samples_needed,
    secrets,
    strength,
    verbatim,
    verbatim_at_every_prefix,
    verbatim_by_prefix,
    verbatim_target,
)
from palimpsest.measure.generation import generate
from palimpsest.measure.layers import block_influence, keep_layers
from palimpsest.measure.lineage import origins, transferred
from palimpsest.measure.membership_inference import (
    attack_rates,
    blind_baseline,
    lowercased,
    membership,
    operating_points,
    tpr_at_fpr,
)
from palimpsest.measure.models import context_length, load_model, load_tokenizer
from palimpsest.measure.near_verbatim import near_misses
from palimpsest.measure.prediction import predict
from palimpsest.measure.privacy_audit import epsilon_lower_bound, one_run_audit, pooled_audit
from palimpsest.measure.scoring import score, score_to_parquet
from palimpsest.measure.shadow_attacks import confidence_logit, lira, rmia, shadow_rates
from palimpsest.measure.statistics import auc, newcombe, over_seeds, rate, rate_of, wilson
from palimpsest.measure.watched import Watched, fit_temperature, take_point, validation_point
