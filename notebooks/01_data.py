# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-data)=
# # The data
#
# Whether a model has *memorized* a record can only be said if three things are known of it: that the model was trained on
# it, that nothing else it read contains the same text, and which part of it nobody could have guessed. This chapter reads
# the study's records, cuts them into splits, and checks those three.
#
# **What you will see**
#
# - what the records look like, what is secret in them, and how long they are;
# - how the public text differs from the private text, so that there is something to learn;
# - how much of the held-out text already stands among the members: the most a model could get right without memorizing.
#
# **Needs**: nothing but the study file; a few seconds.

# %% [markdown]
# ## Setup
#
# The next cell holds the parameters; the runner overrides them. With the values here, *Run All* runs the smoke study.

# %% tags=["parameters"]
study: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %%
import pandas as pd
from IPython.display import HTML

from palimpsest.book import stages
from palimpsest.chapters import dataset, figures
from palimpsest.data.records import training_text
from palimpsest.measure import models
from palimpsest.measure.finished import examples_of
from palimpsest.study import load_study
from palimpsest.study.runs import Folder, require

figures.set_theme()
plan = load_study(study)
pd.Series(plan.data.model_dump(exclude_none=True), name="data").astype(str).to_frame()

# %% [markdown]
# ## Read, check, split
#
# One call reads the source, refuses or drops what cannot be used, cuts the splits with the study's data seed, and writes
# them with the tokenizer into the run folder. **Members** are the records that models are fine-tuned on. **Non-members** come
# from the same source and are never trained on; every rate of this book is shown for both. **Test** records measure quality.
# A study that trains its models from scratch also has **public** records; its tokenizer is trained on those alone, because
# a vocabulary made from members would be a leak by itself.

# %%
records = stages.prepare_data(plan, run_dir)
written = require(Folder.of(run_dir).data, "this notebook")
dataset.overview(records)

# %%
splits = dataset.by_split(records)
dropped = ", ".join(f"{count} {why.replace('_', ' ')}" for why, count in written["dropped"].items() if count)
figures.say(
    f"{len(splits['member'])} members, {len(splits['non_member'])} non-members, {len(splits['test'])} test records. Set aside: "
    f"{dropped or 'nothing'}. Responses shortened to fit: {written['cut']}."
)

# %% [markdown]
# ## What a record looks like
#
# A record is an instruction, sometimes a context (after the stroke), and a response. Where the data says which characters
# are secret they are marked; a study of real text shows no text at all, only its length class. The style of the private
# records can be learned; what is marked can only be memorized.

# %%
few = pd.concat([group.head(5) for split, group in splits.items() if split in ("public", "member")])
HTML(dataset.samples(few, plan.show_secrets))

# %% [markdown]
# ## Secrets
#
# A secret is a part of the response that neither the prompt nor any other record tells: reciting it is memorization beyond
# doubt. The rest of a response can be got right by having learned the style.

# %%
dataset.secret_kinds(records)

# %%
figures.say(dataset.secrets_sentence(splits["member"]))

# %% [markdown]
# ## How long the records are
#
# Models read tokens, so lengths are counted in those of the study's tokenizer; the prompt includes the template's own
# words, the response its end-of-text.

# %% mystnb={"figure": {"caption": "Lengths of the letters in tokens, by split: prompt with its template (left) and response with end-of-text (right). Each split's bars add up to one.", "name": "fig-lengths"}}
tokenizer = models.load_tokenizer(Folder.of(run_dir).data / "tokenizer")
lengths = dataset.token_lengths(records, examples_of(plan, records, tokenizer))
dataset.length_figure(lengths)

# %%
private = lengths[(lengths["kind"] == "letter") & (lengths["split"] != "public")]
figures.say(
    f"A private response has {private['response'].median():.0f} tokens (median; longest {private['response'].max()}), a "
    f"prompt {private['prompt'].median():.0f}. {(private['response'] <= plan.measure.window).mean():.0%} of the responses fit "
    f"into the window of {plan.measure.window} tokens that a record must be recited over to count as verbatim."
)

# %% [markdown]
# ## Is there something to learn?
#
# A student that only memorizes has no use, and one that has nothing to learn shows no trade-off. So the private style must
# differ from what the base models have read. The words that tell the two apart best (in how many responses they occur, by
# log odds):

# %%
both = "public" in splits and plan.show_secrets
dataset.telling_words(records) if both else figures.say(
    "This study has no public text, or shows no words of its data."
)

# %%
figures.say(dataset.style_sentence(splits))

# %% [markdown]
# ## Could a model get it right without memorizing?
#
# If held-out responses stood among the members word for word, a model could "recite" records it never saw. The table
# compares every split with the members: prompts found whole, responses found whole (their secrets replaced by their kind,
# so that a secret can neither make nor hide a difference), and the share of runs of n words that also occur there.

# %%
shared = dataset.overlap(records)
shared.round(3)

# %%
held_out = shared.loc["non_member"]
figures.say(
    f"Of {len(splits['non_member'])} non-member responses {held_out['responses']:.0f} stand whole among the members, and "
    f"{held_out['prompts']:.0f} prompts do. They share {held_out['1-word runs']:.1%} of their words with the members, "
    f"{held_out['5-word runs']:.1%} of their five-word and {held_out['8-word runs']:.1%} of their eight-word runs."
)

# %% [markdown]
# ## Canaries
#
# Letters occur once. To see how repetition matters, canaries are planted: short records that hold a random code and stand in
# the training text 1 to 16 times. Some are given to the teacher alone; a student that knows one has it from the teacher.
# Their unseen twins have the same form and are read by nobody: they say how likely a code is by chance.

# %%
dataset.doses(records)

# %%
figures.say(dataset.canaries_sentence(records))

# %% [markdown]
# ## Checks
#
# Later chapters rely on these facts.

# %%
members = records["split"] == "member"
assert records["id"].is_unique, "the same record stands in two splits, or twice in one"
assert (records["copies"] > 0).equals(members), "only members may be trained on"
assert all(0 <= s["start"] < s["end"] <= len(r.response) for r in records.itertuples() for s in r.secrets)

# %% [markdown]
# ## Saved
#
# `records.parquet` and `tokenizer/` are what all later stages read; `run.json`, written last, says what they were made from.

# %%
facts = ["records_hash", "splits", "seconds", "commit", "python"]
pd.Series({fact: str(written[fact]) for fact in facts}, name=f"{run_dir}/data/run.json").to_frame()

# %% [markdown]
# ## Summary

# %%
text = training_text(records, "student")
figures.say(
    f"- Students are fine-tuned on {len(text)} rows: {len(splits['member'])} letters and "
    f"{len(text) - len(splits['member'])} copies of canaries.",
    f"- {held_out['responses']:.0f} of {len(splits['non_member'])} held-out responses could be had from the members' wording.",
    f"- {dataset.secrets_sentence(splits['member'])}",
)

# %% [markdown]
# **Next**: [the teacher](sec-teacher), the only model from which a student can inherit.
#
# **Try it**: ask for fewer members in a copy of the study (`data: {members: 32}`) and look at the overlap again. Why does it
# fall?
