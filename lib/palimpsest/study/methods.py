"""How a student can be trained: each method is a row of data, read by the study file, the trainers and the book.

Directions follow TRL: forward = KL(teacher || student), reverse = KL(student || teacher).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Text = Literal["references", "teacher", "student", "mixed"]
Objective = Literal["cross_entropy", "forward_kl", "reverse_kl", "jensen_shannon"]


@dataclass(frozen=True)
class Method:
    """One way of training a student.

    Attributes:
        text: whose text the student reads: the data's references, a fixed corpus the teacher wrote once, the student's
            own samples, or references and own samples half and half ("mixed").
        objective: what is minimized, averaged over the labelled tokens.
        cross_entropy_weight: share w of the labels' cross-entropy mixed in: w x cross-entropy + (1 - w) x objective.
        label: the name shown in tables and figures.
        once: read every record once an epoch, however often the data repeats it (de-duplication).
        goldfish: leave a fixed, pseudo-random share of the response tokens out of the loss (`data.examples.goldfish`).
        private: train by DP-SGD (`private`).
        settings: training settings that are part of the method; a study's `by_method` may still change them.
        leave_out: a method; records that it is predicted to make a student recite are not read (`stages.left_out`).
    """

    text: Text
    objective: Objective
    cross_entropy_weight: float
    label: str
    once: bool = False
    goldfish: bool = False
    private: bool = False
    leave_out: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher's distribution enters the loss (a fixed corpus of teacher text doesn't count)."""
        return self.objective != "cross_entropy"

    @property
    def distilled(self) -> bool:
        """Whether a teacher has a part in it, by its distribution or by its text."""
        return self.needs_teacher or self.text == "teacher"

    @property
    def samples(self) -> bool:
        """Whether the student generates text while it is trained."""
        return self.text in ("student", "mixed")


METHODS: dict[str, Method] = {
    "sft": Method("references", "cross_entropy", 1.0, "SFT"),
    "word_kd": Method("references", "forward_kl", 0.5, "Word-KD"),
    "fkl": Method("references", "forward_kl", 0.0, "forward KL"),
    "rkl": Method("references", "reverse_kl", 0.0, "reverse KL"),
    "seq_kd": Method("teacher", "cross_entropy", 1.0, "Seq-KD"),
    "fkl_student": Method("student", "forward_kl", 0.0, "forward KL, own text"),
    "rkl_student": Method("student", "reverse_kl", 0.0, "reverse KL, own text (RKLD)"),
    "gkd": Method("mixed", "jensen_shannon", 0.0, "GKD"),
    # Variants: begun from a fine-tuned student, and with flatter or sharper distributions in the divergence.
    "rkl_student_warm": Method(
        "student", "reverse_kl", 0.0, "reverse KL, own text, warm", settings={"warm_start_epochs": 2}
    ),
    "fkl_t2": Method("references", "forward_kl", 0.0, "forward KL, T = 2", settings={"temperature": 2.0}),
    "fkl_t4": Method("references", "forward_kl", 0.0, "forward KL, T = 4", settings={"temperature": 4.0}),
    "fkl_student_t2": Method(
        "student", "forward_kl", 0.0, "forward KL, own text, T = 2", settings={"temperature": 2.0}
    ),
    "fkl_student_t4": Method(
        "student", "forward_kl", 0.0, "forward KL, own text, T = 4", settings={"temperature": 4.0}
    ),
    # Early stopping's control: the learning rate comes down to nothing within a smaller budget.
    "sft_annealed_1": Method(
        "references", "cross_entropy", 1.0, "SFT, annealed in 1 epoch", settings={"epochs": 1, "schedule": "cosine"}
    ),
    "sft_annealed_2": Method(
        "references", "cross_entropy", 1.0, "SFT, annealed in 2 epochs", settings={"epochs": 2, "schedule": "cosine"}
    ),
    "sft_annealed_4": Method(
        "references", "cross_entropy", 1.0, "SFT, annealed in 4 epochs", settings={"epochs": 4, "schedule": "cosine"}
    ),
    # A thirtieth of the weights trained, or fewer: what of memorization is a matter of how much can change?
    "sft_lora": Method("references", "cross_entropy", 1.0, "SFT, LoRA", settings={"lora": {"rank": 16, "alpha": 32}}),
    "fkl_lora": Method(
        "references", "forward_kl", 0.0, "forward KL, LoRA", settings={"lora": {"rank": 16, "alpha": 32}}
    ),
    # Simpler ways of leaking less, to hold distillation against.
    "sft_dedup": Method("references", "cross_entropy", 1.0, "SFT, de-duplicated", once=True),
    "sft_goldfish": Method("references", "cross_entropy", 1.0, "SFT, goldfish loss", goldfish=True),
    "sft_dropped": Method("references", "cross_entropy", 1.0, "SFT, predicted left out", leave_out="sft"),
    "fkl_dropped": Method("references", "forward_kl", 0.0, "forward KL, predicted left out", leave_out="fkl"),
    # each record once, so that the guarantee for a row is one for a record
    "sft_private": Method("references", "cross_entropy", 1.0, "SFT, DP-SGD", once=True, private=True),
}

TEXTS = {
    "references": "the members' own responses (the references)",
    "teacher": "a fixed corpus that the teacher wrote once",
    "student": "its own samples, written as it learns",
    "mixed": "references and its own samples, half and half",
}
OBJECTIVES = {
    "cross_entropy": "cross-entropy",
    "forward_kl": "the forward Kullback-Leibler divergence, KL(teacher || student)",
    "reverse_kl": "the reverse Kullback-Leibler divergence, KL(student || teacher)",
    "jensen_shannon": "the Jensen-Shannon divergence between teacher and student",
}


def mitigation(rule: Method, settings) -> str:
    """What a method does against memorization besides its loss, in a sentence, or nothing."""
    told = {
        "Every record is read once an epoch, however often the data repeats it.": rule.once,
        f"One response token in {settings.goldfish_drop}, fixed by the {settings.goldfish_context} tokens before it, is left out of the loss.": rule.goldfish,
        f"Records that *{METHODS[rule.leave_out].label if rule.leave_out else ''}* is predicted to make this student recite are left out.": rule.leave_out,
        f"Gradients are clipped and noised for a guarantee of ε = {settings.privacy.epsilon:g} for one record.": rule.private,
    }
    return " ".join(line for line, holds in told.items() if holds)
