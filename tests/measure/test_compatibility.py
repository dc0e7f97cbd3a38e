"""What is wrong with a study's models is said before anything is trained, by the name of the model it is in."""

import pytest
import yaml
from transformers import (
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    JambaConfig,
    LlamaConfig,
    MambaConfig,
    MixtralConfig,
    RecurrentGemmaConfig,
    T5Config,
)

from palimpsest.errors import InputError
from palimpsest.measure.compatibility import changed_logits, check_models
from palimpsest.measure.models import train_tokenizer
from palimpsest.study import load_study

SHAPE = {
    **{
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
    },
    **{"num_key_value_heads": 1, "max_position_embeddings": 192},
}
TRAINED = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3}


@pytest.fixture
def check(tmp_path):
    """Check a study whose models are configurations and tokenizers on disk: there are no weights to load."""
    tokenizer = train_tokenizer(["one text and another"] * 9, 280)

    def saved(name, config, own=tokenizer):
        config.save_pretrained(tmp_path / name)
        own.save_pretrained(tmp_path / name)
        return {"path": str(tmp_path / name)}

    def run(teacher, other=tokenizer, **students):
        starts = {"teacher": saved("teacher", teacher) if not isinstance(teacher, dict) else teacher}
        starts["students"] = {
            size: start if isinstance(start, dict) else saved(size, start, other) for size, start in students.items()
        }
        tree = {
            **{"name": "own", "title": "own", "methods": ["sft", "fkl"], "models": starts},
            **{"data": {"source": "d.jsonl", "public": 1, "members": 1, "non_members": 1, "test": 1}},
            **{"teacher": TRAINED, "student": TRAINED},
        }
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(tree))
        return check_models(load_study(tmp_path / "own.yaml"))

    return run


def llama(**changes):
    return LlamaConfig(**{**SHAPE, **changes})


def test_models_that_fit_give_no_notes(check):
    assert check(llama(), half={"keep": 2}, small=llama(num_hidden_layers=2)) == []


def test_faults_are_named_with_their_model(check):
    other = train_tokenizer(["0123456789"] * 9, 270)
    capped = {**SHAPE, "head_dim": 16}
    with pytest.raises(InputError) as error:
        check(
            Gemma2Config(**capped),
            other,
            tiny=llama(),
            scaled=GraniteConfig(**SHAPE, logits_scaling=8.0),
            t5=T5Config(),
        )
    first, *faults = str(error.value).splitlines()
    assert "5 fault(s)" in first and len(faults) == 5
    found = "\n".join(sorted(faults))
    assert "the teacher (gemma2) changes its logits after its output layer (final_logit_softcapping = 30.0)" in found
    assert "student 'scaled' (granite) changes its logits after its output layer (logits_scaling = 8.0)" in found
    assert "student 't5': " in found and "sequence-to-sequence" in found
    assert found.count("have different tokenizers") == 2


def test_scaling_by_one_is_no_scaling(check):
    uncapped = Gemma2Config(**{**SHAPE, "head_dim": 16, "final_logit_softcapping": None})
    assert check(uncapped, small=GraniteConfig(**SHAPE, logits_scaling=1.0)) == []


def test_layers_that_cannot_be_kept_are_refused(check):
    with pytest.raises(InputError, match="student 'half': cannot cut a student from jamba"):
        check(JambaConfig(**{**SHAPE, "num_hidden_layers": 8}), half={"keep": 2})
    with pytest.raises(InputError, match="found 1 layers"):
        check(llama(num_hidden_layers=1), half={"keep": 2})


def test_what_is_worth_knowing(check):
    notes = check(MixtralConfig(**SHAPE, num_local_experts=3), small=llama(max_position_embeddings=64, vocab_size=200))
    assert len(notes) == 3
    assert "the teacher (mixtral) is a mixture of 3 experts" in notes[0]
    assert "student 'small' (llama) has 200 embeddings for a tokenizer of 2" in notes[1]
    assert "64 tokens of small" in notes[2]


def test_a_hub_id_out_of_reach_is_a_note_and_a_broken_folder_a_fault(check, tmp_path):
    (note,) = check({"path": "nobody/nothing-of-this-name"}, half={"keep": 2})
    assert "the teacher could not be checked: cannot load 'nobody/nothing-of-this-name'" in note
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="student 'small' could not be checked: cannot load"):
        check(llama(), small={"path": str(tmp_path / "empty")})


@pytest.mark.parametrize(
    "config, plain",
    [
        (GPT2Config(), True),
        (LlamaConfig(), True),
        (MambaConfig(), True),
        (Gemma2Config(), False),
        (GraniteConfig(logits_scaling=8.0), False),
        (GraniteConfig(), True),
        (CohereConfig(), False),
        (RecurrentGemmaConfig(), False),
    ],
    ids=lambda c: getattr(c, "model_type", ""),
)
def test_models_that_change_their_logits_are_known_from_their_configuration(config, plain):
    assert (changed_logits(config) == []) == plain
