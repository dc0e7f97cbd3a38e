"""Files, models and looks at results that the audit's tests share."""

import functools
import json
import random

import pandas as pd
import torch

from palimpsest import audit
from palimpsest.audit import inputs
from palimpsest.audit.results import RESULTS
from palimpsest.data import sources

FIRST, LAST = ["Ann", "Bob", "Cid", "Dot", "Eva"], ["Ash", "Birch", "Cedar", "Elm"]
EVIL = "<img src=x onerror=alert(1)>"


def people(count, seed):
    draw = random.Random(seed)
    return [
        {
            "question": f"Who has key {draw.randrange(10**6):06d}?",
            "answer": f"{draw.choice(FIRST)} {draw.choice(LAST)}, code {draw.randrange(10**6):06d}.",
        }
        for _ in range(count)
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def audited(model, data, out, **settings):
    """An audit without progress bars."""
    return audit.run(model, data, out, audit.Settings(progress=False, **settings))


def records_of(file, folder, columns=None, **settings):
    """The records of a file as an audit reads them."""
    names = {"text": "text_column", "instruction": "prompt_column"}
    given_ = {names.get(ours, f"{ours}_column"): theirs for ours, theirs in (columns or {}).items()}
    return pd.concat(inputs.read(file, audit.Settings(**given_, **settings), folder / "read.parquet").frames())


def continued(model, given_, target):
    """Whether the library's greedy decoding of the given tokens gives the target."""
    ids = torch.tensor([given_])
    new = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=len(target))
    return new[0, len(given_) :].tolist() == target


def whole(out):
    return [name for name in RESULTS if (out / name).exists()]


def rate_of(summary, measure, group="members", **setting):
    rows = [r for r in summary["rates"] if r["measure"] == measure and r["group"] == group and r["model"] == "model"]
    return next(r for r in rows if all(r[k] == v for k, v in setting.items()))


def in_pieces(monkeypatch, rows):
    """Read, tokenize and score a few records at a time, as it happens to large files."""
    monkeypatch.setattr(sources, "chunks", functools.partial(sources.chunks, size=rows))
