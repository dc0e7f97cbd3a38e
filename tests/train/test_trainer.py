"""The trainer against plain computations, for every method: losses, gradients, padding, samples, resume, and bad input."""

import gc
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from memorizers import END, WORDS, memorizer, texts, untrained, words
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    TrainerCallback,
)

from palimpsest.data.examples import Example
from palimpsest.errors import InputError
from palimpsest.study.methods import METHODS
from palimpsest.study.sections import Training
from palimpsest.train import trainer as training
from palimpsest.train.batches import completion_batch
from palimpsest.train.fine_tuning import arguments
from palimpsest.train.trainer import FineTuner


@pytest.fixture(scope="module", autouse=True)
def quick_collection():
    """The trainer collects garbage when it starts, over all that the imports have made: three quarters of a second."""
    gc.freeze()
    yield
    gc.unfreeze()


KINDS = ["gpt2", "llama"]
ON_REFERENCES = [n for n, method in METHODS.items() if method.needs_teacher and method.text == "references"]


def teacher_of(kind: str, **config):
    """A teacher of another width and depth than the student."""
    size = {"n_embd": 64, "n_layer": 3} if kind == "gpt2" else {"hidden_size": 64, "num_hidden_layers": 3}
    return untrained(kind, seed=7, **size, **config)


# One step of plain gradient descent, unless a test says otherwise.
PLAIN = {"optim": "sgd", "logging_strategy": "no", "save_strategy": "no", "use_cpu": True}


def trainer_for(
    method, folder, kind="gpt2", examples=None, student=None, teacher=None, cache=None, seed=0, changes=None, **own
):
    """`own` are settings of the study, `changes` the trainer's arguments."""
    given = {"epochs": 1, "batch_size": 4, "learning_rate": 0.5, "schedule": "constant", "precision": "fp32"}
    given |= {"max_grad_norm": 1e9, "weight_decay": 0.0, "max_new_tokens": 12, "max_steps": 1}
    settings, rule = Training(**(given | own)), METHODS[method]
    if rule.needs_teacher:
        teacher = teacher or teacher_of(kind)
    args = arguments(settings, folder, seed)
    for name, value in (PLAIN | (changes or {})).items():
        setattr(args, name, value)
    return FineTuner(student or untrained(kind), words(), examples or texts(8), rule, settings, args, teacher, cache)


def loss_of(trainer, batch) -> float:
    return trainer.compute_loss(trainer.model, batch, num_items_in_batch=batch["tokens"]).item()


def by_numpy(method: str, student, teacher, examples) -> float:
    """Mean loss over labelled tokens in double precision, one unpadded record at a time."""
    rule, total, tokens = METHODS[method], 0.0, 0
    for e in examples:
        labels = np.array(e.response_ids)
        p, q = [_probabilities(m, e)[e.prompt_length - 1 : -1] for m in (student, teacher)]
        m = (p + q) / 2
        cross_entropy = -np.log(p[np.arange(len(labels)), labels]).sum()
        divergence = {
            "cross_entropy": cross_entropy,
            "forward_kl": (q * np.log(q / p)).sum(),
            "reverse_kl": (p * np.log(p / q)).sum(),
            "jensen_shannon": ((q * np.log(q / m)).sum() + (p * np.log(p / m)).sum()) / 2,
        }[rule.objective]
        w = rule.cross_entropy_weight
        total += w * cross_entropy + (1 - w) * divergence
        tokens += len(labels)
    return total / tokens


def _probabilities(model, e: Example) -> np.ndarray:
    with torch.no_grad():
        z = model(input_ids=torch.tensor([e.input_ids])).logits[0].double().numpy()
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)


def trained_on(trainer) -> list[list[Example]]:
    """Train, and return the examples of every batch that a loss was computed on."""
    seen, compute = [], trainer.compute_loss

    def spy(model, inputs, **kwargs):
        seen.append(inputs["examples"])
        return compute(model, inputs, **kwargs)

    trainer.compute_loss = spy
    trainer.train()
    return seen


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_close(found: dict, wanted: dict, tolerance: float) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(
            found[name], wanted[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


# Losses and gradients


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_methods_loss_is_the_plain_one(method, kind, tmp_path):
    teacher = teacher_of(kind)
    trainer = trainer_for(method, tmp_path, kind, teacher=teacher, batch_size=8)
    seen = trained_on(trainer)
    wanted = by_numpy(method, untrained(kind), teacher, seen[0])
    assert trainer._total_loss_scalar == pytest.approx(wanted, rel=1e-5)
    assert len(seen) == 1 and len(seen[0]) == 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["sft", *ON_REFERENCES])
def test_a_step_follows_the_plain_gradient(method, kind, tmp_path):
    """One step of plain gradient descent against plain PyTorch, record by record, so without any padding."""
    examples, teacher, plain = texts(8), teacher_of(kind), untrained(kind)
    trainer = trainer_for(method, tmp_path, kind, examples, teacher=teacher, batch_size=8)
    trainer.train()
    rule, total = METHODS[method], 0.0
    for e in examples:
        ids, part = torch.tensor([e.input_ids]), slice(e.prompt_length - 1, -1)
        log_p = plain(input_ids=ids).logits[0, part].log_softmax(1)
        log_q = teacher(input_ids=ids).logits[0, part].log_softmax(1).detach()
        cross_entropy = functional.nll_loss(log_p, torch.tensor(e.response_ids), reduction="sum")
        divergence = {
            "cross_entropy": cross_entropy,
            "forward_kl": (log_q.exp() * (log_q - log_p)).sum(),
            "reverse_kl": (log_p.exp() * (log_p - log_q)).sum(),
        }[rule.objective]
        total = total + rule.cross_entropy_weight * cross_entropy + (1 - rule.cross_entropy_weight) * divergence
    (total / sum(len(e.response_ids) for e in examples)).backward()
    for p in plain.parameters():
        p.data -= 0.5 * p.grad
    assert_close(weights(trainer.model), weights(plain), 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["sft", "rkl", "rkl_student", "gkd"])
def test_accumulation_does_not_change_training(method, kind, tmp_path):
    """Every split of a ragged batch: also the student's samples are the same ones."""
    found = []
    for rows, steps in ((8, 1), (2, 4), (1, 8)):
        own = {"batch_size": rows * steps, "accumulation": steps, "max_steps": 2}
        trainer = trainer_for(method, tmp_path, kind, texts(16, shortest=1), **own)
        trainer.train()
        found.append(weights(trainer.model))
    for other in found[1:]:
        assert_close(other, found[0], 2e-6)
    assert (found[0]["lm_head.weight"] - untrained(kind).lm_head.weight).abs().max() > 1e-4


@pytest.mark.parametrize("method", ["sft", "fkl", "rkl_student"])
def test_an_epochs_short_last_step_is_a_mean_over_its_own_tokens(method, tmp_path):
    trainer = trainer_for(method, tmp_path, examples=texts(8), batch_size=6, accumulation=3, max_steps=None)
    counts, step = [], trainer.training_step
    trainer.training_step = lambda m, i, n: (counts.append((i["tokens"], n)), step(m, i, n))[1]
    trainer.train()
    assert [n for _, n in counts] == [sum(t for t, _ in counts[:3])] * 3 + [counts[3][0]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_loss_is_that_of_a_masked_padded_batch(kind, side, tmp_path):
    """Padding on either side with its mask and positions, through the model's own forward, gives the same loss."""
    examples, student, teacher = texts(6), untrained(kind), teacher_of(kind)
    trainer = trainer_for("fkl", tmp_path, kind, examples, student, teacher)
    found = loss_of(trainer, completion_batch(examples, END))
    longest = max(len(e.input_ids) for e in examples)
    ids, mask = torch.full((6, longest), END), torch.zeros(6, longest, dtype=torch.long)
    labels = torch.full((6, longest), -100)
    for row, e in enumerate(examples):
        start = longest - len(e.input_ids) if side == "left" else 0
        ids[row, start : start + len(e.input_ids)] = torch.tensor(e.input_ids)
        mask[row, start : start + len(e.input_ids)] = 1
        labels[row, start + e.prompt_length : start + len(e.input_ids)] = torch.tensor(e.response_ids)
    batch = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp_min(0)}
    with torch.no_grad():
        log_p, log_q = [m(**batch).logits[:, :-1].log_softmax(-1)[labels[:, 1:] != -100] for m in (student, teacher)]
    wanted = (log_q.exp() * (log_q - log_p)).sum() / len(log_p)
    assert found == pytest.approx(wanted.item(), rel=1e-5)


def test_the_fused_activation_is_the_same_function(tmp_path):
    student, x = untrained("gpt2"), torch.linspace(-20, 20, 100_000, requires_grad=True)
    written_out = student.transformer.h[0].mlp.act
    trainer_for("fkl", tmp_path, student=student)
    fused = student.transformer.h[0].mlp.act
    assert type(fused) is not type(written_out)
    torch.testing.assert_close(fused(x), written_out(x), rtol=1e-6, atol=1e-6)
    slopes = [torch.autograd.grad(act(x).sum(), x)[0] for act in (fused, written_out)]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-5)


def test_end_of_text_is_learnt_though_it_also_pads():
    examples = [Example("a", [3, 4, 5, END], 2), Example("b", [3, 4, 5, 6, 7, END], 1)]
    batch = completion_batch(examples, END)
    assert batch["examples"] == examples[::-1]
    assert batch["targets"].tolist() == [4, 5, 6, 7, END, 5, END]
    assert batch["tokens"] == 7
    assert [p["at"].tolist() for p in batch["parts"]] == [[0, 1, 2, 3, 4, 7, 8]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_in_parts_has_the_same_loss(kind, tmp_path):
    examples = texts(9)
    trainer = trainer_for("word_kd", tmp_path, kind, examples)
    whole, parts = completion_batch(examples, END, part=10_000), completion_batch(examples, END, part=60)
    assert len(whole["parts"]) == 1 and len(parts["parts"]) > 3
    padded = [sum(p["input_ids"].numel() for p in batch["parts"]) for batch in (whole, parts)]
    assert padded[1] < 0.8 * padded[0]
    losses = [loss_of(trainer, batch) for batch in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


# The teacher's cache


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [*ON_REFERENCES, "gkd"])
def test_a_cached_teacher_trains_the_same_student(method, kind, tmp_path):
    found = []
    for cache in (None, tmp_path / "cache"):
        trainer = trainer_for(method, tmp_path / "out", kind, cache=cache, max_steps=None, epochs=3, batch_size=3)
        trainer.train()
        found.append(weights(trainer.model))
    assert_close(found[1], found[0], 1e-5)


def test_a_cached_teachers_body_is_let_go_and_never_runs(tmp_path):
    trainer_for("fkl", tmp_path, cache=tmp_path / "cache")
    teacher = teacher_of("gpt2")
    trainer = trainer_for("fkl", tmp_path, teacher=teacher, cache=tmp_path / "cache")
    teacher.forward = lambda *_, **__: pytest.fail("the teacher ran")
    assert trainer.teacher is None
    trainer.train()


# The student's own text


@pytest.mark.parametrize("kind", KINDS)
def test_samples_continue_each_prompt_as_if_it_were_alone(kind, tmp_path):
    """A student that knows its records by heart, sampled near temperature 0, recites them from prompts of any length."""
    examples = texts(10, longest=20)
    student = memorizer(kind, examples, until=0.02)
    own = {"max_new_tokens": 40, "sampling_temperature": 0.01}
    trainer = trainer_for("rkl_student", tmp_path, kind, examples, student, **own)
    drawn = trainer.sample(examples, step=0)
    assert [e.input_ids for e in drawn] == [e.input_ids for e in examples]
    assert all(e.input_ids[-1] == END for e in drawn)
    assert [e.prompt_length for e in drawn] == [e.prompt_length for e in examples]


def test_samples_stop_at_the_limit_without_an_invented_end(tmp_path):
    trainer = trainer_for("rkl_student", tmp_path, max_new_tokens=3)
    drawn = trainer.sample(texts(30), step=0)
    lengths = {len(e.response_ids) for e in drawn}
    assert max(lengths) == 3
    for e in drawn:
        assert END not in e.response_ids[:-1]
        assert len(e.response_ids) == 3 or e.response_ids[-1] == END


def test_samples_are_of_the_whole_distribution(tmp_path):
    """The first sampled token of one prompt follows the model's probabilities (chi-square), none cut off."""
    example = texts(1)[0]
    student = untrained("gpt2")
    trainer = trainer_for("rkl_student", tmp_path, student=student, max_new_tokens=1)
    drawn = trainer.sample([example] * 3000, step=3)
    counts = np.bincount([e.response_ids[0] for e in drawn], minlength=WORDS)
    prompt = Example("", example.input_ids[: example.prompt_length], example.prompt_length)
    expected = 3000 * _probabilities(student, prompt)[-1]
    assert ((counts - expected) ** 2 / expected).sum() < 59 + 5 * math.sqrt(2 * 59)


def test_samples_depend_on_the_step_and_seed_alone(tmp_path):
    trainer = trainer_for("rkl_student", tmp_path)
    first = trainer.sample(texts(4), step=5)
    torch.rand(3)
    assert trainer.sample(texts(4), step=5) == first
    assert trainer.sample(texts(4), step=6) != first
    before = torch.random.get_rng_state()
    trainer.sample(texts(4), step=5)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("steps, calls", [(1, 10), (2, 6), (3, 4), (100, 2)])
def test_a_block_of_samples_serves_its_steps_and_ends_with_the_epoch(steps, calls, tmp_path, monkeypatch):
    """Two epochs of five steps."""
    drawn, real = [], FineTuner.sample
    monkeypatch.setattr(
        FineTuner, "sample", lambda self, e, step: (drawn.append((step, len(e))), real(self, e, step))[1]
    )
    own = {"batch_size": 2, "epochs": 2, "max_steps": None, "rollout_steps": steps}
    seen = trained_on(trainer_for("rkl_student", tmp_path, examples=texts(9), **own))
    assert len(drawn) == calls
    assert sum(n for _, n in drawn) == 18
    assert [len(batch) for batch in seen] == [2, 2, 2, 2, 1] * 2
    assert 5 in [step for step, _ in drawn]


def test_gkd_reads_own_text_for_about_half_of_the_steps_as_the_seed_says(tmp_path):
    trainer = trainer_for("gkd", tmp_path)
    chosen = [trainer.uses_samples(step) for step in range(400)]
    assert 150 < sum(chosen) < 250
    again = trainer_for("gkd", tmp_path)
    assert chosen == [again.uses_samples(step) for step in range(400)]
    other = trainer_for("gkd", tmp_path, seed=1)
    assert chosen != [other.uses_samples(step) for step in range(400)]


def test_a_prompt_that_fills_the_context_cannot_be_continued(tmp_path):
    examples = [*texts(3), Example("long", [5] * 64, 64)]
    with pytest.raises(
        InputError, match="64 tokens and the context of student and teacher is 64.*Shorten the prompts"
    ):
        trainer_for("rkl_student", tmp_path, examples=examples).train()


# Checkpoints


class StopAfterEpoch(TrainerCallback):
    """Ends a run the way a kill would: nothing after the first epoch's checkpoint happens."""

    def on_save(self, args, state, control, **kwargs):
        control.should_training_stop = True


@pytest.mark.parametrize("method", ["sft", "word_kd", "rkl_student", "gkd"])
def test_a_resumed_run_ends_with_the_same_bits(method, tmp_path):
    """With dropout, Adam, a schedule, a cache and blocks of samples that do not divide the epoch."""
    drop = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
    own = {"max_steps": None, "epochs": 3, "learning_rate": 1e-2, "schedule": "cosine", "batch_size": 3}
    own |= {"rollout_steps": 2, "changes": {"optim": "adamw_torch", "save_strategy": "epoch"}}

    def trainer(folder):
        student = untrained("gpt2", **drop)
        return trainer_for(
            method, tmp_path / folder, examples=texts(10), student=student, cache=tmp_path / "cache", **own
        )

    whole = trainer("whole")
    whole.train()
    killed = trainer("killed")
    killed.add_callback(StopAfterEpoch())
    killed.train()
    resumed = trainer("killed")
    torch.manual_seed(99)
    resumed.train(resume_from_checkpoint=True)
    assert killed.state.global_step == 4 and resumed.state.global_step == 12
    for name, value in weights(whole.model).items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_checkpoint_is_what_a_resume_needs_and_only_one_is_kept(tmp_path):
    own = {"max_steps": None, "epochs": 4, "changes": {"save_strategy": "epoch"}}
    trainer_for("fkl", tmp_path, examples=texts(10), **own).train()
    kept = [p for p in tmp_path.iterdir() if p.name.startswith("checkpoint")]
    assert [p.name for p in kept] == ["checkpoint-9"]  # of 12 steps: after the last, the model itself is written
    assert not [p.name for p in kept[0].iterdir() if "token" in p.name or p.suffix == ".md"]


# Options of real models


@pytest.mark.parametrize("kind, targets", [("gpt2", ["c_attn"]), ("llama", "all-linear")])
@pytest.mark.parametrize("method", ["sft", "fkl", "rkl_student"])
def test_lora_trains_its_adapters_only(method, kind, targets, tmp_path):
    config = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False)
    config.fan_in_fan_out = kind == "gpt2"
    student = get_peft_model(untrained(kind), config)
    before, plain = weights(student), by_numpy(method, student.eval(), teacher_of(kind), texts(8))
    trainer = trainer_for(method, tmp_path, kind, student=student, batch_size=8)
    trainer.train()
    if method != "rkl_student":
        assert trainer._total_loss_scalar == pytest.approx(plain, rel=1e-5)
    changed = {name for name, value in weights(trainer.model).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "lora_" in name}


def test_an_adapter_on_the_output_layer_is_refused(tmp_path):
    student = get_peft_model(untrained("llama"), LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM"))
    with pytest.raises(ValueError, match="lm_head"):
        trainer_for("fkl", tmp_path, "llama", student=student)


@pytest.mark.parametrize("method", ["sft", "fkl", "rkl_student"])
def test_gradient_checkpointing_changes_nothing(method, tmp_path):
    found = []
    for on in (False, True):
        trainer = trainer_for(method, tmp_path, "llama", gradient_checkpointing=on, max_steps=2)
        trainer.train()
        found.append(weights(trainer.model))
    assert_close(found[1], found[0], 1e-6)


@pytest.mark.parametrize("method", ["sft", "word_kd", "rkl_student"])
def test_bf16_is_close_to_fp32(method, tmp_path):
    losses = []
    for on in (False, True):
        trainer = trainer_for(method, tmp_path, precision="bf16" if on else "fp32", max_steps=2)
        trainer.train()
        losses.append(trainer._total_loss_scalar)
        assert trainer.model.dtype == torch.float32
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    assert losses[1] != losses[0]


def test_models_in_bf16_train(tmp_path):
    student, teacher = untrained("gpt2").bfloat16(), teacher_of("gpt2").bfloat16()
    trainer = trainer_for("fkl", tmp_path, student=student, teacher=teacher, cache=tmp_path / "cache")
    trainer.train()
    assert trainer._total_loss_scalar == pytest.approx(by_numpy("fkl", untrained("gpt2"), teacher, texts(8)), rel=0.3)


def test_temperature_and_weight_reach_the_loss(tmp_path):
    examples, teacher = texts(4), teacher_of("gpt2")
    batch = completion_batch(examples, END)

    def loss(method, **own):
        return loss_of(trainer_for(method, tmp_path, examples=examples, teacher=teacher, **own), batch)

    assert loss("fkl", cross_entropy_weight=0.5) == pytest.approx(loss("word_kd"))
    assert loss("fkl", temperature=2.0) < 0.5 * loss("fkl")


@pytest.mark.parametrize("method", ["sft", "word_kd", "fkl", "rkl", "gkd"])
def test_padding_rows_of_the_vocabulary_enter_no_loss(method, tmp_path):
    """Student and teacher with more rows than the tokenizer has tokens, by different numbers: as both cut to the tokens."""
    examples, batch = texts(6), completion_batch(texts(6), END)
    wide = [untrained("gpt2", vocab_size=WORDS + 4), teacher_of("gpt2", vocab_size=WORDS + 9)]
    found = trainer_for(method, tmp_path, examples=examples, student=wide[0], teacher=wide[1])
    assert found.words == WORDS
    cut = [untrained("gpt2"), teacher_of("gpt2")]
    for narrow, model in zip(cut, wide, strict=True):
        state = model.state_dict()
        narrow.load_state_dict({n: v[:WORDS] if "wte" in n or "lm_head" in n else v for n, v in state.items()})
    wanted = trainer_for(method, tmp_path, examples=examples, student=cut[0], teacher=cut[1])
    assert loss_of(found, batch) == pytest.approx(loss_of(wanted, batch), rel=1e-6)
    found.train()
    wanted.train()
    if method != "gkd":  # which may read samples, drawn from all rows
        rows = found.model.lm_head.weight
        torch.testing.assert_close(rows[:WORDS], wanted.model.lm_head.weight, rtol=0, atol=1e-6)
        assert torch.equal(rows[WORDS:], untrained("gpt2", vocab_size=WORDS + 4).lm_head.weight[WORDS:])


def test_samples_hold_no_padding_rows(tmp_path):
    student = untrained("gpt2", vocab_size=3 * WORDS)
    trainer = trainer_for("rkl_student", tmp_path, student=student, max_new_tokens=8)
    drawn = trainer.sample(texts(30), step=0)
    assert max(t for e in drawn for t in e.response_ids) < WORDS
    assert min(len(e.response_ids) for e in drawn) < 8
    trainer.train()


def mixture():
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    experts = {"num_local_experts": 4, "num_key_value_heads": 1, "output_router_logits": True}
    return MixtralForCausalLM(MixtralConfig(vocab_size=WORDS, max_position_embeddings=64, **small, **experts)).eval()


def state_space():
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "expand": 2}
    ends = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": END}
    return MambaForCausalLM(MambaConfig(vocab_size=WORDS, **small, **ends)).eval()


@pytest.mark.parametrize("make", [mixture, state_space])
@pytest.mark.parametrize("method", ["sft", "word_kd", "rkl_student"])
def test_other_architectures_train_on_the_plain_loss(make, method, tmp_path):
    """No second loss of a mixture's router, and no positions where the model takes none."""
    teacher = teacher_of("llama")
    trainer = trainer_for(method, tmp_path, student=make(), teacher=teacher, batch_size=8)
    seen = trained_on(trainer)
    assert trainer._total_loss_scalar == pytest.approx(by_numpy(method, make(), teacher, seen[0]), rel=1e-4)


# Bad input


@pytest.mark.parametrize("method", ["sft", "fkl", "gkd"])
def test_a_batch_without_labelled_tokens_has_loss_zero(method, tmp_path):
    examples = [Example(f"e{i}", [3, 4, 5 + i], 3) for i in range(4)]
    trainer = trainer_for(method, tmp_path, examples=examples, cache=tmp_path / "cache")
    if method == "gkd":
        trainer.uses_samples = lambda step: False
    trainer.train()
    assert trainer._total_loss_scalar == 0
    assert_close(weights(trainer.model), weights(untrained("gpt2")), 0)


@pytest.mark.parametrize("method", ["sft", "fkl"])
def test_a_loss_that_is_not_a_number_stops_the_run(method, tmp_path):
    trainer = trainer_for(method, tmp_path, learning_rate=1e30, max_grad_norm=1e30, max_steps=6, batch_size=2)
    with pytest.raises(
        InputError, match=r"loss is (nan|inf) at step \d.*learning rate 1e\+30.*Lower the learning rate"
    ):
        trainer.train()


def test_a_teacher_without_all_tokens_is_refused(tmp_path):
    examples = [Example("a", [1, 2, END], 1)]
    with pytest.raises(InputError, match="GPT2LMHeadModel has 50 output rows and the tokenizer 60 tokens"):
        trainer_for("fkl", tmp_path, examples=examples, teacher=teacher_of("gpt2", vocab_size=50))


def test_tokens_outside_the_vocabulary_are_refused(tmp_path):
    with pytest.raises(InputError, match="token id 60"):
        trainer_for("sft", tmp_path, examples=[Example("a", [1, 60, END], 1)])


def test_records_longer_than_the_teachers_context_are_refused(tmp_path):
    examples = [Example("a", [1] * 60 + [END], 1)]
    with pytest.raises(InputError, match="context of 32"):
        trainer_for("fkl", tmp_path, examples=examples, teacher=teacher_of("gpt2", n_positions=32))


def test_a_missing_teacher_is_said(tmp_path):
    settings = Training(epochs=1, batch_size=2, learning_rate=0.1)
    args = arguments(settings, tmp_path, 0)
    with pytest.raises(InputError, match="forward KL compares with a teacher's distribution; no teacher was given"):
        FineTuner(untrained("gpt2"), words(), texts(2), METHODS["fkl"], settings, args)


def test_samples_fit_a_teacher_of_a_shorter_context(tmp_path):
    examples, teacher = texts(6, longest=10), teacher_of("gpt2", n_positions=20)
    trainer = trainer_for("rkl_student", tmp_path, examples=examples, teacher=teacher, max_new_tokens=60)
    assert max(len(e.input_ids) for e in trainer.sample(examples, step=0)) == 20
    trainer.train()


def test_a_model_that_caps_its_logits_is_refused(tmp_path):
    config = Gemma2Config(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=5.0,
    )
    torch.manual_seed(0)
    with pytest.raises(InputError, match="Gemma2ForCausalLM changes its logits"):
        trainer_for("sft", tmp_path, student=Gemma2ForCausalLM(config))


@pytest.mark.parametrize("method", ["sft", "fkl", "rkl_student"])
def test_a_batch_too_big_for_memory_is_halved_and_said_once(method, tmp_path, monkeypatch, caplog):
    real = training.summed_loss

    def crowded(divergence, states, *args, **kwargs):
        if len(states) > 60:
            raise torch.OutOfMemoryError("out of memory")
        return real(divergence, states, *args, **kwargs)

    own = {"batch_size": 8, "max_steps": 3, "examples": texts(8, longest=10)}
    wanted = trainer_for(method, tmp_path, **own)
    wanted.train()
    monkeypatch.setattr(training, "summed_loss", crowded)
    found = trainer_for(method, tmp_path, **own)
    found.train()
    assert_close(weights(found.model), weights(wanted.model), 2e-6)
    assert found.pieces == 2
    assert caplog.text.count("does not fit in memory") == 1


def test_one_record_too_big_for_memory_is_refused(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(training, "summed_loss", full)
    with pytest.raises(InputError, match="1 records of up to .* do not fit in memory. Use more accumulation"):
        trainer_for("sft", tmp_path).train()


BATCHES_OF_ALL_LENGTHS = """
import palimpsest, random, torch
torch.set_num_threads(1)
resident = lambda: next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmRSS"))
weights = [torch.nn.Parameter(torch.randn(out, into)) for out, into in ((512, 256), (256, 512), (384, 256), (256, 384))]
random.seed(0)
for step in range(200):
    states = torch.randn(random.randint(100, 900), 256)
    with torch.autocast("cpu", torch.bfloat16):
        for weight in weights:
            states = torch.nn.functional.linear(states, weight)
    states.float().mean().backward()
    if step in (99, 199):
        print(resident())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the resident set is read from Linux's /proc")
def test_memory_does_not_grow_with_every_new_length_of_a_batch():
    found = subprocess.run(
        [sys.executable, "-c", BATCHES_OF_ALL_LENGTHS], capture_output=True, text=True, check=True
    ).stdout.split()
    early, late = map(float, found)
    assert late - early < 60  # MB; each of the hundred steps between them left about three
