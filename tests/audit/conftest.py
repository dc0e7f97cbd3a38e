"""The models and files that the audit's tests read."""

import pandas as pd
import pytest
import torch
from audits import EVIL, audited, people, write

from palimpsest.audit.inputs import AS_IT_STANDS
from palimpsest.data.encoding import encode
from palimpsest.data.examples import collate
from palimpsest.measure.models import build_model, load_model, load_tokenizer, train_tokenizer
from palimpsest.study.sections import Scratch
from palimpsest.train.fine_tuning import set_dropout


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with a model that knows most members by heart (`tuned`), what it was before (`base`), and both files."""
    folder = tmp_path_factory.mktemp("audit")
    members, others = people(24, 1), people(24, 2)
    members[0]["answer"] += EVIL
    write(folder / "members.jsonl", members)
    write(folder / "others.jsonl", others)
    tokenizer = train_tokenizer([r["question"] + r["answer"] for r in people(200, 3)], 300)
    model = build_model(Scratch(architecture="gpt2", layers=2, width=64, heads=2, context=96), tokenizer, 0)
    set_dropout(model, 0.0)
    for name in ("base", "tuned"):
        tokenizer.save_pretrained(folder / name)
    model.save_pretrained(folder / "base")
    frame = pd.DataFrame(members).rename(columns={"question": "instruction", "answer": "response"}).assign(context="")
    examples = encode(frame.assign(id=[str(i) for i in range(24)]), tokenizer, AS_IT_STANDS)
    batch = collate(examples, 0)
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "position_ids", "labels")}
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=4e-3)
    for _ in range(400):
        loss = model(**inputs).loss
        if loss < 0.25:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder / "tuned")
    return folder


@pytest.fixture(scope="session")
def family_audit(place, tmp_path_factory):
    """A finished audit of a student that lost some of what its teacher knows, with both other models, persons and non-members."""
    student, before = load_model(place / "tuned"), load_model(place / "base").state_dict()
    with torch.no_grad():
        for name, weight in student.named_parameters():
            weight.lerp_(before[name], 0.08)
    student.save_pretrained(place / "student")
    load_tokenizer(place / "tuned").save_pretrained(place / "student")
    members = [{**row, "customer": f"C-{i % 9:05d}"} for i, row in enumerate(people(24, 1))]
    members[0]["answer"] += EVIL
    members.append({**members[2], "customer": "C-00777"})  # a text that two persons share
    members[5]["customer"] = None
    file = write(place / "customers.jsonl", members)
    out = tmp_path_factory.mktemp("family")
    options = {"teacher": place / "tuned", "baseline": place / "base", "reference": place / "base", "window": 8}
    options |= {"group_by": "customer", "sampling": [{"top_k": 5}]}
    return out, audited(place / "student", file, out, non_members=place / "others.jsonl", **options)
