"""The corpus of sequence-level distillation: the teacher's answer to every prompt, written once and part by part."""

from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palimpsest.data.examples import Example, ends_of
from palimpsest.measure.generation import generate
from palimpsest.measure.models import context_length
from palimpsest.measure.score_file import in_parts
from palimpsest.study import fingerprint
from palimpsest.study.files import remove, write_parquet
from palimpsest.study.sections import TeacherText

PART = 512  # records; what a kill in the middle of writing can cost at most


def write_teacher_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: pd.DataFrame,
    examples: list[Example],
    how: TeacherText,
    seed: int,
    folder: Path,
    made_from: str,
    part: int = PART,
) -> pd.DataFrame:
    """Decode every prompt; write `records.parquet` in `folder`, whole or not at all.

    Finished parts wait in `folder/parts-<key>`, whose key is a hash of `made_from` (the teacher and the decoding), the
    seed and the prompts, so an interrupted corpus goes on with its first unwritten part and never mixes two teachers.

    Args:
        rows, examples: the records and their tokens, in the same order.

    Returns:
        pd.DataFrame: `rows` with `teacher_tokens` (end-of-text included), `teacher_text`, and `same`: token for token the
        reference.
    """
    prompts = [e.input_ids[: e.prompt_length] for e in examples]
    parts = folder / f"parts-{fingerprint([made_from, how, seed, part, prompts])}"

    def write(rows: slice) -> pd.DataFrame:
        some = prompts[rows]
        texts = generate(
            model,
            tokenizer,
            some,
            max_new_tokens=[min(how.max_new_tokens, context_length(model) - len(p)) for p in some],
            num_beams=how.beams if how.decode == "beam" else 1,
            do_sample=how.decode == "sample",
            temperature=how.temperature,
            seed=seed * 1_000_003 + rows.start // part,
            ends=ends_of(examples, tokenizer.eos_token_id),
        )
        return pd.DataFrame({"teacher_tokens": texts})

    written = in_parts(parts, len(prompts), part, write)
    tokens = [[int(t) for t in text] for text in written["teacher_tokens"]]
    rows = rows.assign(
        teacher_tokens=tokens,
        teacher_text=tokenizer.batch_decode(tokens, skip_special_tokens=True),
        same=[t == e.response_ids for t, e in zip(tokens, examples, strict=True)],
    )
    write_parquet(rows, folder / "records.parquet")
    remove(parts)
    return rows
