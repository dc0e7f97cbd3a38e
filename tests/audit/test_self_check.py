"""The check before the long run sees a model that scores otherwise than it decodes, and says nothing of a sound one."""

import pytest
import torch
from memorizers import memorizer, texts, untrained

from palimpsest.audit.self_check import check_alone
from palimpsest.measure.extraction import verbatim
from palimpsest.measure.scoring import score


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_sound_model_passes(kind):
    examples = texts(8)
    model = memorizer(kind, examples, until=0.3)
    found = check_alone(model, examples, 50, 1e-3)
    assert found["records"] == 8 and found["mismatches"] == found["tied"] and found["warnings"] == []
    assert found["loss_difference"] < 1e-4 and verbatim(score(model, examples)).any()


def test_a_model_that_decodes_otherwise_than_it_reads():
    """Its logits turn round once earlier tokens are cached, which no forward pass over a whole record shows."""
    examples = texts(8)
    model = memorizer("llama", examples, until=0.05)
    plain = type(model).forward

    class Forgetful(type(model)):
        def forward(self, input_ids=None, past_key_values=None, labels=None, **options):
            out = plain(self, input_ids=input_ids, past_key_values=past_key_values, labels=labels, **options)
            if past_key_values is not None and past_key_values.get_seq_length() > input_ids.shape[1]:
                out.logits = -out.logits
            return out

    model.__class__ = Forgetful
    found = check_alone(model, examples, 50, 1e-3)
    assert found["mismatches"] > 4 and "greedy decoding contradicts the verdict" in found["warnings"][0]


def test_worse_than_guessing_is_said_before_the_run():
    model = untrained("gpt2")
    with torch.no_grad():
        model.transformer.wte.weight *= 40
    assert "worse than guessing" in check_alone(model, texts(4), 50, 1e-3)["warnings"][-1]


def test_nothing_to_check():
    assert check_alone(untrained("gpt2"), [], 50, 1e-3)["records"] == 0
