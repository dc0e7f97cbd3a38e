"""Tiny models that recite records word for word, trained the ways in which people train: their ends, beginnings and boundaries."""

import torch
from audits import people
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from palimpsest.data.examples import IGNORED

START, END, TURN = "<s>", "</s>", "<|im_end|>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROWS = people(24, 1)


def tokenizer_of(space_first=False, begins=False):
    """A byte-level tokenizer with chat tokens; `space_first`: it puts a space before every text, as SentencePiece does."""
    words = Tokenizer(BPE())
    if space_first:
        words.normalizer = normalizers.Prepend(" ")
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = [START, END, "<|im_start|>", TURN]
    trainer = BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator([r["question"] + " " + r["answer"] for r in people(100, 3)], trainer)
    if begins:
        words.post_processor = TemplateProcessing(
            single=f"{START} $A", special_tokens=[(START, words.token_to_id(START))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token=START, eos_token=END, pad_token=END)


def learned(folder, tokenizer, rows, ends=None):
    """A model trained on (prompt tokens, target tokens), saved with its tokenizer.

    Trained until its greedy choice is right at every target token.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config).train()
    width = max(sum(map(len, row)) for row in rows)
    ids = torch.tensor([sum(row, []) + [0] * (width - sum(map(len, row))) for row in rows])
    labels = torch.tensor([[IGNORED] * len(p) + t + [IGNORED] * (width - len(p) - len(t)) for p, t in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(400):
        out = model(input_ids=ids, labels=labels)
        wanted = labels[:, 1:] != IGNORED
        if out.loss < 0.05 and (out.logits.argmax(-1)[:, :-1] == labels[:, 1:])[wanted].all():
            break
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    model.eval()
    for prompt, target in rows:
        start = torch.tensor([prompt])
        options = {"do_sample": False, "max_new_tokens": len(target), "eos_token_id": None}
        new = model.generate(start, attention_mask=torch.ones_like(start), **options)
        assert new[0, len(prompt) :].tolist() == target
    if ends:
        model.generation_config.eos_token_id = ends
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]
