"""The sections of a study file, each with its defaults and the reason for its limits."""

from importlib.util import find_spec
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from palimpsest.errors import InputError


class Section(BaseModel):
    """A part of a study file; a key it does not know is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    """Where the records come from and how many are drawn."""

    source: str  # file, folder or pattern of shards, saved data set, or hub id owner/name:config:split@revision
    revision: str | None = None  # of a hub id: branch, tag or commit
    columns: dict[str, str] = {}  # our column name -> the file's
    annotations: list[Literal["split", "kind", "secrets", "copies"]] = []  # columns with our meaning
    # chat (the tokenizer's own), alpaca, plain, or {with_context: ..., without_context: ...}
    template: str | dict[str, str] = "alpaca"
    # how many; or how many by copies in the training text: {1: 90, 16: 10}
    members: PositiveInt | dict[PositiveInt, PositiveInt]
    # as many again that the teacher alone is fine-tuned on: split `teacher_only`, beside `member`
    halves: bool = False
    non_members: int = Field(gt=0)
    validation: int = Field(default=0, ge=0)  # to stop, match, calibrate and tune on; 0: the non-members serve
    test: int = Field(gt=0)
    public: int = Field(default=0, ge=0)  # text for models trained from scratch
    # copies -> how many of the source's canaries have them, in each half
    canaries: dict[PositiveInt, PositiveInt] = {}
    coins: int = Field(default=0, ge=0)  # more canaries, each a member (once) or a twin by the toss of a fair coin
    twins: int = Field(default=0, ge=0)  # further ones that no model sees
    # deal halves and non-members from the first so many letters, others from those after
    limit: int | None = Field(default=None, gt=0)
    # leave out letters with a shorter response, in tokens of the study's tokenizer
    min_response_tokens: int | None = Field(default=None, gt=0)
    max_prompt_tokens: int | None = None
    max_tokens: int | None = None
    too_long: Literal["refuse", "drop", "cut"] = "refuse"  # cut shortens the response from the right
    empty_responses: Literal["refuse", "drop"] = "refuse"
    duplicates: Literal["refuse", "drop"] = "drop"  # the same record twice would be member and non-member at once
    seed: int = 0

    @property
    def doses(self) -> dict[int, int]:
        """Copies in the training text -> members that have them, in each half."""
        return self.members if isinstance(self.members, dict) else {1: self.members}

    @model_validator(mode="after")
    def twins_for_canaries(self):
        if not self.doses:
            raise ValueError("members: wanted how many, or how many by copies ({1: 90, 16: 10}); found none")
        if (self.canaries or self.coins) and not self.twins:
            raise ValueError("canaries are ranked among unseen twins: ask for some (data.twins, 128 or more)")
        return self


class Tokenizer(Section):
    """`vocabulary`: train a byte-level BPE of that many entries on the public split; otherwise the teacher's own."""

    vocabulary: int | None = Field(default=None, ge=257)


class Scratch(Section):
    """Shape of a model trained from random weights on the public split."""

    architecture: Literal["gpt2", "llama"] = "gpt2"
    layers: int = Field(gt=0)
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    context: int = Field(default=256, gt=0)


class Start(Section):
    """Where a model starts: exactly one of a folder or hub id, random weights, or layers kept from the teacher's base: so many, those
    of most influence on public text (`layers.block_influence`)."""

    path: str | None = None
    scratch: Scratch | None = None
    keep: PositiveInt | None = None
    revision: str | None = None  # of a hub id: branch, tag or commit
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def one_start(self):
        given = [k for k in ("path", "scratch", "keep") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"a model starts from exactly one of path, scratch, keep; found {given or 'none'}")
        return self


class Models(Section):
    """The teacher, and the students by the names of their sizes."""

    teacher: Start
    students: dict[str, Start] = Field(min_length=1)

    @field_validator("students")
    @classmethod
    def plain_names(cls, students):
        for name in students:
            if not name.isalnum() or name == "teacher":
                raise ValueError(f"student size {name!r}: use letters and digits only, and not 'teacher'")
        return students

    @model_validator(mode="after")
    def teacher_is_whole(self):
        if self.teacher.keep:
            raise ValueError("the teacher cannot be cut from itself: give it a path or scratch")
        return self


class Lora(Section):
    """Low-rank adapters trained instead of all weights, and merged at the end."""

    rank: int = Field(default=8, gt=0)
    alpha: int = Field(default=16, gt=0)
    targets: list[str] | Literal["all-linear"] = "all-linear"


class Privacy(Section):
    """What DP-SGD (method `sft_private`) is to guarantee for one record."""

    epsilon: float = Field(default=8.0, gt=0)
    delta: float | None = Field(default=None, gt=0, lt=1)  # None: 1 / (2 x records)
    clip: float = Field(default=1.0, gt=0)  # largest norm of one record's gradient


class Training(Section):
    """How one model is trained. Batch size is the number of records per optimizer step."""

    epochs: float = Field(gt=0)
    batch_size: int = Field(gt=0)
    accumulation: int = Field(default=1, gt=0)  # micro-batches a batch is split into
    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    min_learning_rate: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)  # None: the model's own
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_checkpointing: bool = False
    lora: Lora | None = None
    max_steps: int | None = Field(default=None, gt=0)  # stop early, for trying a study out
    cross_entropy_weight: float | None = Field(default=None, ge=0, le=1)  # None: the method's own
    temperature: float = Field(default=1.0, gt=0)  # of the divergence
    sampling_temperature: float = Field(default=1.0, gt=0)  # of student samples
    max_new_tokens: int = Field(default=128, gt=0)  # length limit of student samples
    rollout_steps: int = Field(default=1, gt=0)  # optimizer steps served by one sampling of the student
    warm_start_epochs: int = Field(default=0, ge=0)  # begin from the size's own `sft` after this many epochs
    goldfish_drop: int = Field(default=4, gt=1)  # `sft_goldfish` leaves one token in so many out of the loss
    goldfish_context: int = Field(default=13, gt=0)  # tokens before it that decide whether
    privacy: Privacy = Privacy()  # of `sft_private`

    @model_validator(mode="after")
    def whole_micro_batches(self):
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of accumulation {self.accumulation}")
        return self

    @property
    def scheduler(self) -> tuple[str, dict[str, float]]:
        """Name and options of the learning-rate schedule, in transformers' words."""
        if self.schedule == "cosine" and self.min_learning_rate:
            return "cosine_with_min_lr", {"min_lr": self.min_learning_rate}
        return self.schedule, {}


def check_private_settings(settings: Training) -> None:
    """Raise `InputError` for settings under which DP-SGD (methods that are `private`) can't be computed or accounted for."""
    asked = [k for k in ("max_steps", "gradient_checkpointing", "lora") if getattr(settings, k)]
    asked += ["precision: bf16"] * (settings.precision == "bf16") + ["epochs below 1"] * (settings.epochs < 1)
    if asked:
        raise InputError(
            f"DP-SGD is computed in fp32, for whole epochs, on all weights, without gradient checkpointing; found "
            f"{', '.join(asked)}: leave that out of this method's settings (by_method)"
        )


class Train(Section):
    """What goes for every training of the study and changes no result."""

    log_to: list[Literal["tensorboard"]] = []  # where a training's curves are also written, on this machine


def check_logging(train: Train) -> None:
    """Raise `InputError`, with the command to type, if what `log_to` names is not installed."""
    if missing := [name for name in train.log_to if find_spec(name) is None]:
        raise InputError(
            f"train.log_to asks for {', '.join(missing)}, which is not installed, so nothing was started. Install it: pip install "
            "'palimpsest[log]'; or leave log_to out of the study"
        )


class TeacherText(Section):
    """How the teacher writes the corpus of `seq_kd`, once."""

    decode: Literal["greedy", "beam", "sample"] = "greedy"
    beams: int = Field(default=4, gt=1)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=128, gt=0)


class Sampling(Section):
    """A decoding rule under which (n, p)-discoverable extraction is also computed."""

    temperature: float = Field(default=1.0, gt=0)
    top_k: int | None = Field(default=None, gt=0)
    top_p: float | None = Field(default=None, gt=0, le=1)


class Tuning(Section):
    """The grid that every method and size is trained on, judged by validation quality alone, on a replicate of its own. Epochs
    are read off each training's trajectory, so the learning rate should be constant."""

    learning_rates: list[PositiveFloat] = Field(min_length=2)
    leave_out: list[str] = []  # methods that take over another's setting


class Shadows(Section):
    """Teachers and students trained alike on random parts of one pool of letters, to attack each with the others."""

    models: int = Field(default=16, ge=6)
    size: str
    methods: list[str] = Field(min_length=1)
    members: PositiveInt  # in each half; the others are the teacher's alone
    non_members: PositiveInt


class Measure(Section):
    """What is measured of every finished model, and of one in training."""

    window: int = Field(default=50, gt=0)  # response tokens of the headline reading
    sampling: dict[str, Sampling] = {}
    approximate: int = Field(default=100, ge=0)  # letters of each split that are decoded from their prompts; 0: none
    left_truncated: list[PositiveInt] = []  # context tokens k, each scored anew before one fixed target; []: off
    left_target: int = Field(default=16, gt=0)  # that target: the last so many response tokens
    precision: Literal["fp32", "bf16", "auto"] = "fp32"  # bf16 flips about one verdict in a hundred
    trajectory_every: float = Field(default=1, gt=0)  # epochs between two points of the trajectory
    trajectory_early: list[PositiveFloat] = []  # epochs of further points, where the curve is steep
    trajectory_prompts: int = Field(default=32, ge=0)  # validation prompts decoded for ROUGE-L at every point; 0: none
    generate_test: int | None = None  # test records decoded for ROUGE; None: all
