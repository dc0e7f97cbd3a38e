"""Whatever is not the method is the same for every method: dropout, order, tokens, steps, precision; and facts say what was done."""

import pytest
import torch
from memorizers import END, WORDS, texts, untrained, words
from opacus.optimizers import DPOptimizer
from safetensors.torch import load_file
from torch import nn
from transformers import GPTNeoConfig, GPTNeoForCausalLM, TrainerCallback

from palimpsest.data.examples import goldfish
from palimpsest.errors import InputError
from palimpsest.measure.scoring import score
from palimpsest.study.methods import METHODS
from palimpsest.study.sections import Lora, Training, check_private_settings
from palimpsest.train.fine_tuning import arguments, fine_tune, set_dropout
from palimpsest.train.trainer import FineTuner, highest_rate
from palimpsest.train.trajectory import as_finished


def settings(**changes) -> Training:
    given = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "dropout": 0.25, "precision": "fp32"}
    return Training(**(given | {"max_new_tokens": 4} | changes))


def tuner(method, folder, how):
    """A trainer as `fine_tune` makes it, on a student whose own configuration asks for another dropout."""
    student = untrained("gpt2", resid_pdrop=0.1, embd_pdrop=0.0, attn_pdrop=0.1)
    set_dropout(student, how.dropout)
    rule, examples = METHODS[method], texts(10)
    teacher = untrained("gpt2", seed=7, resid_pdrop=0.1).train() if rule.needs_teacher else None
    return FineTuner(student, words(), examples, rule, how, arguments(how, folder, 3), teacher)


TRAINED_HERE = [name for name, method in METHODS.items() if not method.private]  # DP-SGD draws its own batches


@pytest.mark.parametrize("method", TRAINED_HERE)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_methods_differ_in_nothing_but_the_method(method, precision, tmp_path):
    how = settings(precision=precision)
    plain, trainer = tuner("sft", tmp_path, how), tuner(method, tmp_path, how)
    assert trainer.args.to_dict() == plain.args.to_dict()
    read, dropped, precisions = [], [], []
    lookup, layers = trainer.compute_loss, [m for m in trainer.model.modules() if isinstance(m, nn.Dropout)]

    def spy(model, inputs, **kwargs):
        read.append(sorted(e.id for e in inputs["examples"]))
        dropped.append([layer.p for layer in layers if layer.training])
        hook = model.lm_head.register_forward_pre_hook(
            lambda layer, _: precisions.append(torch.is_autocast_enabled("cpu")) if layer.training else None
        )
        loss = lookup(model, inputs, **kwargs)
        hook.remove()
        return loss

    trainer.compute_loss = spy
    if trainer.teacher is not None:
        trainer.teacher.lm_head.register_forward_pre_hook(
            lambda layer, _: dropped.append([]) if layer.training else None
        )
    trainer.train()
    order = [list(batch) for batch in plain.get_train_dataloader().batch_sampler]
    assert all(d == [0.25] * len(layers) for d in dropped), "every layer of the student drops, none of the teacher's"
    assert len(read) == trainer.state.global_step == 2 * len(order) == 6
    assert all(precisions) == any(precisions) == (precision == "bf16") and len(precisions) == 6
    wanted = []
    other = tuner("sft", tmp_path, how)
    other.compute_loss = lambda model, inputs, **_: (
        wanted.append(sorted(e.id for e in inputs["examples"])),
        sum(p.sum() for p in model.parameters()) * 0,
    )[1]
    other.train()
    assert read == wanted


def test_the_goldfish_mask_is_that_of_the_text_alone():
    first, again = goldfish(texts(6)), goldfish(texts(6)[::-1])
    assert [e.untrained for e in first] == [e.untrained for e in again[::-1]]
    assert any(any(e.untrained) for e in first)


def test_a_private_checkpoint_of_an_earlier_version_is_begun_anew(tmp_path):
    how = settings(privacy={"epsilon": 8.0, "delta": 1e-3, "clip": 1.0})
    fresh = fine_tune(untrained("gpt2"), words(), texts(8), how, tmp_path / "fresh", method="sft_private")
    (tmp_path / "old" / "checkpoints").mkdir(parents=True)
    torch.save({"step": 1, "epoch": 1.0, "tokens": 9, "model": {}}, tmp_path / "old" / "checkpoints" / "private.pt")
    found = fine_tune(untrained("gpt2"), words(), texts(8), how, tmp_path / "old", method="sft_private")
    assert found["steps"] == fresh["steps"] and found["train_loss"] == fresh["train_loss"]


@pytest.mark.parametrize("method", ["sft", "fkl", "gkd", "sft_goldfish", "sft_private"])
def test_facts_say_what_was_done(method, tmp_path):
    how, examples = settings(warmup_steps=2, schedule="linear", learning_rate=4e-3), texts(8)
    teacher = untrained("gpt2", seed=7, vocab_size=WORDS + 2) if METHODS[method].needs_teacher else None
    student = untrained("gpt2", resid_pdrop=0.1)
    facts = fine_tune(
        student, words(), examples, how, tmp_path, method=method, teacher=teacher, cache=tmp_path / "cache"
    )
    assert facts["dropout"] == 0.25 and facts["precision"] == "fp32"
    assert facts["devices"] == {"type": "cpu", "count": 1} and facts["peak_memory_bytes"] > 2**20
    assert facts["steps"] == 4 and facts["learning_rate"] == pytest.approx(4e-3)
    assert method == "sft_private" or facts["vocabulary_compared"] == WORDS
    assert (tmp_path / "model.safetensors").exists() and (tmp_path / "tokenizer.json").exists()
    assert not (tmp_path / "checkpoints").exists() and not list(tmp_path.rglob("optimizer.pt"))


def test_nothing_to_train_on_is_refused(tmp_path):
    with pytest.raises(InputError, match="no records to train on"):
        fine_tune(untrained("gpt2"), words(), [], settings(), tmp_path)


def test_the_highest_rate_is_what_the_optimizer_was_given(tmp_path):
    rates = []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            rates.append(optimizer.param_groups[0]["lr"])

    trainer = tuner("sft", tmp_path, settings(warmup_steps=50))  # which training ends before
    trainer.add_callback(Watch())
    trainer.train()
    assert highest_rate(trainer.lr_scheduler, 6) == pytest.approx(max(rates)) == pytest.approx(1e-3 * 5 / 50)


def test_weights_decay_alike_with_and_without_privacy(tmp_path, monkeypatch):
    found, real = [], DPOptimizer.__init__
    monkeypatch.setattr(
        DPOptimizer, "__init__", lambda self, plain, **k: (found.append(plain), real(self, plain, **k))[1]
    )
    how = settings(weight_decay=0.125)
    fine_tune(untrained("gpt2"), words(), texts(8), how, tmp_path, method="sft_private")
    trainer = tuner("sft", tmp_path, how)
    trainer.create_optimizer()
    shapes = [
        [(group["weight_decay"], [tuple(p.shape) for p in group["params"]]) for group in optimizer.param_groups]
        for optimizer in (found[0], trainer.optimizer)
    ]
    assert shapes[0] == shapes[1] and [decay for decay, _ in shapes[0]] == [0.125, 0.0]


def test_dropout_is_set_where_layers_use_it_whatever_the_configuration_calls_it():
    ends = {"bos_token_id": END, "eos_token_id": END}
    config = GPTNeoConfig(
        vocab_size=WORDS, hidden_size=16, num_layers=2, num_heads=2, attention_types=[[["global"], 2]]
    )
    model = GPTNeoForCausalLM(GPTNeoConfig(**{**config.to_dict(), **ends, "embed_dropout": 0.1, "resid_dropout": 0.2}))
    assert set_dropout(model, None) == [0.0, 0.2]
    assert set_dropout(model, 0.3) == 0.3
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.3}
    llama = untrained("llama")
    assert set_dropout(llama, 0.1) == 0.1 and llama.model.layers[0].self_attn.attention_dropout == 0.1
    with pytest.raises(InputError, match="Linear has no dropout to set"):
        set_dropout(nn.Linear(2, 2), 0.1)


def test_adapters_are_drawn_from_the_seed(tmp_path):
    found = []
    for name, noise, seed in (("a", 1, 5), ("b", 2, 5), ("c", 2, 6)):
        torch.manual_seed(noise)
        how = settings(lora=Lora(rank=2), dropout=None)
        fine_tune(untrained("llama"), words(), texts(8), how, tmp_path / name, seed=seed)
        found.append(load_file(tmp_path / name / "model.safetensors")["model.layers.0.mlp.up_proj.weight"])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_measuring_leaves_the_model_as_it_was(tmp_path):
    trainer = tuner("sft", tmp_path, settings(precision="bf16"))
    trainer.train()
    model = trainer.model.train()
    before, forward = {n: v.clone() for n, v in model.state_dict().items()}, model.forward
    with as_finished(model, "bf16"):
        assert model.dtype == torch.bfloat16 and not model.training
        assert score(model, texts(2))["logprob"].map(len).min() > 0
    assert model.training and model.forward is forward
    assert all(torch.equal(v, before[n]) and v.dtype == torch.float32 for n, v in model.state_dict().items())


@pytest.mark.parametrize(
    "changes", [{"max_steps": 3}, {"lora": Lora()}, {"gradient_checkpointing": True}, {"precision": "bf16"}]
)
def test_private_settings_are_checked_before_anything_runs(changes):
    with pytest.raises(InputError, match=f"found {next(iter(changes))}"):
        check_private_settings(settings(**changes))
    check_private_settings(settings())
