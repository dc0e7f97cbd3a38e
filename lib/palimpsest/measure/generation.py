"""Continue prompts, token ids, in batches: greedy, beam search or sampled, nothing else switched on.

One rule ends every text: it is cut after its first end token, which is kept because it belongs to the response. That is
the tokenizer's end-of-text unless others are named (`ends.end_tokens` knows them). Padding is never looked for: end-of-text is often the padding token too.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from palimpsest.errors import InputError
from palimpsest.measure.forward import plain_model
from palimpsest.measure.memory import free_memory, run_batches
from palimpsest.measure.models import context_length, switch_length

STEP = 8  # prompts whose limits differ by less than this many tokens may share a batch


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    max_new_tokens: int | Sequence[int],
    *,
    num_beams: int = 1,
    do_sample: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
    token_budget: int | None = None,
    ends: Collection[int] | None = None,
) -> list[list[int]]:
    """Write one text per prompt: with the most likely token at every step, by beam search, or sampled from the whole vocabulary.

    The settings a checkpoint brings along (top-k, repetition penalty, no-repeat n-grams ...) are left out on purpose:
    they forbid the very repetition of training text that is to be measured. Beam search ranks by log-probability
    divided by length; prompts with different limits are searched to the largest limit of their batch, then cut. Sampling
    is repeatable for the same seed, prompts, `token_budget` and device, as long as memory suffices.

    Args:
        prompts: token ids, each at least one token long; they are fed as they are, nothing is prepended.
        max_new_tokens: the longest continuation, one number for all prompts or one for each.
        token_budget: most tokens (rows x (prompt + continuation), padding included) held in one batch; None: what fits in
            half of the free memory. Halved when memory runs out.
        ends: tokens that end a text; None: the tokenizer's end-of-text.

    Returns:
        One list of new token ids per prompt, in the given order, cut after the first end token (kept).

    Raises:
        InputError: an empty prompt, a limit below 1, a prompt that with its limit overruns the model's context or alone does
            not fit in memory, settings that exclude each other.
    """
    if num_beams < 1 or temperature <= 0 or (do_sample and num_beams > 1):
        raise InputError(
            f"Decoding with num_beams={num_beams}, do_sample={do_sample}, temperature={temperature} is not defined: "
            "give num_beams >= 1, temperature > 0, and either beams or sampling, not both."
        )
    if not prompts:
        return []
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    _check(prompts, limits, context_length(model))
    if num_beams > 1:
        write = partial(_beam_search, beams=num_beams)
    elif do_sample:
        write = partial(_token_by_token, pick=lambda logits: (logits / temperature).softmax(-1).multinomial(1)[:, 0])
    else:
        write = partial(_token_by_token, pick=lambda logits: logits.argmax(-1))
    budget = (token_budget or _fitting_budget(model)) // num_beams  # every beam holds a copy of its prompt
    out: list[list[int]] = [[] for _ in prompts]
    stops = {tokenizer.eos_token_id} - {None} if ends is None else set(ends)

    def run(rows: list[int]) -> list[list[int]]:
        return write(model, [prompts[i] for i in rows], [limits[i] for i in rows], ends=stops)

    totals = [len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True)]
    names = [f"prompt {i} with its continuation" for i in range(len(prompts))]
    alike = _alike(prompts, limits, switch_length(model))
    batches = [rows for group in alike for rows in _batches(prompts, limits, budget, context_length(model), group)]
    with (
        torch.random.fork_rng([model.device] if model.device.type == "cuda" else [], enabled=do_sample),
        decoding(model),
    ):
        if do_sample:
            torch.manual_seed(seed)
        for rows, texts in run_batches(batches, run, totals, names):
            for i, text in zip(rows, texts, strict=True):
                out[i] = text
    return out


@contextmanager
def decoding(model) -> Iterator[None]:
    """Evaluation mode, and no outputs of a mixture's router: their loss can't be computed token by token."""
    config, training = model.config.get_text_config(), model.training
    routed = getattr(config, "output_router_logits", None)
    model.eval()
    try:
        if routed:
            config.output_router_logits = False
        yield
    finally:
        model.train(training)
        if routed:
            config.output_router_logits = routed


def until_end(tokens: list[int], ends: Collection[int]) -> list[int]:
    """The tokens up to the first end token, that one included; all of them if there is none."""
    return next((tokens[: i + 1] for i, token in enumerate(tokens) if token in ends), tokens)


@torch.no_grad()
def _token_by_token(model, prompts, limits: list[int], *, ends: set[int], pick: Callable) -> list[list[int]]:
    """One batch, one token a step, chosen by `pick` from fp32 logits `[rows, vocabulary]`.

    A row that has ended or reached its limit leaves the batch, its part of the key-value cache too. A fifth faster
    than `generate` with greedy decoding on a CPU, which goes on with all rows until the last has ended.
    """
    ids, mask = _pad_left(prompts, model.device)
    places = (mask.cumsum(-1) - 1).clamp(min=0)  # positions count real tokens, whatever the padding
    accepted = inspect.signature(type(plain_model(model)).forward).parameters
    extra = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
    rows, texts, cache = list(range(len(prompts))), [[] for _ in prompts], None
    switch = switch_length(model)
    while True:
        if switch and ids.shape[1] == switch + 1:
            cache = None  # made of positions that are now read otherwise
        fed = ids.shape[1] if cache is None else 1  # a model without such a cache reads all of the text again
        position = {"position_ids": places[:, -fed:]} if "position_ids" in accepted else {}
        past = {"past_key_values": cache} if cache is not None else {}
        seen = model(input_ids=ids[:, -fed:], attention_mask=mask, use_cache=True, **position, **past, **extra)
        cache, token = getattr(seen, "past_key_values", None), pick(seen.logits[:, -1].float())
        for row, new in zip(rows, token.tolist(), strict=True):
            texts[row].append(new)
        going = [i for i, row in enumerate(rows) if texts[row][-1] not in ends and len(texts[row]) < limits[row]]
        if not going:
            return texts
        if len(going) < len(rows):
            kept = torch.tensor(going, device=ids.device)
            rows = [rows[i] for i in going]
            ids, mask, places, token = ids[kept], mask[kept], places[kept], token[kept]
            if cache is not None:
                cache.batch_select_indices(kept)
        ids, mask = torch.cat([ids, token[:, None]], 1), torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        places = torch.cat([places, places[:, -1:] + 1], 1)


def _beam_search(model, prompts, limits: list[int], *, ends: set[int], beams: int) -> list[list[int]]:
    """One batch by the library's beam search, with nothing but the number of beams set.

    `generate` fills in the checkpoint's own settings wherever ours are unset, so they are put aside meanwhile.
    """
    ids, mask = _pad_left(prompts, model.device)
    stops, pad = sorted(ends) or None, min(ends, default=0)
    config = GenerationConfig(max_new_tokens=max(limits), num_beams=beams, eos_token_id=stops, pad_token_id=pad)
    own = model.generation_config
    try:
        model.generation_config = GenerationConfig()
        with torch.no_grad():
            new = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, ids.shape[1] :]
    finally:
        model.generation_config = own
    return [until_end(tokens[:limit], ends) for tokens, limit in zip(new.tolist(), limits, strict=True)]


def _fitting_budget(model) -> int:
    """Tokens per batch that fit in half of the free memory, with their keys and values; larger batches than that gain nothing
    (8,192 on a CPU, where they only leave its caches)."""
    config = model.config.get_text_config()
    layers = getattr(config, "num_hidden_layers", 0)  # keys and values, and a copy of them while one token is added
    each = (40 + 4 * layers) * config.hidden_size * model.dtype.itemsize
    most = 32_768 if model.device.type == "cuda" else 8_192
    return int(min(most, max(256, free_memory(model.device) // 2 // each)))


def _check(prompts: Sequence[list[int]], limits: list[int], context: int) -> None:
    if len(limits) != len(prompts):
        raise InputError(
            f"{len(limits)} values of max_new_tokens for {len(prompts)} prompts: give one number or one each."
        )
    for i, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        if not prompt or limit < 1:
            raise InputError(
                f"Prompt {i} has {len(prompt)} tokens and max_new_tokens {limit}; to decode, both must be at least 1."
            )
        if len(prompt) + limit > context:
            raise InputError(
                f"Prompt {i} has {len(prompt)} tokens; with max_new_tokens {limit} it passes the model's context of "
                f"{context} tokens. Shorten the prompt or lower max_new_tokens."
            )


def _alike(prompts, limits: list[int], switch: int | None) -> list[list[int]]:
    """Rows that may share a batch: on one side of `switch_length` all the time, or crossing it in the same step."""
    groups: dict[int, list[int]] = {}
    for i, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        crossing = switch and len(prompt) <= switch < len(prompt) + limit - 1
        side = -1 if switch and len(prompt) > switch else 0
        groups.setdefault(len(prompt) if crossing else side, []).append(i)
    return list(groups.values())


def _batches(prompts, limits: list[int], token_budget: int, context: int, among: list[int]) -> Iterator[list[int]]:
    """All rows of a batch run equally many steps from equally long (padded) prompts, so like goes with like.

    A batch grows until its padded size passes the budget, or until its longest prompt could not be followed by its
    largest limit without leaving the context (with learned positions that would be an index error).
    """
    order = sorted(among, key=lambda i: (-(-limits[i] // STEP), len(prompts[i])), reverse=True)
    rows: list[int] = []
    longest = steps = 0
    for i in order:
        length, step = max(longest, len(prompts[i])), max(steps, limits[i])
        full = (len(rows) + 1) * (length + step) > token_budget or length + step > context
        if rows and full:
            yield rows
            rows, length, step = [], len(prompts[i]), limits[i]
        rows.append(i)
        longest, steps = length, step
    if rows:
        yield rows


def _pad_left(prompts: list[list[int]], device) -> tuple[torch.Tensor, torch.Tensor]:
    """`input_ids` and `attention_mask` of shape `[rows, longest]`; padding is never attended to, so any id does."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask
