"""Measure memorization: one forward pass, then arithmetic. Nothing here changes a model.

In: a model and tokenizer (`load_model`), and examples (`data.encode`): tokens, how many of them are the prompt, which are secret.
Out: a score table, one row per record with lists per response token (`score`); everything else is arithmetic on it: what is
recited (`extraction`), how far a planted secret stands out (`canaries`), whether a record was trained on
(`membership_inference`), whose memory it is (`origins`), and rates with intervals (`statistics`).
Open first: `scoring`, then `extraction`.
To add a measure: 1. a function of a score table, in the module of its kind; 2. its test; 3. its row on the book's page of
measures; 4. its columns in `study.tables`, if a chapter shows it.
"""

from palimpsest.measure.canaries import dose_response, exposure, secret_logprob
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
)
from palimpsest.measure.lineage import origins
from palimpsest.measure.membership_inference import blind_baseline, evaluate, lowercased, membership, roc, tpr_at_fpr
from palimpsest.measure.models import context_length, load_model, load_tokenizer
from palimpsest.measure.near_verbatim import near_misses
from palimpsest.measure.prediction import predict
from palimpsest.measure.scoring import score, score_to_parquet
from palimpsest.measure.statistics import delong_auc, newcombe, over_seeds, rate, rate_of, wilson
