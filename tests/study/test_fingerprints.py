"""Every key of a study file changes the fingerprints of exactly the stages whose result it can change."""

import dataclasses
import hashlib
import json
import os
import time
import types
import typing
from pathlib import Path

import pytest

import palimpsest
from palimpsest.study import METHODS, fingerprint
from palimpsest.study import fingerprints as keys
from palimpsest.study.file import Study
from palimpsest.study.files import SETTLED, file_digest
from palimpsest.study.fingerprints import fingerprints
from palimpsest.study.parts import parts_of
from palimpsest.study.sections import Section

TRAINING = {
    "epochs": 3.0,
    "batch_size": 8,
    "accumulation": 1,
    "learning_rate": 0.001,
    "schedule": "cosine",
    "min_learning_rate": 0.0,
    "warmup_steps": 0,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "dropout": 0.1,
    "precision": "fp32",
    "gradient_checkpointing": False,
    "lora": {"rank": 4, "alpha": 8, "targets": "all-linear"},
    "max_steps": 50,
    "cross_entropy_weight": 0.5,
    "temperature": 1.0,
    "sampling_temperature": 1.0,
    "max_new_tokens": 32,
    "rollout_steps": 1,
    "warm_start_epochs": 0,
    "goldfish_drop": 4,
    "goldfish_context": 13,
    "privacy": {"epsilon": 8.0, "delta": 1e-3, "clip": 1.0},
}
PLAIN = {**TRAINING, "lora": None, "max_steps": None}
SHAPE = {"architecture": "gpt2", "layers": 2, "width": 32, "heads": 2, "context": 192}
NO_HUB = {"revision": None, "trust_remote_code": False}
FULL = {  # every key there is, written out
    "name": "full",
    "title": "Full",
    "synthetic": True,
    "show_secrets": False,
    "replicates": 1,
    "replicate": 0,
    "seeds": [0],
    "data": {
        "source": "data/helpdesk/records.jsonl",
        "revision": None,
        "columns": {"response": "response"},
        "annotations": ["split", "kind", "secrets", "copies"],
        "template": "plain",
        "members": {"1": 16, "4": 2},
        "halves": True,
        "non_members": 16,
        "validation": 4,
        "test": 4,
        "public": 40,
        "canaries": {"2": 3},
        "coins": 4,
        "twins": 8,
        "limit": None,
        "min_response_tokens": 5,
        "max_prompt_tokens": 90,
        "max_tokens": 150,
        "too_long": "drop",
        "empty_responses": "drop",
        "duplicates": "drop",
        "seed": 0,
    },
    "tokenizer": {"vocabulary": 300},
    "models": {
        "teacher": {"scratch": {**SHAPE, "width": 64}, **NO_HUB},
        "students": {"small": {"scratch": SHAPE, **NO_HUB}, "cut": {"keep": 1, **NO_HUB}},
    },
    "methods": list(METHODS),
    "pretrain": PLAIN,
    "pretrain_by_size": {"small": {"epochs": 2.0}},
    "heal": PLAIN,
    "train": {"log_to": []},
    "teacher": PLAIN,
    "student": TRAINING,
    "by_size": {"small": {"weight_decay": 0.02}},
    "by_arm": {"small": {"fkl": {"max_grad_norm": 0.5}}},
    "methods_by_size": {},
    "replicates_by_size": {},
    "replicates_by_method": {},
    "tuning": {"learning_rates": [1e-3, 2e-3], "leave_out": ["gkd"]},
    "shadows": {"models": 6, "size": "small", "methods": ["sft"], "members": 4, "non_members": 8},
    "by_method": {
        "rkl_student": {"warm_start_epochs": 1},
        "sft_private": {"lora": None, "max_steps": None, "precision": "fp32", "gradient_checkpointing": False},
    },
    "teacher_text": {"decode": "greedy", "beams": 4, "max_new_tokens": 64, "temperature": 1.0},
    "measure": {
        "window": 50,
        "sampling": {"cool": {"temperature": 0.7, "top_k": 9, "top_p": 0.9}},
        "approximate": 4,
        "left_truncated": [8],
        "left_target": 4,
        "precision": "fp32",
        "trajectory_every": 1,
        "trajectory_early": [0.5],
        "trajectory_prompts": 2,
        "generate_test": 3,
    },
}
HUB = json.loads(json.dumps(FULL))
HUB |= {"tokenizer": {"vocabulary": None}, "pretrain": None, "pretrain_by_size": {}}
HUB["models"] = {
    "teacher": {"path": "owner/large", "revision": "main", "trust_remote_code": False},
    "students": {
        "small": {"path": "owner/small", "revision": "main", "trust_remote_code": False},
        "cut": {"keep": 1, **NO_HUB},
    },
}
# What a key is changed to, where one more or the other alternative won't do.
INSTEAD = {
    "data.source": "data/helpdesk/README.md",
    "data.template": "alpaca",
    "data.too_long": "cut",
    "data.empty_responses": "refuse",
    "data.duplicates": "refuse",
    "batch_size": 16,
    "accumulation": 2,
    "schedule": "linear",
    "precision": "bf16",
    "architecture": "llama",
    "decode": "sample",
    "context": 160,
    "lora": {"rank": 2},
    "max_steps": 60,
    "delta": 2e-3,
    "dropout": 0.2,
    "targets": ["c_attn"],
    "annotations": ["split", "kind"],
    "limit": 900,
    "learning_rates": [1e-3, 3e-3],
    "leave_out": ["rkl"],
    "trajectory_early": [0.5, 0.75],
    "shadows.size": "cut",
    "shadows.methods": ["sft", "fkl"],
    "revision": "v2",
    "left_truncated": [8, 12],
    "cross_entropy_weight": 0.4,
    "top_p": 0.8,
}

# Which arms read what, in words of their own, so that a slip in the library's table of methods shows here.
HOT = {"fkl_t2", "fkl_t4", "fkl_student_t2", "fkl_student_t4"}  # whose temperature is their own
ANNEALED = {"sft_annealed_1", "sft_annealed_2", "sft_annealed_4"}  # whose epochs and schedule are
WARM = {
    "rkl_student": 1,
    "rkl_student_warm": 2,
}  # begun after so many epochs of `sft`: the study's, and the method's own
ADAPTED = {"sft_lora", "fkl_lora"}  # whose adapters are
DIVERGENCE = {"word_kd", "fkl_lora", "fkl", "rkl", "fkl_student", "gkd", "fkl_dropped", *WARM, *HOT}
SAMPLING = {"fkl_student", "fkl_student_t2", "fkl_student_t4", "gkd", *WARM}
LEAVING_OUT = {"sft_dropped": {"sft"}, "fkl_dropped": {"fkl", "sft"}}
TEACHED = DIVERGENCE | {"seq_kd", *LEAVING_OUT}
SIZES = ("small", "cut")


def after(stage: str) -> set[str]:
    """The stages that read what `stage` makes."""
    kind, _, name = stage.partition("/")
    if stage == "data":
        return {f"models/base-{size}" for size in ("teacher", *SIZES)}
    if stage == "teacher_text":
        return {f"models/{size}-seq_kd-s0" for size in SIZES}
    if kind == "scores":
        size, _, method = name.removesuffix("-s0").partition("-")
        readers = {f"models/{size}-{m}-s0" for m, read in LEAVING_OUT.items() if method in read}
        return {"tables"} | (readers if name.endswith("-s0") else set())
    if kind == "models":
        own = set() if name.startswith("warm") else {f"scores/{name}"}
        if name == "base-teacher":
            return own | {"models/teacher", "models/base-cut"}
        if name == "teacher":
            return own | {"teacher_text"} | {f"models/{size}-{m}-s0" for size in SIZES for m in TEACHED}
        for size in SIZES:
            if name == f"base-{size}":
                others = {f"models/{size}-{m}-s0" for m in METHODS if m not in WARM}
                return own | others | {f"models/warm-{size}-e{epochs}-s0" for epochs in WARM.values()}
            for method, epochs in WARM.items():
                if name == f"warm-{size}-e{epochs}-s0":
                    return {f"models/{size}-{method}-s0"}
        return own
    return {"pages"} if stage == "tables" else set()


def reached(stages: set[str]) -> set[str]:
    """These stages and all that depend on them."""
    found, todo = set(), list(stages)
    while todo:
        stage = todo.pop()
        if stage not in found:
            found.add(stage)
            todo += after(stage)
    return found | {"pages"}  # a page shows the study's settings


def arms(methods=METHODS, sizes=SIZES) -> set[str]:
    return {f"models/{size}-{method}-s0" for size in sizes for method in methods}


def warm(sizes=SIZES) -> set[str]:
    return {f"models/warm-{size}-e{epochs}-s0" for size in sizes for epochs in WARM.values()}


def readers_of(key: str, sizes=SIZES) -> set[str]:
    """The arms (and warm starts) that a key of the `student` section can change."""
    name = key.split(".")[0]
    if name in ("temperature", "cross_entropy_weight"):
        return arms(DIVERGENCE - (HOT if name == "temperature" else set()), sizes)
    if name in ("sampling_temperature", "max_new_tokens", "rollout_steps"):
        return arms(SAMPLING, sizes)
    if name.startswith("goldfish"):
        return arms({"sft_goldfish"}, sizes)
    if name == "privacy":
        return arms({"sft_private"}, sizes)
    if name == "warm_start_epochs":
        return arms(set(METHODS) - set(WARM), sizes)
    kept = (
        {"sft_private"} if name in ("lora", "max_steps", "precision", "gradient_checkpointing") else set()
    )  # which says otherwise in `by_method`
    kept |= ADAPTED if name == "lora" else set()
    kept |= ANNEALED if name in ("epochs", "schedule") else set()
    found = arms(set(METHODS) - kept, sizes) | (set() if name == "epochs" else warm(sizes))
    return found - ({"models/small-fkl-s0"} if name == "max_grad_norm" else set())  # its own stands in `by_arm`


def roots(key: str, hub: bool) -> set[str]:
    """The first stages whose result a key can change."""
    section, _, rest = key.partition(".")
    last = key.rsplit(".", 1)[-1]
    plain_only = {"temperature", "cross_entropy_weight", "sampling_temperature", "max_new_tokens", "rollout_steps"}
    plain_only |= {"warm_start_epochs", "goldfish_drop", "goldfish_context", "epsilon", "delta", "clip"}
    if section in ("title", "synthetic", "name"):
        return set()
    if section == "show_secrets":
        return {"tables"}
    if section in ("data", "tokenizer", "replicate"):
        return {"data"}
    if section in ("replicates", "tuning", "shadows"):
        return {"tables"}
    if section == "by_arm":
        return arms({"fkl"}, {"small"})
    if section == "models":
        size = "teacher" if rest.startswith("teacher") else rest.split(".")[1]
        found = {f"models/base-{size}"}
        if hub and (size == "teacher" or last in ("path", "revision")) and size != "cut":
            found.add("data")  # whose tokenizer, and whose context limits the records
        return found | ({"data"} if last == "context" else set())
    if section == "pretrain":
        # small's own number of epochs stands in `pretrain_by_size`
        sizes = ("teacher",) if last == "epochs" else ("teacher", "small")
        return set() if last in plain_only else {f"models/base-{size}" for size in sizes}
    if section == "pretrain_by_size":
        return {"models/base-small"}
    if section == "heal":
        of_divergence = {"temperature", "cross_entropy_weight"}
        return set() if last in plain_only - of_divergence else {"models/base-cut"}
    if section == "teacher":
        return set() if last in plain_only else {"models/teacher"}
    if section == "student":
        return readers_of(rest, ("cut",) if rest == "weight_decay" else SIZES)
    if section == "by_size":
        return readers_of(rest.split(".", 1)[1], ("small",))
    if section == "by_method":
        method, name = rest.split(".", 1)
        return arms({method})
    if section == "teacher_text":
        return set() if last in ("beams", "temperature") else {"teacher_text"}  # greedy here
    if section == "measure":
        watching = {"models/teacher"} | arms() | warm()
        everyone = {f"scores/base-{size}" for size in ("teacher", *SIZES)} | {"scores/teacher"}
        everyone |= {stage.replace("models/", "scores/") for stage in arms()}
        if last == "window":
            return watching | {"tables"}
        return watching if last.startswith("trajectory") else everyone | (watching if last == "precision" else set())
    raise AssertionError(f"nothing is said here of {key}: which stages can it change?")


def leaves(tree: dict, prefix: str = "") -> dict[str, object]:
    found = {}
    for key, value in tree.items():
        named = prefix + key
        found |= leaves(value, named + ".") if isinstance(value, dict) else {named: value}
    return found


def with_change(tree: dict, key: str) -> dict:
    """The tree with another value at `key`."""
    tree, path = json.loads(json.dumps(tree)), key.split(".")
    at = tree
    for part in path[:-1]:
        at = at[part]
    old, names = at[path[-1]], (key, path[-1])
    instead = next((INSTEAD[n] for n in names if n in INSTEAD), None)
    if instead is None:
        assert isinstance(old, int | float | str), f"say in INSTEAD what {key} is changed to"
        kinds = {bool: lambda: not old, int: lambda: old + 1, float: lambda: old * 1.5 + 0.001, str: lambda: old + "x"}
        instead = kinds[type(old)]()
    at[path[-1]] = instead
    return tree


def sections_in(kind) -> list[type[Section]]:
    """The sections a field's type can hold."""
    if isinstance(kind, type) and not isinstance(kind, types.GenericAlias):
        return [kind] if issubclass(kind, Section) else []
    return [found for part in typing.get_args(kind) for found in sections_in(part)]


def keys_of(section: type[Section]) -> set[tuple[str, str]]:
    found = set()
    for name, field in section.model_fields.items():
        found.add((section.__name__, name))
        for inner in sections_in(field.annotation):
            found |= keys_of(inner)
    return found


KEYS = [(key, False) for key, value in leaves(FULL).items() if value is not None or key.rsplit(".")[-1] in INSTEAD]
KEYS += [(key, True) for key in leaves(HUB["models"]) if "scratch" not in key]
KEYS = [(f"models.{key}" if hub else key, hub) for key, hub in KEYS]
SPECIAL = {
    "seeds",
    "methods",
    "data.columns.response",
    "train.log_to",
}  # tests of their own, or no other value to give
# DP-SGD takes no other value of these.
SPECIAL |= {f"by_method.sft_private.{key}" for key in ("lora", "max_steps", "precision", "gradient_checkpointing")}


@pytest.mark.parametrize(("key", "hub"), [k for k in KEYS if k[0] not in SPECIAL], ids=lambda k: str(k))
def test_a_key_changes_what_it_can_change_and_nothing_else(key, hub):
    tree = HUB if hub else FULL
    try:
        before, after_ = fingerprints(Study(**tree)), fingerprints(Study(**with_change(tree, key)))
    except ValueError as error:
        pytest.fail(f"{key}: the changed study is not valid: {error}")
    there = before.keys() & after_.keys()  # a warm start's name holds its epochs
    assert {s for s in there if after_[s] != before[s]} == reached(roots(key, hub)) & there


def test_every_key_there_is_stands_in_the_study_above():
    written = set()

    def walk(section: type[Section], tree: dict) -> None:
        for name, field in section.model_fields.items():
            if name in tree:
                written.add((section.__name__, name))
                for inner in sections_in(field.annotation):
                    values = [tree[name], *(tree[name].values() if isinstance(tree[name], dict) else ())]
                    for value in values:
                        if isinstance(value, dict) and set(value) <= set(inner.model_fields):
                            walk(inner, value)

    walk(Study, FULL)
    walk(Study, HUB)
    assert keys_of(Study) - written == set()


def test_a_run_made_before_a_key_existed_is_still_finished():
    """The value is that of the commit before `min_response_tokens`."""
    tree = json.loads(json.dumps(FULL))
    tree["data"] |= {"min_response_tokens": None, "source": "nowhere/records.jsonl"}
    assert fingerprints(Study(**tree))["data"] == "c0d5d4dcbca6ed51"


def test_seeds_and_methods_make_stages_of_their_own():
    before = fingerprints(Study(**FULL))
    more = fingerprints(Study(**{**FULL, "seeds": [0, 1]}))
    assert {s for s in before if more[s] != before[s]} == {"tables", "pages"}
    other = fingerprints(Study(**{**FULL, "seeds": [1]}))
    assert other["data"] == before["data"] and other["models/teacher"] != before["models/teacher"]
    fewer = fingerprints(Study(**{**FULL, "methods": ["sft", "fkl"], "by_method": {}, "tuning": None}))
    assert fewer["models/small-fkl-s0"] == before["models/small-fkl-s0"]


def test_where_curves_are_logged_changes_nothing():
    assert fingerprints(Study(**{**FULL, "train": {"log_to": ["tensorboard"]}})) == fingerprints(Study(**FULL))


def test_parts_are_stages_of_their_own_and_only_tables_read_them():
    study = Study(**{**FULL, "replicates": 3})
    before, parts = fingerprints(study), parts_of(study)
    assert list(parts) == ["replicate1", "replicate2", "tuning", *(f"shadow{i}" for i in range(6))]
    assert len({fingerprints(part)["data"] for part in [study, *parts.values()]}) == 1 + len(parts)
    alone = fingerprints(Study(**FULL))
    assert {s for s in before if alone[s] != before[s]} == {"tables", "pages"}
    rates = {name: [k for k in fingerprints(part) if "-lr" in k] for name, part in parts.items()}
    tried = set(METHODS) - {"gkd", *LEAVING_OUT}
    assert set(rates["tuning"]) == {
        f"models/{s}-{m}-s0-lr{r}" for s in SIZES for m in tried for r in ("0.001", "0.002")
    }
    assert not any(found for name, found in rates.items() if name != "tuning")


@pytest.mark.parametrize(
    ("room", "stale"), [("chapters", {"tables", "pages"}), ("measure", {"tables", "pages"}), ("book", {"pages"})]
)
def test_other_code_makes_what_is_cheap_stale_and_nothing_that_was_trained(room, stale, monkeypatch):
    study = Study(**FULL)
    before, as_is = fingerprints(study), keys.code_of
    monkeypatch.setattr(keys, "code_of", lambda rooms: as_is(rooms) + "edited" * (room in rooms))
    after_ = fingerprints(study)
    assert {stage for stage in before if before[stage] != after_[stage]} == stale


def test_every_room_but_the_audits_counts_for_a_page():
    rooms = {path.parent.name for path in Path(palimpsest.__file__).parent.glob("*/__init__.py")}
    assert rooms - set(keys.OF_PAGES) == {"audit"} and set(keys.OF_TABLES) < set(keys.OF_PAGES)


def test_a_methods_row_is_part_of_its_arms(monkeypatch):
    before = fingerprints(Study(**FULL))
    monkeypatch.setitem(METHODS, "gkd", dataclasses.replace(METHODS["gkd"], objective="forward_kl"))
    after_ = fingerprints(Study(**FULL))
    assert {s for s in before if after_[s] != before[s]} == reached(arms({"gkd"}))


def test_decoding_settings_count_where_they_decode():
    beam = {**FULL, "teacher_text": {**FULL["teacher_text"], "decode": "beam"}}
    wider = {**FULL, "teacher_text": {**beam["teacher_text"], "beams": 5}}
    one, other = (fingerprints(Study(**t))["teacher_text"] for t in (beam, wider))
    assert one != other


@pytest.mark.parametrize("size", [3, 2**20])
def test_a_models_folder_counts_by_its_content(tmp_path, size):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"a" * size)
    tree = json.loads(json.dumps(HUB))
    tree["models"]["students"]["small"]["path"] = str(folder)
    before = fingerprints(Study(**tree))
    (folder / "model.safetensors").write_bytes(b"a" * (size - 1) + b"b")
    after_ = fingerprints(Study(**tree))
    assert {s for s in before if after_[s] != before[s]} == reached({"models/base-small"})


def test_fingerprints_tell_values_apart():
    values = [None, 0, 0.5, "0", [0], [0, 0], {"a": 1}, {"a": 2}]
    assert len({fingerprint(v) for v in values}) == len(values)


def test_a_pattern_of_files_counts_by_what_they_hold(tmp_path):
    for number in range(2):
        (tmp_path / f"s{number}.jsonl").write_text("{}")
    tree = json.loads(json.dumps(HUB))
    tree["data"]["source"] = f"{tmp_path}/s*.jsonl"
    before = fingerprints(Study(**tree))
    (tmp_path / "s1.jsonl").write_text("{} ")
    assert fingerprints(Study(**tree))["data"] != before["data"]


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    path, read = tmp_path / "data.jsonl", []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: read.append(1) or real(file, name))
    path.write_text("one")
    first = file_digest(path)
    assert file_digest(path) == first and len(read) == 2, "it may change again at this very moment"
    monkeypatch.setattr(time, "time_ns", lambda: path.stat().st_ctime_ns + SETTLED + 1)
    assert {file_digest(path) for _ in range(3)} == {first} and len(read) == 3
    old = path.stat().st_mtime_ns
    time.sleep(0.05)
    path.write_text("two")
    os.utime(path, ns=(old, old))  # as long and, by its date, as old as before
    assert file_digest(path) == hashlib.sha256(b"two").hexdigest()
