"""Decode from token prefixes in batches: greedy, beam search or sampled, nothing else switched on.

One rule ends every text: it is cut after its first end-of-text token, which is kept because it belongs to the
response. Padding is never looked for: end-of-text is often the padding token too.
"""

from collections.abc import Iterator, Sequence

import torch
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from palimpsest.errors import InputError
from palimpsest.models import context_length

STEP = 8  # prefixes whose limits differ by less than this many tokens may share a batch


def greedy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prefixes: Sequence[list[int]],
    max_new_tokens: int | Sequence[int],
    *,
    token_budget: int | None = None,
    progress: bool = False,
) -> list[list[int]]:
    """Continue each prefix with the most likely token at every step.

    Args:
        prefixes: token ids, each at least one token long; they are fed as they are, nothing is prepended.
        max_new_tokens: the longest continuation, one number for all prefixes or one for each.
        token_budget: most tokens (rows x (prefix + continuation), padding included) held in one batch; None: 8,192 on a
            CPU, where larger batches only leave its caches, 32,768 on a GPU.
        progress: show a bar over prefixes.

    Returns:
        One list of new token ids per prefix, in the given order, cut after the first end-of-text (kept).

    Raises:
        InputError: an empty prefix, a limit below 1, or a prefix that with its limit overruns the model's context.
    """
    return _decode(model, tokenizer, prefixes, max_new_tokens, {"do_sample": False}, token_budget, progress)


def decode(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int | Sequence[int],
    num_beams: int = 1,
    do_sample: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
    token_budget: int | None = None,
    progress: bool = False,
) -> list[list[int]]:
    """Write one text per prompt: greedy by default, by beam search, or sampled from the whole vocabulary.

    The settings a checkpoint brings along (top-k, repetition penalty, no-repeat n-grams ...) are left out on purpose:
    they forbid the very repetition of training text that is to be measured. Beam search ranks by log-probability
    divided by length. Sampling is repeatable for the same seed, prompts, `token_budget` and device.

    Arguments and errors as in `greedy`; besides, `num_beams` and `do_sample` exclude each other, and the temperature
    must be positive.
    """
    if num_beams < 1 or temperature <= 0 or (do_sample and num_beams > 1):
        raise InputError(
            f"Decoding with num_beams={num_beams}, do_sample={do_sample}, temperature={temperature} is not defined: "
            "give num_beams >= 1, temperature > 0, and either beams or sampling, not both."
        )
    settings = {"do_sample": do_sample, "num_beams": num_beams}
    if do_sample:
        settings |= {"temperature": temperature, "top_k": 0, "top_p": 1.0}  # 0 and 1: the whole vocabulary
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return _decode(model, tokenizer, prompts, max_new_tokens, settings, token_budget, progress)


def until_end(tokens: list[int], end: int | None) -> list[int]:
    """The tokens up to the first end-of-text, that token included; all of them if there is none."""
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def _decode(model, tokenizer, prefixes, max_new_tokens, settings, token_budget, progress) -> list[list[int]]:
    if not prefixes:
        return []
    limits = [max_new_tokens] * len(prefixes) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    _check(prefixes, limits, context_length(model))
    budget = token_budget or (32_768 if model.device.type == "cuda" else 8_192)
    budget //= settings.get("num_beams", 1)  # every beam holds a copy of its prefix
    end = tokenizer.eos_token_id
    pad = next(t for t in (tokenizer.pad_token_id, end, 0) if t is not None)
    # `generate` fills in the checkpoint's own settings wherever ours are unset, so they are put aside while decoding.
    shared = {"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0} | settings
    own, training = model.generation_config, model.training
    out: list[list[int]] = [[] for _ in prefixes]
    bar = tqdm(total=len(prefixes), desc="decode", unit="record", disable=not progress)
    try:
        model.generation_config = GenerationConfig()
        model.eval()
        for rows in _batches(prefixes, limits, budget, context_length(model)):
            steps = max(limits[i] for i in rows)
            ids, mask = _pad_left([prefixes[i] for i in rows], pad, model.device)
            config = GenerationConfig(max_new_tokens=steps, eos_token_id=end, pad_token_id=pad, **shared)
            with torch.no_grad():
                new = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, ids.shape[1] :]
            for i, tokens in zip(rows, new.tolist(), strict=True):
                out[i] = until_end(tokens[: limits[i]], end)
            bar.update(len(rows))
    finally:
        model.generation_config = own
        model.train(training)
        bar.close()
    return out


def _check(prefixes: Sequence[list[int]], limits: list[int], context: int) -> None:
    if len(limits) != len(prefixes):
        raise InputError(
            f"{len(limits)} values of max_new_tokens for {len(prefixes)} prefixes: give one number or one each."
        )
    for i, (prefix, limit) in enumerate(zip(prefixes, limits, strict=True)):
        if not prefix or limit < 1:
            raise InputError(
                f"Prefix {i} has {len(prefix)} tokens and max_new_tokens {limit}; to decode, both must be at least 1."
            )
        if len(prefix) + limit > context:
            raise InputError(
                f"Prefix {i} has {len(prefix)} tokens; with max_new_tokens {limit} it passes the model's context of "
                f"{context} tokens. Shorten the prefix or lower max_new_tokens."
            )


def _batches(prefixes, limits: list[int], token_budget: int, context: int) -> Iterator[list[int]]:
    """All rows of a batch run equally many steps from equally long (padded) prefixes, so like goes with like.

    A batch grows until its padded size passes the budget, or until its longest prefix could not be followed by its
    largest limit without leaving the context (with learned positions that would be an index error).
    """
    order = sorted(range(len(prefixes)), key=lambda i: (-(-limits[i] // STEP), len(prefixes[i])), reverse=True)
    rows: list[int] = []
    longest = steps = 0
    for i in order:
        length, step = max(longest, len(prefixes[i])), max(steps, limits[i])
        full = (len(rows) + 1) * (length + step) > token_budget or length + step > context
        if rows and full:
            yield rows
            rows, length, step = [], len(prefixes[i]), limits[i]
        rows.append(i)
        longest, steps = length, step
    if rows:
        yield rows


def _pad_left(prefixes: list[list[int]], pad: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """`input_ids` and `attention_mask` of shape `[rows, longest]`; `generate` counts positions from the mask."""
    width = max(map(len, prefixes))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prefixes], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prefixes], device=device)
    return ids, mask
