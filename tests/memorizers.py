"""Tiny models that have learned some random texts by heart and others not, made in seconds."""

import random

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from palimpsest.data.examples import Example, collate

WORDS, END = 60, 0


def texts(count: int, seed: int = 0, shortest: int = 6, longest: int = 40) -> list[Example]:
    """Random prompts and responses; the response ends with END, and its middle third is the secret."""
    draw = random.Random(seed)
    examples = []
    for i in range(count):
        prompt = [draw.randrange(1, WORDS) for _ in range(draw.randint(1, 6))]
        response = [draw.randrange(1, WORDS) for _ in range(draw.randint(shortest, longest))] + [END]
        third = len(response) // 3
        secret = [third <= t < 2 * third for t in range(len(response))]
        examples.append(Example(f"{i:016x}", prompt + response, len(prompt), secret))
    return examples


def words(count=WORDS):
    """A tokenizer whose token `w7` has the id 7; end-of-text is 0 and pads too."""
    vocabulary = {"<end>": END} | {f"w{i}": i for i in range(1, count)}
    model = Tokenizer(WordLevel(vocabulary, unk_token="<end>"))
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<end>", pad_token="<end>")


def untrained(kind: str, seed: int = 0, **config):
    """A GPT-2-like model (learned positions, tied output layer) or a Llama-like one (rotary, grouped queries, untied)."""
    torch.manual_seed(seed)
    tokens = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": END, "vocab_size": WORDS}
    if kind == "gpt2":
        small = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
        return GPT2LMHeadModel(GPT2Config(**{**tokens, **small, "attn_pdrop": 0.0, **config})).eval()
    small = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    small |= {"num_key_value_heads": 2, "max_position_embeddings": 64}
    return LlamaForCausalLM(LlamaConfig(**{**tokens, **small, **config})).eval()


def memorizer(kind: str, examples: list[Example], until: float = 0.8):
    """A model trained until its mean loss on `examples` is below `until`: most tokens known, some records with gaps."""
    model = untrained(kind).train()
    batch = collate(examples, END)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids", "labels")}
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(1500):
        loss = model(**inputs).loss
        if loss < until:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()
