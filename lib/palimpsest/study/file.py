"""A study is one YAML file: data, models, methods, seeds and how to train and measure.

Reading it needs neither torch nor the data, so the runner and `palimpsest check` start at once. Unknown keys are
refused and a near name is suggested; a study may `extends:` another file and state only what differs.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator

from palimpsest.errors import InputError
from palimpsest.study.files import locate
from palimpsest.study.methods import METHODS
from palimpsest.study.sections import (
    Data,
    Measure,
    Models,
    Section,
    Shadows,
    Start,
    TeacherText,
    Tokenizer,
    Train,
    Training,
    Tuning,
    check_private_settings,
)


class Study(Section):
    """Everything in one study file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")  # also the run folder's name, so it can't leave runs/
    title: str
    synthetic: bool = False  # invented data: the book may show it unmasked
    show_secrets: bool = False
    # everything random drawn anew: records, canaries, base, teacher, students
    replicates: int = Field(default=1, gt=0)
    replicate: int = Field(default=0, ge=0)  # which of them this is; `parts.parts_of` sets it
    seeds: list[int] = Field(default=[0], min_length=1)  # of the students of one replicate
    data: Data
    tokenizer: Tokenizer = Tokenizer()
    models: Models
    methods: list[str] = Field(min_length=1)
    pretrain: Training | None = None
    pretrain_by_size: dict[str, dict[str, Any]] = {}
    heal: Training | None = None  # of models cut from the teacher's base: on public text, distilled from it whole
    train: Train = Train()
    teacher: Training
    student: Training
    by_size: dict[str, dict[str, Any]] = {}
    by_method: dict[str, dict[str, Any]] = {}
    by_arm: dict[str, dict[str, dict[str, Any]]] = {}  # size -> method -> settings, as tuned
    methods_by_size: dict[str, list[str]] = {}  # further methods, at one size only
    replicates_by_size: dict[str, PositiveInt] = {}  # how many of the replicates have a size; all, if it isn't named
    replicates_by_method: dict[str, PositiveInt] = {}  # the same of further methods
    tuning: Tuning | None = None
    shadows: Shadows | None = None
    teacher_text: TeacherText = TeacherText()
    measure: Measure = Measure()

    @field_validator("methods")
    @classmethod
    def known_methods(cls, methods):
        check_methods(methods)
        if "sft" not in methods:
            raise ValueError("methods must include 'sft': it is the baseline every distilled student is held against")
        return methods

    @model_validator(mode="after")
    def consistent(self):
        starts = {"teacher": self.models.teacher, **self.models.students}
        if any(m.scratch for m in starts.values()) and not (self.pretrain and self.data.public):
            raise ValueError("models from scratch need a `pretrain` section and `data.public` records")
        cut = any(m.keep for m in starts.values())
        if (cut or self.heal) and not (cut and self.data.public):
            raise ValueError(
                "a model cut from the teacher's base (`keep`) is cut, and by `heal` trained, on public text: ask for `data.public` "
                f"records; found {self.data.public} and {'a' if cut else 'no'} model with `keep`"
            )
        if self.models.teacher.scratch and not self.tokenizer.vocabulary:
            raise ValueError("a teacher from scratch needs `tokenizer.vocabulary`")
        if self.tokenizer.vocabulary and any(m.path for m in starts.values()):
            raise ValueError("a model given by `path` brings its own tokenizer: leave `tokenizer.vocabulary` out")
        for more in self.methods_by_size.values():
            check_methods([*self.methods, *more])
        known_here = self.every_method()
        for where, given, known in (
            ("by_size", self.by_size, self.models.students),
            ("by_arm", self.by_arm, self.models.students),
            ("methods_by_size", self.methods_by_size, self.models.students),
            ("shadows.size", [self.shadows.size] if self.shadows else [], self.models.students),
            ("pretrain_by_size", self.pretrain_by_size, starts),
            ("replicates_by_size", self.replicates_by_size, self.models.students),
            ("replicates_by_method", self.replicates_by_method, [m for m in known_here if m not in self.methods]),
            ("by_method", self.by_method, known_here),
            ("shadows.methods", self.shadows.methods if self.shadows else [], known_here),
            ("tuning.leave_out", self.tuning.leave_out if self.tuning else [], known_here),
            *((f"by_arm.{size}", arms, METHODS) for size, arms in self.by_arm.items()),  # of methods left out, too
        ):
            for name in given:
                if name not in known:
                    raise ValueError(f"{where} names {name!r}{near(name, known)}; this study has {', '.join(known)}")
        for method in known_here:
            other = METHODS[method].leave_out
            if other and other not in self.methods:
                raise ValueError(f"method {method} leaves out what {other} recites: add {other} to methods")
        for arm in self.arms():
            settings = self.training(arm.size, arm.method)
            if METHODS[arm.method].private:
                check_private_settings(settings)
        return self

    def arms(self) -> list["Arm"]:
        """Every student, size x method x seed, as written in the file."""
        return [
            Arm(size, method, seed)
            for seed in self.seeds
            for size in self.models.students
            for method in self.methods_of(size)
        ]

    def methods_of(self, size: str) -> list[str]:
        """The methods a size is trained by."""
        return [*self.methods, *self.methods_by_size.get(size, [])]

    def every_method(self) -> list[str]:
        """The methods that any size is trained by."""
        return list(dict.fromkeys(m for size in self.models.students for m in self.methods_of(size)))

    def everyone(self) -> list["Arm"]:
        """All models of the study in reading order: those before fine-tuning, the teacher, the students."""
        sizes = ["teacher", *self.models.students]
        return [*(Arm(size, "none") for size in sizes), Arm("teacher", "sft"), *self.arms()]

    def seed(self, seed: int | None = None) -> int:
        """The random numbers of a training in this replicate: a student's own seed, or without one those of base and teacher."""
        return (self.seeds[0] if seed is None else seed) + 1_000 * self.replicate

    def arm(self, name: str) -> "Arm":
        """The model of that name.

        Raises:
            InputError: the study has none; a near name is suggested.
        """
        arms = {arm.name: arm for arm in self.everyone()}
        if name not in arms:
            raise InputError(f"study {self.name} has no model {name!r}{near(name, arms)}; it has {', '.join(arms)}")
        return arms[name]

    def training(self, size: str, method: str) -> Training:
        """The `student` section with the changes of this size, the method's row, `by_method` and `by_arm` on top."""
        changes = [self.by_size.get(size, {}), METHODS[method].settings, self.by_method.get(method, {})]
        changes.append(self.by_arm.get(size, {}).get(method, {}))
        return Training(**{k: v for part in (self.student.model_dump(), *changes) for k, v in part.items()})

    def pretraining(self, size: str) -> Training:
        """The `pretrain` section with this size's changes on top; `size` may be "teacher"."""
        return Training(**{**self.pretrain.model_dump(), **self.pretrain_by_size.get(size, {})})

    def start(self, size: str) -> Start:
        """Where the model of this size starts; `size` may be "teacher"."""
        return self.models.teacher if size == "teacher" else self.models.students[size]


@dataclass(frozen=True)
class Arm:
    """One model of a study: a student (size x method x seed); or, without a seed, the teacher (size "teacher", method "sft") or a
    model before fine-tuning (method "none")."""

    size: str
    method: str
    seed: int | None = None

    @property
    def role(self) -> str:
        """base (before fine-tuning), teacher, baseline (`sft`), student (distilled), or mitigated (fine-tuned another way)."""
        if self.method == "none":
            return "base"
        if self.seed is None:
            return "teacher"
        return "baseline" if self.method == "sft" else "student" if METHODS[self.method].distilled else "mitigated"

    @property
    def name(self) -> str:
        """Its folder's name in a run; never taken apart again, `Study.arm` finds what it stands for."""
        if self.seed is None:
            return "teacher" if self.role == "teacher" else f"base-{self.size}"
        return f"{self.size}-{self.method}-s{self.seed}"

    @property
    def label(self) -> str:
        """What figures and tables call it; arms of several seeds share one."""
        if self.role == "teacher":
            return "teacher"
        return f"{self.size}, " + ("before" if self.role == "base" else METHODS[self.method].label)

    def columns(self) -> dict[str, Any]:
        """Who a table's row is about: `model, label, size, method, role, seed` (NaN without one)."""
        who = {name: getattr(self, name) for name in ("label", "size", "method", "role")}
        return {"model": self.name, **who, "seed": float("nan") if self.seed is None else self.seed}


def check_methods(methods: list[str]) -> None:
    """Raise `ValueError` for a method that is unknown, with a near name, or listed twice."""
    for name in methods:
        if name not in METHODS:
            raise ValueError(f"unknown method {name!r}{near(name, METHODS)}; known: {', '.join(METHODS)}")
    if len(set(methods)) < len(methods):
        raise ValueError("a method is listed twice")


def near(name: str, known) -> str:
    """' (did you mean ...?)' or nothing."""
    match = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def load_study(path: str | Path) -> Study:
    """Read and validate a study file.

    Raises:
        InputError: the file is missing, is not YAML, or does not validate; every fault is listed with its place in the
            file, and unknown keys with the nearest known one.
    """
    tree = _read(locate(path), [])
    try:
        study = Study.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(e) for e in error.errors()]
        raise InputError(
            f"study {path}: {len(lines)} fault(s)\n" + "\n".join(f"  - {line}" for line in lines)
        ) from None
    if study.name != locate(path).stem:
        raise InputError(
            f"study {path} has the name {study.name!r}; name it {locate(path).stem!r}, as its file, so that run folders "
            "and files can't be mistaken for one another"
        )
    return study


def _read(path: Path, seen: list[Path]) -> dict:
    if path in seen:
        raise InputError(f"study {path} extends itself: {' -> '.join(str(p) for p in [*seen, path])}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no study file {path}; the project's own are in studies/") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"study {path} is not readable YAML: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"study {path}: wanted keys and values, found {type(tree).__name__}")
    parent = tree.pop("extends", None)
    if not isinstance(parent, str | None):
        raise InputError(f"study {path}: extends is {parent!r}; wanted the path of one other study file")
    return _merge(_read((path.parent / parent).resolve(), [*seen, path]), tree) if parent else tree


def _merge(base: dict, changes: dict) -> dict:
    """Changes win; sections merge key by key, but for `models`, as a model has exactly one start, and `by_arm`, tuned for those."""
    merged = {**base, **changes}
    for key, value in changes.items():
        if key not in ("models", "by_arm") and isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key] = {**base[key], **value}
    return merged


def _explain(error: dict) -> str:
    place = ".".join(str(p) for p in error["loc"])
    if error["type"] == "extra_forbidden":
        known = [name for section in Section.__subclasses__() for name in section.model_fields]
        return f"unknown key {place!r}{near(error['loc'][-1], known)}"
    if error["type"] == "missing":
        return f"{place} is missing"
    found = "" if isinstance(error["input"], dict) or not place else f" (found {error['input']!r})"
    return f"{place + ': ' if place else ''}{error['msg'].removeprefix('Value error, ')}{found}"
