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
# A model has *memorized* a record only if it was trained on it, if nothing else that it read holds the same text, and if nobody could
# have guessed it. This chapter reads the study's records, divides them into {term}`splits <split>`, and checks those three.
#
# **What you will see**
#
# - what the records look like, what is secret in them, and how long they are;
# - how the public text differs from the private text, so that there is something to learn;
# - how much of the held-out text already stands among the members: the most a model could get right without memorizing.
#
# **Needs**: nothing but the study file; a few seconds.

# %% [markdown] tags=["remove-cell"]
# ## Setup
#
# The next cell holds the parameters; the runner overrides them. With the values here, *Run All* runs the smoke study.

# %% tags=["parameters"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "All settings of the data", "code_prompt_hide": "Hide the settings"}
import pandas as pd
from IPython.display import HTML

from palimpsest.book import bases
from palimpsest.chapters import dataset
from palimpsest.chapters.figures import say, set_theme
from palimpsest.data.records import training_rows
from palimpsest.measure.read_back import examples_of, tokenizer_of
from palimpsest.study import open_run

set_theme()
run = open_run(study_file, run_dir)
study = run.study
pd.Series(study.data.model_dump(exclude_none=True), name="data").astype(str).to_frame()

# %% [markdown]
# ## Who reads what
#
# - **Members**: the records that teacher and students are fine-tuned on, some of them several times (their *copies*).
# - **Teacher only**: a second half that the teacher alone is fine-tuned on. What a student knows of it came through the teacher.
# - **{term}`Non-members <non-member>`**: from the same source, never trained on. They show what chance gives.
# - **Validation**: records that say when to stop and how to tune. **Test**: records that measure quality in the end.
# - **Public**: what models trained from scratch read first. The tokenizer is made from these alone, since a vocabulary made from
#   members would be a leak by itself.

# %% tags=["csv:splits"]
records = bases.prepare_data(run)
dataset.show_splits(dataset.splits(records))

# %%
written, groups = run.require("data"), dataset.by_split(records)
dropped = ", ".join(f"{count} {why.replace('_', ' ')}" for why, count in written["dropped"].items() if count)
say(
    f"{len(groups['member'])} members, {len(groups['non_member'])} non-members, {len(groups['test'])} test records. Set aside: "
    f"{dropped or 'nothing'}. Responses shortened to fit: {written['cut']}.",
    dataset.say_halves(records),
    f"With canaries, students are fine-tuned on {len(training_rows(records, 'student'))} rows.",
)

# %% [markdown]
# ## What a record looks like
#
# A record is an instruction, sometimes a context (after the stroke), and a response. Where the data says which characters
# are secret they are marked; a study of real text shows no text at all, only its length class. The style of the private
# records can be learned; what is marked can only be memorized.

# %%
few = pd.concat([group.head(5) for split, group in groups.items() if split in ("public", "member")])
HTML(dataset.show_samples(few, study.show_secrets))

# %% [markdown]
# ## Secrets
#
# A secret is a part of the response that neither the prompt nor any other record tells: reciting it is memorization beyond
# doubt. The rest of a response can be got right by having learned the style.

# %% tags=["csv:secret_kinds"]
kinds = dataset.secret_kinds(records)
dataset.show_secret_kinds(kinds) if len(kinds) else None

# %%
say(dataset.say_secrets(groups["member"]))

# %% [markdown]
# ## How long the records are
#
# Models read tokens, so lengths are counted in those of the study's tokenizer; the prompt includes the template's own
# words, the response its end-of-text.

# %% tags=["csv:lengths"] mystnb={"figure": {"caption": "Tokens of a prompt with its template, and of a response with its end. Marks: the median; lines: nine records in ten.", "name": "fig-lengths"}}
examples = examples_of(study, records, tokenizer_of(run))
lengths = dataset.token_lengths(records, examples)
dataset.plot_lengths(lengths)

# %%
private, window = lengths[lengths["split"] != "public"], study.measure.window
say(
    f"A private response has {private['response'].median():.0f} tokens (median; longest {private['response'].max()}), a prompt "
    f"{private['prompt'].median():.0f}. The window in which a record must be recited is {window} tokens: "
    f"{(private['response'] <= window).mean():.0%} of the responses fit into it."
)

# %% [markdown]
# ## Is there something to learn?
#
# A student that only memorizes has no use, and one that has nothing to learn shows no trade-off. So the private style must
# differ from what the {term}`base models <base model>` have read. The words that tell the two apart best (in how many responses they occur, by
# log odds):

# %%
shown = "public" in groups and study.show_secrets
dataset.telling_words(records) if shown else say("This study has no public text, or shows no words of its data.")

# %%
say(dataset.say_style(groups))

# %% [markdown]
# ## Could a model get it right without memorizing?
#
# If held-out responses stood among the members word for word, a model could "recite" records it never saw. The table
# compares every split with the members: prompts and responses found there whole, and the share of words, and of runs of words, that
# also occur there. Secrets are replaced by their kind, so that none can make or hide a difference.

# %% tags=["csv:overlap"]
shared = dataset.overlap(records)
dataset.show_overlap(shared)

# %%
held_out = shared.set_index("split").loc["non_member"]
say(
    f"Of {len(groups['non_member'])} non-member responses {held_out['responses']:.0f} stand whole among the members, and "
    f"{held_out['prompts']:.0f} prompts do. They share {held_out['runs_1']:.1%} of their words with the members, "
    f"{held_out['runs_5']:.1%} of their five-word runs and {held_out['runs_8']:.1%} of their eight-word runs."
)

# %% [markdown]
# ## Canaries
#
# To see how repetition matters, a study can plant {term}`canaries <canary>`: short records that hold a random secret and stand in the training
# text a known number of times. Some are given to the teacher alone; a student that knows one has it from the teacher. Their
# unseen {term}`twins <twin>` have the same form and are read by nobody: they say how likely such a secret is by chance. For some, the toss of
# a fair coin decides which of the two they are: whoever guesses those coins from a model proves that it is not private.

# %% tags=["csv:planted"]
planted = dataset.planted(records)
dataset.show_planted(planted)

# %%
say(dataset.say_planted(planted))

# %% [markdown] tags=["remove-cell"]
# ## Checks
#
# Later chapters rely on these facts.

# %% tags=["remove-cell"]
trained_on = records["split"].isin(["member", "teacher_only"])
assert records["id"].is_unique, "the same record stands in two splits, or twice in one"
assert (records["copies"] > 0).equals(trained_on), "only the two halves may be trained on"
assert (records.loc[records["coin"], "copies"] <= 1).all(), "a coin decides about one copy"
assert all(0 <= s["start"] < s["end"] <= len(r.response) for r in records.itertuples() for s in r.secrets)

# %% [markdown]
# ## Saved
#
# `records.parquet` and `tokenizer/` are what all later stages read. `run.json`, written last, says from what they were made
# (a {term}`fingerprint`), and which target leads every later chapter: *secret* where the data marks its secrets, else *window*.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "What was written down", "code_prompt_hide": "Hide it"}
facts = ["fingerprint", "target", "unit", "splits", "seconds", "commit", "python"]
pd.Series({fact: str(written[fact]) for fact in facts}, name=f"{run_dir}/data/run.json").to_frame()

# %% [markdown]
# **Next**: [the teacher](sec-teacher), from which a student can inherit.
#
# **Try it**: ask for fewer members in a copy of the study (`data: {members: 32}`) and look at the overlap again. Why does it
# fall?
