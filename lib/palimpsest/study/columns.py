"""Every column of every table: its type and meaning, declared once, and which table has which. A column has one meaning wherever it
stands."""

# What is known of the records of a half, at a point of a trajectory.
KNOWN = "member_loss recited_unrepeated from_prompt_unrepeated recited_repeated from_prompt_repeated auc exposure canaries_recited"
_DECLARED = """
model: str: its name, a folder of the run
label: str: what figures call it
size: str: student size as the study names it; "teacher" for the teacher and its base
method: str: method of training; "none" before fine-tuning, "sft" for the teacher
role: str: base, teacher, baseline (sft), student (distilled) or mitigated (fine-tuned another way)
seed: float: seed of a student; empty for the teacher and bases
seeds: int: how many seeds a number is made of
split: str: member, teacher_only (the half that only the teacher read), non_member, validation, test, twin or public; of rates, member is one copy, repeated more
kind: str: record, canary or twin
prompt_characters: float: mean length of the prompts
response_characters: float: mean length of the responses
secrets_per_record: float: mean number of marked secrets
training_rows: int: rows of training text, copies counted
secret_kind: str: what a secret is, as the data says
characters: float: mean length of the secrets
prompt: int: tokens of the prompt, the template's own among them
response: int: tokens of the response, end-of-text among them
prompts: int: prompts that occur whole among the members
responses: int: responses that do, secrets replaced by their kind
runs_1: float: share of their words that occur in the members' responses
runs_3: float: share of their runs of three words that do
runs_5: float: share of their runs of five words that do
runs_8: float: share of their runs of eight words that do
read_by: str: who is trained on it
target: str: what is to be recited: window, whole, next_window (tokens 50 to 100 from the first 50) or secret
rate: float: count over total, or a difference of two such rates
count: float: records or secrets counted; the mean over seeds where these are together
total: float: records or secrets asked about
low: float: lower end of the 95 % interval of what stands before it
high: float: upper end of that interval
k: float: response tokens given besides the prompt; in the left-truncated design, tokens given at all (inf: all)
design: str: left-truncated (a fixed target) or right-growing (the target moves on with k)
sampling: str: way of sampling; "greedy" is decoding once
n: int: samples
place: int: place of a response token, from 0
token: str: the token as text, masked where the study hides text
probability: float: that the model gave it
guess: int: place of the true token among the model's guesses, 0 = first choice
margin: float: logit of the first choice minus the second's
hit: bool: whether the model's first choice is the true token
secret: bool: whether the token is part of a secret
text: str: the beginning of a record's prompt, masked where the study hides text
asked: int: secrets of a record, or 1 where none are marked
teacher: int: of these, how many the teacher recites
baseline: int: how many a fine-tuned student recites, at most
students: int: how many distilled students recite any
samples: float: plain samples from the prompt of which one is expected to be the record's first window, by the student nearest to it
near_only: float: nearly verbatim records that are not verbatim
dtype: str: data type of the logits
rouge_l: float: ROUGE-L F-measure of the greedy text, mean over records
rouge_l_low: float: lower end of its 95 % interval
rouge_l_high: float: upper end
edit_similarity: float: 1 - Levenshtein distance over the longer length, mean over records
edit_similarity_low: float: lower end of its 95 % interval
edit_similarity_high: float: upper end
test_loss: float: loss on the test records, nats per response token
records: int: records a number is made of
rouge1: float: ROUGE-1 F-measure on the test prompts, mean over records in letters that its tokenizer knows
rouge2: float: ROUGE-2
rougeL: float: ROUGE-L
rouge1_error: float: half-width of its 95 % normal interval over records
rouge2_error: float: the same of ROUGE-2
rougeL_error: float: the same of ROUGE-L
id: str: the record's id
set: str: which of teacher, student and baseline recite a record: inherited, easy, teacher_only, ...
student: float: rate of the student
other: float: rate of the model it is compared with
against: str: the model it is compared with: baseline or teacher
difference: float: first minus second
ratio: float: first over second
ratio_low: float: lower end of its 95 % interval
ratio_high: float: upper end
p: float: p-value
p_lowest: float: smallest exact McNemar p-value of a seed
p_highest: float: largest one
canaries: int: canaries
twins: int: their unseen twins
controls: int: unseen ones that the records are compared with: twins, or non-members
coin: bool: whether a fair coin decided between training on it once and not at all
recited: float: share recited, or canaries recited, or whether this one is
auc: float: area under the ROC curve
auc_low: float: lower end of its 95 % interval
auc_high: float: upper end
replicate: int: which replicate: everything random drawn anew
when: str: at the lowest calibrated validation loss (best) or at the end of training (end)
epoch: float: epochs trained
step: int: optimizer steps trained
tokens: int: tokens of training text read so far, prompts and repetitions counted
validation_loss: float: loss on validation records, nats per response token
temperature: float: of the temperatures fitted on validation, the best
validation_loss_calibrated: float: validation loss under it
member_loss: float: loss on the letters of the half the students read, nats per response token
recited_unrepeated: float: share of secrets of letters with one copy recited from the true text before them
from_prompt_unrepeated: float: the same from the prompt alone
recited_repeated: float: share of secrets of letters with several copies recited from the true text before them
from_prompt_repeated: float: the same from the prompt alone
canaries_recited: float: share of canaries recited
loss: float: nats per response token
precision: str: data type it was computed in
secrets: int: secrets asked about, or marked
note: str: why there is no number; empty where there is one
removed: float: records given a probability of one half or more
removed_share: float: their share
weight_zlib_bytes: float: standardized coefficient of the size after zlib
weight_teacher_loss: float: of the teacher's loss
weight_baseline_loss: float: of the baseline's loss
weight_divergence: float: of the divergence between teacher and baseline
share_left_out: float: share of members left out, likeliest to be recited first
share_avoided: float: share of recited records among them
claim: str: what is claimed
theirs: str: their number
ours: float: our number
outcome: str: agrees, weaker, disagrees, undecided or not measurable
attack: str: membership attack
fpr: float: false positive rate
tpr: float: true positive rate
members: int: members with a score
non_members: int: non-members with a score
left_out: int: records without a score
warning: str: what is wrong with the groups; empty where nothing is
copies: int: copies in the training text
teacher_only: bool: whether only the teacher was fine-tuned on it
logprob: float: log-probability of the secret, nats
rank: int: place among its twins, 1 = likeliest
exposure: float: exposure in bits
exposure_low: float: lower end of its 95 % interval
exposure_high: float: upper end
chance: float: mean exposure of a canary never seen
ceiling: float: most exposure that this many twins can show
state: str: of a model cut from a whole one: whole, cut or healed
layers: int: transformer layers
parameters: int: parameters, tied ones once
bytes: int: size in memory
training_flops: float: floating-point operations of its fine-tuning
seconds: float: seconds of its fine-tuning
peak_memory_bytes: int: peak memory of the device that trained it
decode_tokens_per_second: float: new tokens per second when decoding
first: str: methods on the first side
second: str: methods on the second side
family: str: questions whose p-values are corrected together
measure: str: AUC or TPR (true positive rate) of an attack; of a claim, the column compared
quality: str: the meaning of quality that is held equal; none at the end of training
replicates: int: independent replicates
estimate: float: first minus second, mean over replicates
distance: float: from the worse of two best qualities: nats, ROUGE-L, or a share of the tokens
null_largest: float: largest difference of a method from itself in another replicate, by the same estimator
p_holm: float: p-value of the t-test over replicates, corrected over the family (Holm)
because: str: why it is undecided; empty where it is not
learning_rate: float: highest learning rate
chosen: bool: whether this point of the grid has the best validation quality of its arm
given: str: the name that is asked after: own or another
from_prompt: float: share of secrets recited from the prompt alone
models: int: models that were each attacked with the others as shadows
coins: int: records a fair coin put in or out
guesses: int: of them that were guessed
correct: int: right guesses
epsilon_low: float: lower 95 % confidence bound on epsilon
epsilon_promised: float: what DP-SGD guarantees; empty without it
delta: float: its delta
verdict: str: less, more or undecided
"""
_DECLARED += "".join(
    f"transferred_{line}; of the half only the teacher read\n"
    for line in _DECLARED.splitlines()
    if line.split(":")[0] in KNOWN.split()
)
# Column -> its type (str, float, int or bool) and its meaning.
COLUMNS: dict[str, tuple[str, str]] = {
    name: (kind, meaning) for name, kind, meaning in (line.split(": ", 2) for line in _DECLARED.strip().splitlines())
}

_MODEL, _GROUP = "model label size method role seed", "size method role"
_RATE = "rate count total low high"
_QUALITY = "validation_loss temperature validation_loss_calibrated rouge_l"
_TRANSFERRED = " ".join(f"transferred_{name}" for name in KNOWN.split())
# Table -> its columns, in their order. Chapter by chapter.
TABLES: dict[str, list[str]] = {
    name: columns.split()
    for name, columns in {
        # the data
        "splits": "split kind records prompt_characters response_characters secrets_per_record training_rows",
        "secret_kinds": "secret_kind split secrets characters",
        "overlap": "split prompts responses runs_1 runs_3 runs_5 runs_8",
        "planted": "read_by copies coin records",
        "lengths": "split prompt response",
        # while a model is trained
        "trajectory": f"epoch step tokens precision {_QUALITY} {KNOWN} {_TRANSFERRED}",
        "groups": "epoch step tokens split kind copies records loss secrets recited from_prompt exposure",
        # how much is memorized
        "rates": f"{_MODEL} split target {_RATE}",
        "excess": "label target split rate low high",
        "by_prefix": f"{_MODEL} split k {_RATE}",
        "context": f"{_GROUP} split design k {_RATE}",
        "discoverable": f"{_GROUP} split sampling n {_RATE}",
        "near_misses": f"{_GROUP} split {_RATE} near_only rouge_l rouge_l_low rouge_l_high edit_similarity "
        "edit_similarity_low edit_similarity_high",
        "near_ties": f"label dtype {_RATE}",
        "strips": f"{_MODEL} id split copies place token probability guess margin hit secret",
        "at_risk": "id split copies text asked teacher baseline students samples",
        "quality": f"{_MODEL} test_loss records rouge1 rouge2 rougeL rouge1_error rouge2_error rougeL_error",
        # what a student inherits
        "origins": f"size method split set seeds {_RATE}",
        "origins_by_seed": f"size method seed split set {_RATE}",
        "paired": "size method against student other difference low high ratio ratio_low ratio_high p_lowest p_highest "
        "seeds total",
        "transferred": f"{_MODEL} replicate kind records controls recited auc low high p",
        "predictions": f"size method seed records auc auc_low auc_high note removed removed_share {_RATE} "
        "weight_zlib_bytes weight_teacher_loss weight_baseline_loss weight_divergence",
        "savings": "size method seed share_left_out share_avoided",
        "published_claims": "claim theirs size method ours low high outcome",
        # attacks
        "blind": "auc low high members non_members warning",
        "membership": f"{_MODEL} attack measure fpr {_RATE} members non_members left_out note",
        "roc": f"{_MODEL} attack fpr tpr",
        "exposure": f"{_MODEL} id copies teacher_only logprob rank twins exposure recited",
        "doses": f"{_GROUP} teacher_only copies canaries exposure exposure_low exposure_high chance ceiling {_RATE}",
        # what memorization buys
        "trajectories": f"{_MODEL} replicate epoch step tokens {_QUALITY} {KNOWN} {_TRANSFERRED}",
        "stopped": f"{_MODEL} replicate epoch step tokens {_QUALITY} {KNOWN} {_TRANSFERRED}",
        "by_dose": f"{_MODEL} replicate when epoch split kind copies records loss secrets recited from_prompt exposure",
        "costs": f"{_MODEL} parameters bytes training_flops seconds peak_memory_bytes decode_tokens_per_second",
        # comparisons of methods, over replicates
        "claims": "family claim size first second measure quality replicates estimate low high null_largest p_holm verdict because",
        "distances": "family claim size first second measure quality distance replicates estimate low high",
        "tuning": f"size method learning_rate epoch {_QUALITY} chosen",
        # what cutting a model takes away, and healing gives back
        "healing": "size replicate state layers parameters test_loss records rougeL rougeL_error",
        # what a student was never given, and what many students trained alike tell of one
        "other_names": f"{_MODEL} replicate split copies given canaries twins exposure exposure_low exposure_high auc recited",
        "shadow_attacks": "method attack split measure fpr rate low high models members non_members note",
        "privacy_audit": f"{_MODEL} replicate coins guesses correct epsilon_low epsilon_promised delta",
    }.items()
}
