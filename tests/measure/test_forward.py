"""One way to the output layer: the states it is given at the labelled places, for any causal model, known before it is loaded."""

import pytest
import torch
from memorizers import END, WORDS, texts, untrained
from transformers import (
    MambaConfig,
    MambaForCausalLM,
)

from palimpsest.data.examples import collate
from palimpsest.measure.forward import labelled, labelled_states, output_layer


def state_space():
    torch.manual_seed(0)
    return MambaForCausalLM(MambaConfig(vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, state_size=4)).eval()


@pytest.mark.parametrize("make", [lambda: untrained("gpt2"), lambda: untrained("llama"), state_space])
def test_labelled_states_make_the_models_own_logits(make):
    model, examples = make(), texts(5)
    batch = collate(examples, END)
    at, targets = labelled(batch["labels"])
    assert targets.tolist() == [t for e in examples for t in e.response_ids]
    with torch.no_grad():
        found = torch.nn.functional.linear(
            labelled_states(model, [{"input_ids": batch["input_ids"], "at": at}]), *output_layer(model)
        )
        alone = [model(input_ids=torch.tensor([e.input_ids])).logits[0, e.prompt_length - 1 : -1] for e in examples]
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_the_output_layer_is_shown_no_place_in_training():
    model, shown = untrained("gpt2"), []
    batch = collate(texts(5), END)
    model.lm_head.register_forward_hook(lambda _, args, out: shown.append(out.shape))
    labelled_states(model, [{"input_ids": batch["input_ids"], "at": labelled(batch["labels"])[0]}]).sum().backward()
    assert shown == [(1, 0, WORDS)]
    assert model.transformer.wpe.weight.grad.any()
