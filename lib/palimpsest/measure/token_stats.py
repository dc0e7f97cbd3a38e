"""What a row of logits says about the true token: its log-probability, its rank, the shape of the distribution around it."""

from collections.abc import Mapping

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from palimpsest.errors import InputError

TILE = 1 << 19  # logits worked on at once on a CPU: 2 MB of fp32 stay in its cache, twice as fast as whole rows
FLOOR = -1e4  # stands for -inf once the largest logit is taken off: exp gives 0 for both, but 0 x -inf would be NaN


Sampling = dict[str, LogitsProcessorList]


def sampling_steps(settings: Mapping[str, Mapping[str, float]]) -> Sampling:
    """Ways to sample text, by name, as the transformers objects that turn logits into theirs.

    A setting has some of `temperature` (default 1), `top_k` (0: all) and `top_p` (1: all), applied in this order.

    Raises:
        InputError: an unknown or impossible value.
    """
    steps = {}
    for name, given in settings.items():
        setting = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
        setting |= {key: value for key, value in given.items() if value is not None}
        temperature, top_k, top_p = setting["temperature"], setting["top_k"], setting["top_p"]
        if len(setting) > 3 or not (temperature > 0 and top_k >= 0 and top_k == int(top_k) and 0 < top_p <= 1):
            raise InputError(
                f"sampling setting {name!r} is {dict(given)}; wanted only temperature > 0, a whole top_k >= 0 and"
                " 0 < top_p <= 1. Greedy decoding needs no setting: `hit` is its answer."
            )
        steps[name] = LogitsProcessorList()
        if temperature != 1:
            steps[name].append(TemperatureLogitsWarper(float(temperature)))
        if top_k:
            steps[name].append(TopKLogitsWarper(int(top_k)))
        if top_p < 1:
            steps[name].append(TopPLogitsWarper(float(top_p)))
    return steps


def signals(logits: torch.Tensor, target: torch.Tensor, sampling: Sampling | None = None) -> dict[str, torch.Tensor]:
    """The score table's list columns, each `[tokens]`, for `logits` `[tokens, vocabulary]` and true tokens `target` `[tokens]`.

    Computed in fp32. `logprob`, `mean_logprob`, `std_logprob` are in nats, `margin` in logits. Equal logits are resolved as
    greedy decoding does, the lower token id winning, so that `hit` is the same as `rank == 0`. NaN logits give NaN.
    """
    rows = max(1, TILE // logits.shape[1]) if logits.device.type == "cpu" else max(1, len(logits))
    tiles = [
        _tile(logits[start : start + rows].float(), target[start : start + rows], sampling or {})
        for start in range(0, max(1, len(logits)), rows)
    ]
    return {name: torch.cat([tile[name] for tile in tiles]) for name in tiles[0]}


def _tile(logits: torch.Tensor, target: torch.Tensor, sampling: Sampling) -> dict[str, torch.Tensor]:
    true = logits.gather(1, target[:, None])
    top, second, first_choice = _top_two(logits)
    hit = first_choice == target[:, None]
    weight = torch.empty_like(logits)
    torch.gt(logits, true, out=weight)  # as floats: summed five times faster than bools, and exact up to 2^24
    above = weight.sum(-1, keepdim=True)
    shifted = (logits - top).clamp_(min=FLOOR)
    torch.exp(shifted, out=weight)
    total = weight.sum(-1, keepdim=True)
    log_total = total.log()
    mean = torch.mul(shifted, weight).sum(-1, keepdim=True) / total
    # Squared deviations, not E[x^2] - E[x]^2: that difference would lose the digits which Min-K%++ divides by.
    variance = shifted.sub_(mean).square_().mul_(weight).sum(-1, keepdim=True) / total
    columns = {
        "token": target[:, None].int(),
        "logprob": true - top - log_total,
        "hit": hit,
        "rank": torch.where(hit, 0, above.clamp(min=1)).int(),
        "margin": top - second,
        "mean_logprob": mean - log_total,
        "std_logprob": variance.sqrt(),
    }
    for name, steps in sampling.items():
        kept = steps(None, logits.clone()).log_softmax(-1)
        columns[f"logprob_{name}"] = kept.gather(1, target[:, None])
    return {name: value.squeeze(1) for name, value in columns.items()}


def _top_two(logits: torch.Tensor, block: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Largest and second largest value of each row and the first place of the largest, each `[rows, 1]`.

    From the maxima of blocks: exact, and five times faster on a CPU than `topk(2)`.
    """
    width = logits.shape[1]
    full = width // block * block
    maxima = logits[:, :full].unflatten(1, (-1, block)).amax(-1)
    if full < width:
        maxima = torch.cat([maxima, logits[:, full:].amax(-1, keepdim=True)], 1)
    best = maxima.argmax(-1, keepdim=True)
    columns = best * block + torch.arange(block, device=logits.device)
    inside = logits.gather(1, columns.clamp(max=width - 1)).masked_fill_(columns >= width, -torch.inf)
    place = inside.argmax(-1, keepdim=True)
    top = inside.gather(1, place)
    inside.scatter_(1, place, -torch.inf)
    maxima.scatter_(1, best, -torch.inf)
    second = torch.maximum(inside.amax(-1, keepdim=True), maxima.amax(-1, keepdim=True))
    return top, second, best * block + place
