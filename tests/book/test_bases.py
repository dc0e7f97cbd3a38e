"""Models before anything private is read: one's own, cut from another and healed, refused."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from palimpsest.book import bases, stages
from palimpsest.data.records import read_records
from palimpsest.errors import InputError
from palimpsest.measure import finished, models, read_back
from palimpsest.measure.layers import keep_layers
from palimpsest.study import Arm, load_study, open_run
from palimpsest.study.files import root


def llama(folder, tokenizer, layers=4, width=32):
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=192,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


OWN = """
extends: {smoke}
name: own
tokenizer: {{vocabulary: null}}
pretrain: null
methods: [sft, fkl]
data: {{source: {data}, annotations: [], public: 12, members: 8, non_members: 8, test: 3, canaries: {{}}, coins: 0, twins: 0, halves: false, validation: 0}}
models:
  teacher: {{path: {teacher}}}
  students: {{{students}}}
teacher: {{epochs: 1}}
student: {{epochs: 1, {more}}}
"""


@pytest.fixture
def own(tmp_path):
    """A study of the user's own models and file, in place of hub ids."""
    records = read_records(root() / "data" / "helpdesk" / "records.jsonl").head(40)
    records[["instruction", "context", "response"]].to_csv(tmp_path / "mine.csv", index=False)
    tokenizer = models.train_tokenizer(records["response"], 300)
    llama(tmp_path / "teacher", tokenizer)

    def write(students, more="batch_size: 4"):
        path = tmp_path / "own.yaml"
        smoke = root() / "studies" / "smoke.yaml"
        path.write_text(
            OWN.format(
                smoke=smoke, data=tmp_path / "mine.csv", teacher=tmp_path / "teacher", students=students, more=more
            )
        )
        return open_run(load_study(path), tmp_path / "run")

    return write


def test_own_models_and_a_student_of_the_layers_of_most_influence(own, tmp_path):
    run = own("half: {keep: 2}")
    stages.train_teacher(run)
    stages.train_student(run, Arm("half", "fkl", 0))
    teacher, half = (
        load_file(tmp_path / "run" / "models" / n / "model.safetensors") for n in ("base-teacher", "base-half")
    )
    facts = run.facts(Arm("half", "none"))
    assert facts["kept"] == sorted(sorted(range(4), key=lambda i: -facts["influence"][i])[:2])
    for place, layer in enumerate(facts["kept"]):
        name = "model.layers.{}.mlp.up_proj.weight"
        assert torch.equal(half[name.format(place)], teacher[name.format(layer)])
    assert run.facts(Arm("half", "fkl", 0))["steps"] == 2 and "test_loss_healed" not in facts


def test_a_cut_student_is_healed_on_public_text_alone_by_the_model_it_was_cut_from(own, tmp_path):
    run = own(
        "half: {keep: 2}", "batch_size: 4}\nheal: {epochs: 8, batch_size: 4, learning_rate: 1.0e-3, precision: fp32"
    )
    bases.train_base(run, "half")
    facts = run.facts(Arm("half", "none"))
    assert facts["healed_by"] == "fkl" and facts["examples_per_epoch"] == 12
    assert all(facts[f"test_loss_{name}"] > 0 for name in ("whole", "cut", "healed"))
    records = bases.prepare_data(run)
    whole, tokenizer = finished.load_trained(run, "base-teacher")
    ids = torch.tensor(read_back.examples_of(run.study, records[records["split"] == "test"], tokenizer)[0].input_ids)
    healed, cut = finished.load_trained(run, "base-half")[0], keep_layers(whole, facts["kept"])
    wanted, after, before = (m(input_ids=ids[None]).logits.log_softmax(-1) for m in (whole, healed, cut))
    apart = [torch.nn.functional.kl_div(found, wanted, log_target=True, reduction="sum") for found in (after, before)]
    assert apart[0] < 0.5 * apart[1]
    public, private = (records[records["split"].eq("public") == is_public] for is_public in (True, False))
    assert len(public) == 12 and not set(public["id"]) & set(private["id"])


def test_lora_trains_and_is_merged_and_missing_layers_are_named(own, tmp_path):
    run = own("half: {keep: 2}", "batch_size: 4, lora: {rank: 2, targets: [q_proj]}")
    stages.train_teacher(run)
    stages.train_student(run, Arm("half", "fkl", 0))
    weights = load_file(tmp_path / "run" / "models" / "half-fkl-s0" / "model.safetensors")
    assert not any("lora" in name for name in weights)
    run = own("half: {keep: 2}", "batch_size: 4, lora: {targets: [c_attn]}")
    with pytest.raises(InputError, match=r"LoRA targets \['c_attn'\] do not fit: .*This model has .*q_proj"):
        stages.train_student(run, Arm("half", "fkl", 0))


def test_other_tokenizers_are_refused(own, tmp_path):
    other = models.train_tokenizer(["completely other text, 123"] * 9, 280)
    llama(tmp_path / "student", other, layers=2)
    run = own(f"other: {{path: {tmp_path / 'student'}}}")
    with pytest.raises(
        InputError, match=r"teacher and student 'other' have different tokenizers \(300 and 2\d\d entries"
    ):
        bases.train_base(run, "other")


def test_hub_ids_without_network(own, tmp_path):
    run = own("far: {path: nobody/nothing-of-this-name}")
    with pytest.raises(InputError, match="cannot load 'nobody/nothing-of-this-name'.*neither a local folder"):
        bases.train_base(run, "far")
