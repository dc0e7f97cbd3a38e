"""The chapter on attacks: which model is compared with which, and what is said where nothing can be measured."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from written_runs import HALF, MEMBERS, NON_MEMBERS, OWN, sentences, write_run, written_tables

from palimpsest.chapters import attacks
from palimpsest.measure import membership_inference
from palimpsest.measure.read_back import load_scores
from palimpsest.study import Arm

GROUP = {"count": 0, "total": 3, "chance": 1.4, "ceiling": 7.0, "canaries": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def tables(run):
    return written_tables(run, attacks)


def said(tables):
    """Everything the page says."""
    attack = attacks.strongest(tables.membership)
    return [
        attacks.say_blind(tables.blind),
        *attacks.say_membership(tables.membership, attack),
        attacks.say_found(tables.membership, attack),
        *attacks.say_doses(tables.doses),
        *attacks.say_teacher_only(tables.doses),
    ]


def test_every_model_is_compared_with_its_own_base(run, tables):
    places = (slice(MEMBERS), slice(MEMBERS + HALF, MEMBERS + HALF + NON_MEMBERS))
    members, others = (load_scores(run, "teacher").iloc[s]["id"] for s in places)
    rated = tables.membership[tables.membership["measure"] == "AUC"].set_index(["model", "attack"])["rate"]
    for name, base in (("teacher", "base-teacher"), ("small-word_kd-s0", "base-small")):
        ratio = membership_inference.reference_ratio(load_scores(run, name), load_scores(run, base))
        found = membership_inference.attack_rates(
            pd.DataFrame({"id": load_scores(run, name)["id"], "reference": ratio}), members, others
        )
        assert rated[name, "reference"] == pytest.approx(found["rate"].iloc[0])
    attacked = tables.membership.groupby("model")["attack"].unique()
    assert not set(attacked["base-small"]) & {"reference", "ez_mia", "wbc"}
    assert set(attacked["teacher"]) == set(membership_inference.LABELS)


def test_one_attack_is_chosen_on_the_teacher_and_drawn_for_all(tables):
    attack = attacks.strongest(tables.membership)
    assert set(tables.roc["attack"]) == {attack}
    assert {"teacher", "small-sft-s0", "small-word_kd-s0"} <= set(tables.roc["model"])
    shown = attacks.show_membership(tables.membership)
    assert list(shown) == ["teacher", "small, fine-tuned", "small, distilled"] and "(" in shown.loc["WBC", "teacher"]
    assert " to " in shown.loc["WBC", "small, distilled"] and list(shown.index) == list(attacks.ATTACKS.values())
    lines = attacks.say_membership(tables.membership, attack)
    assert f"on {MEMBERS} members and {NON_MEMBERS} non-members" in lines[0] and "Distilled, from" in lines[1]
    low = attacks.say_found(tables.membership, attack)
    assert "1 in 10 wrongly" in low and "we would need 1,000 non-members; we have 20" in low
    for figure in (attacks.plot_membership(tables.membership), attacks.plot_roc(tables.roc, NON_MEMBERS)):
        figure.canvas.draw()
        assert [ax.get_title() for ax in figure.axes] == ["teacher", "small"]


def dose(method, bits, copies, only=False, role="student"):
    ends = {"exposure": bits, "exposure_low": bits - 1, "exposure_high": bits + 1}
    return {**GROUP, **ends, "size": "small", "method": method, "role": role, "copies": copies, "teacher_only": only}


def test_doses_and_the_teachers_own_secrets(tables):
    exposed = tables.exposure[tables.exposure["teacher_only"]]
    assert exposed.groupby("model").size().eq(OWN).all()
    doses = pd.DataFrame(
        [
            dose("none", 1.4, 4, role="base"),
            dose("sft", 6.0, 1, role="baseline"),
            dose("sft", 7.0, 4, role="baseline"),
            dose("sft", 1.0, 8, True, "baseline"),
            dose("fkl", 3.0, 4),
            dose("fkl", 5.0, 8, True),
        ]
    )
    (line,) = attacks.say_doses(doses)
    assert "4 copies give 3.0 bits (2.0 to 4.0) with forward KL to 7.0 bits (6.0 to 8.0) with SFT" in line
    students, control, _ = attacks.say_teacher_only(doses)
    assert (
        students.startswith("- Distilled students above chance (")
        and "has seen: 1 of 1." in students
        and "forward KL, with 5.0 bits (4.0 to 6.0)" in students
    )
    assert control.startswith("- Models without a teacher above chance (") and control.endswith("has seen: 0 of 1.")
    assert attacks.show_doses(doses, teacher_only=True).shape == (2, 1)
    assert len(attacks.plot_doses(doses).axes) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"seeds": (0, 1)},
        {"secrets": False},
        {"canaries": False},
        {"halves": False},
        {"methods": ("sft",)},
        {"methods": ("sft", "sft_dedup")},
    ],
    ids=str,
)
def test_the_page_reads_right_for_any_study(tmp_path, options):
    tables = written_tables(write_run(tmp_path, **options), attacks)
    lines = said(tables)
    text = "\n".join(lines)
    assert "letter" not in text and "nan" not in text and max(len(s.split()) for s in sentences(lines)) <= 25
    assert ("distilled" in text.lower()) == ("methods" not in options)
    assert ("is the teacher's alone" in text) == (not options.get("halves", True))
    none = not options.get("canaries", True)
    assert tables.exposure.empty == tables.doses.empty == none == (attacks.NO_CANARIES in text)
    assert (attacks.show_doses(tables.doses) is None) == (attacks.plot_doses(tables.doses) is None) == none
    assert attacks.show_membership(tables.membership).index.is_unique


def test_too_few_records_for_a_rate_or_for_words():
    scores = pd.DataFrame({"id": ["a", "b", "c", "d"], "loss": [1.0, 2.0, 0.0, 0.5]})
    rated = membership_inference.attack_rates(scores, ["a", "b"], ["c", "d"]).assign(**Arm("teacher", "sft").columns())
    assert "no false positive rate is low enough" in attacks.say_found(rated, "loss")
    alone = membership_inference.attack_rates(scores, ["a"], ["c"]).assign(**Arm("teacher", "sft").columns())
    assert attacks.strongest(alone) == "loss"
    assert plt.get_fignums() == [] and np.isnan(alone["rate"]).all()
