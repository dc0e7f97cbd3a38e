# The one runner: a rule per stage. `make book` calls it; see README for running it by hand or on a cluster.
#
#   snakemake --cores 2 --config study=studies/demo.yaml
#
# Changing a value in the study re-runs exactly the stages that depend on it: each rule's params hold the part of the study
# it reads. Stages also recognise their own finished work by fingerprint, so a run that was killed goes on where it was. A
# notebook's only declared output is its executed copy: were the model it trains declared too, a later cell that fails would
# make Snakemake delete a finished model.
import os
import sys
from pathlib import Path

from palimpsest.errors import InputError
from palimpsest.study.methods import METHODS
from palimpsest.study import Arm, fingerprint, load_study

STUDY = config.get("study", "studies/demo.yaml")
try:
    S = load_study(STUDY)
except InputError as error:
    sys.exit(f"error: {error}")

RUN = str(Path(config.get("runs", "runs")) / S.name)
ARMS = [arm.name for arm in S.arms()]
BY_NAME = {arm.name: arm for arm in S.arms()}
SIZES = list(S.models.students)
THREADS = int(config.get("threads", 1))  # two arms at one thread each beat one arm at two
ANALYSES = ["04_memorization", "05_inheritance", "06_attacks", "07_tradeoffs", "08_grid"]
GPU = int(config.get("gpu", 0))  # GPUs a training stage asks the cluster or `--resources gpu=N` for
PYTHON = sys.executable

wildcard_constraints:
    size="[A-Za-z0-9]+",
    arm="|".join(ARMS),
    analysis="|".join(ANALYSES + ["00_intro"]),

onstart:
    print(f"study {S.name}: {len(ARMS)} arms, {len(SIZES)} student size(s), run folder {RUN}")

onerror:
    print(f"A stage failed. Finished stages are kept; executed copies of failed notebooks are in {RUN}/logs. "
          "Mend the cause and give the same command again.")


def notebook(name, out, log, **parameters):
    """The shell line that executes a notebook; every path and parameter is stated."""
    given = {"study": STUDY, "run_dir": RUN, **parameters}
    flags = " ".join(f"-p {key} '{value}'" for key, value in given.items())
    return (
        f"OMP_NUM_THREADS={THREADS} {PYTHON} -m palimpsest.book.launch notebook notebooks/{name}.ipynb {out} "
        f"--log {RUN}/logs/{log}.ipynb {flags} > {RUN}/logs/{log}.txt 2>&1 "
        f"|| (tail -n 15 {RUN}/logs/{log}.txt; exit 1)"
    )


def command(line, log):
    return (
        f"mkdir -p {RUN}/logs; OMP_NUM_THREADS={THREADS} {PYTHON} -m palimpsest.book.launch {line} > {RUN}/logs/{log}.txt 2>&1 "
        f"|| (tail -n 15 {RUN}/logs/{log}.txt; exit 1)"
    )


def parents_of(arm):
    """What must be finished before an arm can start; plain fine-tuning need not wait for the teacher."""
    method = METHODS[BY_NAME[arm].method]
    needed = [f"{RUN}/models/base-{BY_NAME[arm].size}/run.json"]
    if method.needs_teacher:
        needed.append(f"{RUN}/notebooks/02_teacher.ipynb")
    if method.text == "teacher":
        needed.append(f"{RUN}/teacher_text/run.json")
    if method.leave_out:
        size, seed = BY_NAME[arm].size, BY_NAME[arm].seed
        needed += [f"{RUN}/notebooks/02_teacher.ipynb"]
        needed += [f"{RUN}/notebooks/runs/{Arm(size, name, seed).name}.ipynb" for name in sorted({method.leave_out, "sft"})]
    return needed


rule book:
    input:
        f"{RUN}/html/index.html",


rule data:
    input:
        "notebooks/01_data.ipynb",
    output:
        f"{RUN}/notebooks/01_data.ipynb",
    params:
        settings=fingerprint([S.data, S.tokenizer, S.models.teacher]),
    shell:
        "mkdir -p " + f"{RUN}/logs; " + notebook("01_data", "{output}", "01_data")


rule base:
    input:
        f"{RUN}/notebooks/01_data.ipynb",
        lambda w: f"{RUN}/models/base-teacher/run.json" if S.start(w.size).keep_every else [],
    output:
        f"{RUN}/models/base-{{size}}/run.json",
    params:
        settings=lambda w: fingerprint([S.start(w.size), S.pretraining(w.size) if S.start(w.size).scratch else None, S.measure]),
    priority: 10
    threads: THREADS
    resources:
        gpu=GPU,
    shell:
        command(f"base --study {STUDY} --run-dir {RUN} --size {{wildcards.size}}", "base-{wildcards.size}")


rule teacher:
    input:
        f"{RUN}/models/base-teacher/run.json",
        "notebooks/02_teacher.ipynb",
    output:
        f"{RUN}/notebooks/02_teacher.ipynb",
    params:
        settings=fingerprint([S.teacher, S.measure]),
    priority: 20
    threads: THREADS
    resources:
        gpu=GPU,
    shell:
        notebook("02_teacher", "{output}", "02_teacher")


rule teacher_text:
    input:
        f"{RUN}/notebooks/02_teacher.ipynb",
    output:
        f"{RUN}/teacher_text/run.json",
    params:
        settings=fingerprint(S.teacher_text),
    priority: 15
    threads: THREADS
    resources:
        gpu=GPU,
    shell:
        command(f"teacher-text --study {STUDY} --run-dir {RUN}", "teacher_text")


rule student:
    input:
        lambda w: parents_of(w.arm),
        "notebooks/03_student.ipynb",
    output:
        f"{RUN}/notebooks/runs/{{arm}}.ipynb",
    params:
        settings=lambda w: fingerprint([S.training(BY_NAME[w.arm].size, BY_NAME[w.arm].method), S.measure]),
    # the longest arms first, so that no core is left alone with one at the end
    priority: lambda w: 5 if METHODS[BY_NAME[w.arm].method].samples else 0
    threads: THREADS
    resources:
        gpu=GPU,
    shell:
        notebook("03_student", "{output}", "{wildcards.arm}", arm="{wildcards.arm}")


rule analysis:
    input:
        f"{RUN}/notebooks/01_data.ipynb",
        f"{RUN}/notebooks/02_teacher.ipynb",
        expand(f"{RUN}/notebooks/runs/{{arm}}.ipynb", arm=ARMS),
        "notebooks/{analysis}.ipynb",
        lambda w: [f"{RUN}/notebooks/{n}.ipynb" for n in ANALYSES] if w.analysis == "00_intro" else [],
        lambda w: sorted(Path("book/published").rglob("*.csv")) if w.analysis == "08_grid" else [],
    output:
        f"{RUN}/notebooks/{{analysis}}.ipynb",
    params:
        study=fingerprint(S),
    shell:
        notebook("{wildcards.analysis}", "{output}", "{wildcards.analysis}")


rule html:
    input:
        expand(f"{RUN}/notebooks/{{name}}.ipynb", name=["00_intro", "01_data", "02_teacher", *ANALYSES]),
        expand(f"{RUN}/notebooks/runs/{{arm}}.ipynb", arm=ARMS),
        "_config.yml",
        [str(p) for p in sorted(Path("book").rglob("*")) if p.is_file()],
    output:
        f"{RUN}/html/index.html",
    shell:
        f"({PYTHON} -m palimpsest.book.assembly {RUN} book {RUN}/book"
        f" && jupyter-book build {RUN}/book --config _config.yml --path-output {RUN}/build -W -n --keep-going"
        f" && rm -rf {RUN}/html && mv {RUN}/build/_build/html {RUN}/html) > {RUN}/logs/book.txt 2>&1"
        f" || (tail -n 30 {RUN}/logs/book.txt; exit 1)"
