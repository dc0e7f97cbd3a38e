"""A model card for the teacher and every student: the README.md of a model's folder, in the form that the Hugging Face hub reads.

What stands in it comes from `run.json` of the model and from the run's tables; a card holds no text of the data. A model whose
weights are gone has its card as long as its facts are there.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from palimpsest.book.card_memorization import (
    GROUPS,
    ONCE,
    TARGETS,
    WHEN,
    memorization_section,
    own_rows,
    short,
)
from palimpsest.chapters.attacks import ATTACKS
from palimpsest.chapters.training import show_facts
from palimpsest.data.markup import markdown_table
from palimpsest.study import METHODS, Arm, Run, load_tables
from palimpsest.study.files import is_local, public_name, whole
from palimpsest.study.methods import OBJECTIVES, TEXTS, mitigation
from palimpsest.study.tables import Tables


def write_model_cards(run: Run) -> list[Path]:
    """Write the cards of the run and its other replicates, and return their paths.

    Raises:
        InputError: the tables are not finished.
    """
    tables, paths = load_tables(run), []
    for part in run.replicates():
        for arm in part.study.everyone():
            if arm.role != "base" and part.finished(f"models/{arm.name}"):
                path = part.model(arm.name) / "README.md"
                with whole(path) as draft:
                    draft.write_text(str(model_card(part, arm, tables)) + "\n", encoding="utf-8")
                paths.append(path)
    return paths


def model_card(run: Run, arm: Arm, tables: Tables) -> ModelCard:
    """The card of one fine-tuned model.

    Args:
        run: the replicate that the model belongs to.
        tables: those of the whole run. Some measurements were made of its first replicate alone, and the card says so.
    """
    facts = run.require(f"models/{arm.name}")
    parts = [
        f"# {arm.label} (`{arm.name}`)",
        _opening(run, arm),
        "## How it was trained",
        _training(run, arm, facts),
        "## Quality",
        _quality(own_rows(tables.trajectories, run, arm), own_rows(tables.stopped, run, arm)),
        "## Memorization",
        *memorization_section(run, arm, tables),
        "## Where it comes from",
        _origin(run, arm, facts),
    ]
    about = _about(run, arm, tables).to_yaml()
    return ModelCard(f"---\n{about}\n---\n\n" + "\n\n".join(part for part in parts if part))


def _about(run: Run, arm: Arm, tables: Tables) -> ModelCardData:
    """The part that machines read; a base or a data set is named where it is one of the hub."""
    study, start, rates = run.study, run.study.start(arm.size), own_rows(tables.rates, run, arm)
    made_here = study.synthetic and not study.models.teacher.path and not start.path
    found = [
        ("verbatim_memorization", f"{TARGETS[row.target]}, {ONCE[row.split]}, greedy", row.rate)
        for row in rates[rates["target"].isin(["window", "secret"])].itertuples()
    ]
    attacks = own_rows(tables.membership, run, arm)
    found += [
        ("membership_inference_auc", f"AUC, {ATTACKS[row.attack]}", row.rate)
        for row in attacks[attacks["measure"] == "AUC"].itertuples()
    ]
    end = own_rows(tables.trajectories, run, arm).iloc[-1]
    found.append(("validation_loss", "nats per response token", end["validation_loss"]))
    results = [
        EvalResult("text-generation", study.name, study.title, kind, round(float(value), 4), metric_name=name)
        for kind, name, value in found
        if pd.notna(value)
    ]
    return ModelCardData(
        model_name=f"{study.name}-{arm.name}",
        library_name="transformers",
        pipeline_tag="text-generation",
        license="mit" if made_here else "unknown",
        language="en" if study.synthetic else None,
        base_model=start.path if _of_hub(start.path) else None,
        datasets=study.data.source.split(":")[0].split("@")[0] if _of_hub(study.data.source) else None,
        tags=["memorization", "privacy", arm.role, arm.method],
        eval_results=results,
    )


def _opening(run: Run, arm: Arm) -> str:
    study, rule = run.study, METHODS[arm.method]
    who = "The teacher" if arm.role == "teacher" else f"The {arm.size} student"
    nature = "The data is invented; nobody's secrets are in it." if study.synthetic else (
        "**It was trained on private text and can give some of it away: treat it as you treat that text.**"
    )  # fmt: skip
    return (
        f"{who} of the study *{study.title}*, trained by *{rule.label}*: it reads {TEXTS[rule.text]}, and minimizes "
        f"{OBJECTIVES[rule.objective]}. {nature} It was made to measure memorization and is meant for nothing else."
    )


def _training(run: Run, arm: Arm, facts: dict[str, Any]) -> str:
    study, rule, data = run.study, METHODS[arm.method], run.require("data")
    settings = study.teacher if arm.role == "teacher" else study.training(arm.size, arm.method)
    start = study.start(arm.size)
    base = "cut from the teacher's base" if start.keep else "from scratch, on public text"
    halves = [half for half in ("member", "teacher_only") if half in data["splits"]]
    read = halves if arm.role == "teacher" else halves[:1]
    rows = {
        "data": _named(study.data.source, study.data.revision),
        "base": _named(start.path, start.revision) if start.path else base,
        "teacher": f"`teacher`, {study.title}" if rule.distilled else "",
        "records it may have read": ", ".join(f"{data['splits'][half]} {GROUPS[half]}" for half in read),
        "batch": str(settings.batch_size),
        "seed": str(study.seed(arm.seed)),
        "replicate": str(study.replicate),
        "cross-entropy share": f"{rule.cross_entropy_weight:g}" if rule.needs_teacher else "",
        "adapters": f"LoRA, rank {settings.lora.rank}, merged" if settings.lora else "",
    }
    if found := facts.get("privacy"):
        rows["guarantee"] = f"DP-SGD, epsilon {found['epsilon']:.2f} at delta {found['delta']:.2g}, for one record"
    shown = show_facts({name: value for name, value in facts.items() if name not in ("commit", "devices")})
    rows |= shown.iloc[:-1, 0].astype(str).to_dict()  # the last are versions, which stand below
    note = mitigation(rule, settings)
    return markdown_table(["what", "value"], [row for row in rows.items() if row[1]]) + (f"\n\n{note}" if note else "")


def _quality(path: pd.DataFrame, best: pd.DataFrame) -> str:
    columns = {
        "validation_loss": "loss, nats per token",
        "validation_loss_calibrated": "calibrated",
        "rouge_l": "ROUGE-L",
    }
    rows = [
        [f"{WHEN[when]} (epoch {row['epoch']:g})", *(short(row[name]) for name in columns)]
        for when, row in (("best", best.iloc[0]), ("end", path.iloc[-1]))
    ]
    return "On validation records. The weights are those of the end of training.\n\n" + markdown_table(["when", *columns.values()], rows)  # fmt: skip


def _origin(run: Run, arm: Arm, facts: dict[str, Any]) -> str:
    there = any(run.model(arm.name).glob("*.safetensors"))
    packages = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items() if version)
    lines = [
        f"Made by `make book STUDY=studies/{run.study.name}.yaml`, commit `{facts.get('commit', 'unknown')}`, fingerprint "
        f"`{facts['fingerprint']}`, Python {facts.get('python', 'unknown')}.",
        f"Packages: {packages or 'unknown'}.",
        "" if there else "**The weights are no longer in this folder.**",
        "This card is written from the run's tables; its numbers are found there.",
    ]
    return "\n\n".join(line for line in lines if line)


def _named(path: str, revision: str | None) -> str:
    return f"`{public_name(path)}`" + (f", revision {revision}" if revision else "")


def _of_hub(path: str | None) -> bool:
    return bool(path) and not is_local(path) and not path.startswith("package:")
