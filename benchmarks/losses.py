"""Our divergence on hidden states against TRL's (`DistillationTrainer`'s chunked one): the same numbers, and what each takes.

`python benchmarks/losses.py [--rounds 7]` prints, per objective, the largest difference of loss and gradients, and the ratio of
the times of forward and backward pass, taken in turn: minimum, median and maximum over rounds.
"""

import argparse
import statistics
import time

import torch
from trl.trainer.distillation_trainer import _chunked_divergence_loss

from palimpsest.train.losses import Divergence, Teacher, summed_loss

BETAS = {"forward_kl": 0.0, "reverse_kl": 1.0, "jensen_shannon": 0.5}
POSITIONS, LABELLED, WIDTH, TEACHER_WIDTH, VOCABULARY = 400, 200, 256, 768, 50_257


def inputs():
    draw = torch.Generator().manual_seed(0)
    states, weight = torch.randn(POSITIONS, WIDTH, generator=draw), torch.randn(VOCABULARY, WIDTH, generator=draw) / 16
    teacher = torch.randn(POSITIONS, TEACHER_WIDTH, generator=draw)
    head = torch.randn(VOCABULARY, TEACHER_WIDTH, generator=draw) / 28
    return states.requires_grad_(), weight.requires_grad_(), teacher, head, torch.arange(POSITIONS) >= LABELLED


def ours(objective, states, weight, teacher, head, mask):
    labels = torch.zeros(int(mask.sum()), dtype=torch.long)
    return summed_loss(Divergence(objective), states[mask], weight, None, labels, Teacher(teacher[mask], head))


def theirs(objective, states, weight, teacher, head, mask):
    one = (t[None] for t in (states, teacher))
    return _chunked_divergence_loss(*one, weight, head, mask[None], BETAS[objective], num_items_in_batch=1)[0]


def step(loss, objective, tensors):
    began = time.process_time()
    value = loss(objective, *tensors)
    value.backward()
    seconds = time.process_time() - began
    grads = [t.grad.clone() for t in tensors[:2]]
    for t in tensors[:2]:
        t.grad = None
    return seconds, value.item(), grads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds, tensors = parser.parse_args().rounds, inputs()
    for objective in BETAS:
        ratios = []
        for _ in range(rounds):
            (a, loss, grads), (b, other, others) = (step(f, objective, tensors) for f in (ours, theirs))
            ratios.append(b / a)
        apart = max((x - y).abs().max().item() for x, y in zip(grads, others, strict=True))
        spread = f"{min(ratios):.2f}, {statistics.median(ratios):.2f}, {max(ratios):.2f}"
        print(f"{objective}: loss {loss:.3f} and {other:.3f}, gradients {apart:.1e} apart; theirs / ours {spread}")


if __name__ == "__main__":
    main()
