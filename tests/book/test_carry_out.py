"""Replicates, tuning and shadow models, each in a folder of its own."""

import pandas as pd
from tiny import tiny

from palimpsest.book.carry_out import carry_out
from palimpsest.data.splits import load_records


def test_parts_are_carried_out_each_in_a_folder_of_its_own(tmp_path):
    more = "replicates: 2\ntuning: {learning_rates: [1.0e-3, 2.0e-3]}\n"
    more += "shadows: {models: 6, size: small, methods: [sft], members: 6, non_members: 12}\n"
    run = tiny(tmp_path, "sft, fkl", more)
    for part in ("replicate1", "tuning", "shadow0", "shadow5"):
        for what in ("teacher", "small"):
            carry_out(run, part, what)
    there = {p.parent.relative_to(run.path).as_posix() for p in run.path.glob("*/models/*/run.json")}
    bases = {f"{part}/models/{m}" for part in run.parts() for m in ("base-teacher", "base-small", "teacher")}
    tried = {f"tuning/models/small-{m}-s0-lr{r}" for m in ("sft", "fkl") for r in ("0.001", "0.002")}
    shadows = {f"shadow{i}/models/small-sft-s0" for i in (0, 5)}
    assert there - bases == {f"replicate1/models/small-{m}-s0" for m in ("sft", "fkl")} | tried | shadows
    one, two = (load_records(run.parts()[name]) for name in ("replicate1", "tuning"))
    assert not set(one.query("split != 'public'")["id"]) & set(two.query("split != 'public'")["id"])
    pools = [set(load_records(run.parts()[f"shadow{i}"]).query("split != 'public'")["id"]) for i in (0, 5)]
    assert pools[0] == pools[1]  # one pool, dealt differently
    quality = pd.read_csv(run.path / "tuning/models/small-fkl-s0-lr0.001/trajectory.csv")
    assert quality["validation_loss"].notna().all() and quality["auc"].isna().all()
    assert not (run.path / "tuning/scores/small-fkl-s0").exists()
