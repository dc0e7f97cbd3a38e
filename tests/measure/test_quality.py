"""ROUGE of answers: the library's where its tokenizer knows the letters, empty elsewhere, and said so."""

import numpy as np
import pandas as pd
import pytest
from rouge_score.rouge_scorer import RougeScorer

from palimpsest.chapters.memorization import say_quality, show_quality
from palimpsest.measure.quality import ROUGE, rouge


def test_rouge_is_the_librarys_and_empty_in_scripts_that_its_tokenizer_drops():
    found = rouge(["a code of ten", "Ο κωδικός είναι δέκα"], ["the code of ten", "Ο κωδικός είναι δέκα"])
    scorer = RougeScorer(list(ROUGE), use_stemmer=False)
    wanted = scorer.score("the code of ten", "a code of ten")
    for name in ROUGE:
        assert found[name][0] == pytest.approx(wanted[name].fmeasure) and np.isnan(found[name][1])
    assert (
        scorer.score("Ο κωδικός είναι δέκα", "Ο κωδικός είναι δέκα")["rougeL"].fmeasure == 0
    )  # what it would be told


def test_where_no_record_is_in_its_letters_the_chapter_says_so():
    who = {"role": "student", "size": "small", "method": "sft", "seed": 0, "label": "small, SFT"}
    rows = {"test_loss": 1.0, "records": 4, **{f"{name}{end}": np.nan for name in ROUGE for end in ("", "_error")}}
    quality = pd.DataFrame([{**who, **rows}])
    assert (show_quality(quality)[["ROUGE-1", "ROUGE-L"]] == "not applicable").all(axis=None)
    assert "ROUGE does not apply" in say_quality(quality)
    quality["rougeL"] = 0.5
    assert "does not apply" not in say_quality(quality)
