"""An adapter is measured as what it was trained to be: the base with it, added tokens and all, merged or beside the weights."""

import json

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from palimpsest.errors import InputError
from palimpsest.measure.checkpoints import CannotLoadError, find_checkpoint
from palimpsest.measure.models import load_config, load_model, load_tokenizer, train_tokenizer

WORDS = train_tokenizer(["one text and another"] * 9, 280)
IDS = torch.arange(40).reshape(2, 20)
LINEAR = ["q_proj", "v_proj", "down_proj"]


def base_model(folder, tied=True):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), tie_word_embeddings=tied, **shape))
    model.save_pretrained(folder)
    WORDS.save_pretrained(folder)
    return LlamaForCausalLM.from_pretrained(folder).eval()


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(input_ids=ids).logits.float()


def trained(folder, base, **options):
    """An adapter whose every number was moved, saved; and the model as it was in training."""
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=4, **options)).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.3 * torch.randn_like(value))
    model.save_pretrained(folder)
    return model


KINDS = [
    {"target_modules": LINEAR},
    {"target_modules": LINEAR, "use_dora": True},
    {"target_modules": [*LINEAR, "lm_head"]},
    {"target_modules": ["q_proj", "embed_tokens"]},
    {"target_modules": LINEAR, "modules_to_save": ["lm_head", "embed_tokens"]},
    {"target_modules": LINEAR, "trainable_token_indices": {"embed_tokens": [3, 9]}},
    {"target_modules": ["q_proj"], "bias": "all", "use_rslora": True},
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # peft on adapters of tied layers
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "kind", KINDS, ids=lambda kind: "-".join(map(str, (*kind["target_modules"], *list(kind)[1:])))
)
def test_logits_are_those_of_the_model_in_training(tmp_path, kind, tied):
    base = base_model(tmp_path / "base", tied)
    before = logits(base)
    model = trained(tmp_path / "adapter", base, **kind)
    wanted = logits(model)
    assert (wanted - before).abs().max() > 0.05  # the adapter does something
    merged = load_model(tmp_path / "adapter", device="cpu")
    assert type(merged) is LlamaForCausalLM
    assert torch.allclose(logits(merged), wanted, atol=2e-4)
    beside = load_model(tmp_path / "adapter", device="cpu", dtype="bf16")
    assert (logits(beside) - wanted).abs().mean() < 0.3 * (before - wanted).abs().mean()
    new = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    assert merged.generate(IDS[:, :5], **new).tolist() == model.generate(IDS[:, :5], **new).tolist()


def added(tmp_path, tied, **options):
    """An adapter that was trained with three tokens more than its base has."""
    base, words = base_model(tmp_path / "base", tied), AutoTokenizer.from_pretrained(tmp_path / "base")
    words.add_tokens(["<|user|>", "<|bot|>", "<|end|>"])
    base.resize_token_embeddings(len(words))
    model = trained(tmp_path / "adapter", base, target_modules=LINEAR, **options)
    words.save_pretrained(tmp_path / "adapter")
    return model, len(words)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("how", ["saved", "trained", "rows"])
def test_added_tokens_come_with_the_adapter(tmp_path, tied, how):
    first = len(WORDS)
    rows = list(range(first, first + 3))
    options = {
        "saved": {},
        "trained": {"modules_to_save": ["embed_tokens", "lm_head"]},
        "rows": {"trainable_token_indices": {"embed_tokens": rows} | ({} if tied else {"lm_head": rows})},
    }[how]
    model, count = added(tmp_path, tied, **options)
    ids = torch.tensor([[5, first, 7, first + 1, 9, first + 2]])
    assert len(load_tokenizer(tmp_path / "adapter")) == count
    assert load_config(tmp_path / "adapter").vocab_size == first  # its base's
    assert torch.allclose(logits(load_model(tmp_path / "adapter", device="cpu"), ids), logits(model, ids), atol=2e-4)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_added_tokens_that_the_adapter_lacks_are_refused(tmp_path):
    added(tmp_path, False)
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert weights.pop("base_model.model.lm_head.weight") is not None
    save_file(weights, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(InputError, match=f"was trained with {len(WORDS) + 3} embeddings, .* has {len(WORDS)}"):
        load_model(tmp_path / "adapter")


def test_where_the_base_is(tmp_path):
    model = trained(tmp_path / "adapter", base_model(tmp_path / "base"), target_modules=LINEAR)
    wanted, config = logits(model), tmp_path / "adapter" / "adapter_config.json"
    found = find_checkpoint(tmp_path / "adapter")
    assert found.base.place == str(tmp_path / "base") and found.facts == {"base": str(tmp_path / "base")}
    assert len(load_tokenizer(tmp_path / "adapter")) == len(WORDS)  # its base's

    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(CannotLoadError, match="is an adapter on .*base', which can't be had .* --base"):
        find_checkpoint(tmp_path / "adapter")
    at = find_checkpoint(tmp_path / "adapter", base=tmp_path / "moved")
    assert torch.allclose(logits(load_model(at, device="cpu")), wanted, atol=2e-4)

    facts = json.loads(config.read_text())
    config.write_text(json.dumps({**facts, "base_model_name_or_path": "../moved"}))
    assert torch.allclose(logits(load_model(tmp_path / "adapter", device="cpu")), wanted, atol=2e-4)
    config.write_text(json.dumps({**facts, "base_model_name_or_path": str(tmp_path / "adapter2")}))
    (tmp_path / "adapter").rename(tmp_path / "adapter2")
    with pytest.raises(InputError, match="an adapter itself: merge that one into its base first"):
        find_checkpoint(tmp_path / "adapter2")


def test_an_adapter_beside_a_whole_model_is_added_to_it(tmp_path):
    base = base_model(tmp_path / "both")
    before, model = logits(base), trained(tmp_path / "both", base, target_modules=LINEAR)
    found = find_checkpoint(tmp_path / "both")
    assert torch.allclose(logits(load_model(found, device="cpu")), logits(model), atol=2e-4)
    assert torch.equal(logits(load_model(found.base, device="cpu")), before)
    assert any("If the adapter is merged into that model already" in note for note in found.notes)
    (tmp_path / "both" / "adapter_model.safetensors").unlink()  # a file left over from training
    assert torch.equal(logits(load_model(tmp_path / "both", device="cpu")), before)


def test_adapters_that_do_not_fit_or_are_of_another_kind(tmp_path):
    trained(tmp_path / "adapter", base_model(tmp_path / "base"), target_modules=LINEAR)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    save_file(dict(list(weights.items())[1:]), file)  # untrained numbers in its place would hide what it knows
    with pytest.raises(CannotLoadError, match="1 of its weights are missing and 0 have no place there"):
        load_model(tmp_path / "adapter")
    save_file({**weights, "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.ones(4, 32)}, file)
    with pytest.raises(CannotLoadError, match="0 of its weights are missing and 1 have no place there"):
        load_model(tmp_path / "adapter")
    save_file({key: value[:, :3].contiguous() for key, value in weights.items()}, file)
    with pytest.raises(CannotLoadError, match="cannot load .*adapter'"):
        load_model(tmp_path / "adapter")
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(LlamaForCausalLM.from_pretrained(tmp_path / "base"), prompts).save_pretrained(tmp_path / "prompts")
    with pytest.raises(InputError, match="of the kind PROMPT_TUNING, which changes what the model is given"):
        load_model(tmp_path / "prompts")
