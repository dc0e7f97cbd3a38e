# The one runner: a rule per stage. `make book` calls it; see README for running it by hand or on a cluster.
#
#   snakemake --cores 2 --config study=studies/demo.yaml
#
# What a stage depends on is said in one place, `palimpsest.study.fingerprints`: a rule's parameter is the stage's fingerprint, the
# same that the stage itself compares with what lies in its folder, so a run that was killed goes on where it was. A
# notebook's only declared output is its executed copy: were the model it trains declared too, a later cell that fails would
# make Snakemake delete a finished model. Where a rule does declare a stage's `run.json`, the file is kept for the stage to look
# at (`update`), and touched. No model depends on the data's page.
import shlex
import sys
from pathlib import Path

from palimpsest.book.checks import check_capacity
from palimpsest.errors import InputError
from palimpsest.study import METHODS, locate, open_run
from palimpsest.study.files import file_digest
from palimpsest.study.fingerprints import OF_PAGES, code_of, fingerprint, read_first
from palimpsest.study.sections import check_logging

STUDY = str(config.get("study", "studies/demo.yaml"))
try:
    S = open_run(STUDY).study
    check_logging(S.train)
    R = open_run(S, Path(config.get("runs", "runs")) / S.name)
    if workflow.cores:  # else the machine that plans is not the one that trains
        check_capacity(R, workflow.cores)
    PRINTS = R.fingerprints
    CODE = code_of(OF_PAGES)  # a page is made again after an update; what it trained is not
except InputError as error:
    sys.exit(f"error: {error}")

RUN = str(Path(config.get("runs", "runs")) / S.name)
ARMS = {arm.name: arm for arm in S.arms()}
SIZES = list(S.models.students)
ANALYSES = sorted(p.stem for p in Path("notebooks").glob("0[04-9]_*.ipynb"))
STATIC = ["_config.yml", *(str(p) for p in sorted(Path("book").rglob("*")) if p.is_file())]
PARTS = R.parts()  # beside the first replicate, each in a folder of its own
DONE = [f"{RUN}/{name}/{size}.done" for name, part in PARTS.items() for size in part.study.models.students]
GPU = int(config.get("gpu", 0))  # GPUs a training stage asks the cluster or `--resources gpu=N` for
PYTHON = shlex.quote(sys.executable)
# Arms share the cores, one each where there are as many arms as cores: two small models at one thread each beat one at two. The
# teacher, and its text, have what the arms that can run beside them leave; with none, every core.
ALL = int(config.get("threads", workflow.cores or 1))
EACH = int(config.get("threads", max(1, ALL // max(1, len(ARMS)))))
BESIDE_TEACHER = sum(not METHODS[a.method].distilled and not METHODS[a.method].leave_out for a in ARMS.values())
BESIDE_TEXT = sum(METHODS[a.method].text != "teacher" for a in ARMS.values())


def left_by(others):
    return int(config.get("threads", max(1, ALL - others)))


wildcard_constraints:
    size="[A-Za-z0-9]+",
    arm="|".join(ARMS),
    part="|".join([*PARTS, "none"]),
    what="teacher|" + "|".join(SIZES),
    analysis="|".join(ANALYSES),

onstart:
    print(f"study {S.name}: {len(ARMS)} arms, {len(SIZES)} student size(s), run folder {RUN}")

onerror:
    print(f"A stage failed. Finished stages are kept; executed copies of failed notebooks are in {RUN}/logs. "
          "Correct the cause and give the same command again.")


def shell_line(line, log):
    """A stage of the library in a process of its own, its output in the run's log; the end of the log is shown if it fails.

    Snakemake sets the thread variables of every numerical library to the rule's threads."""
    log = shlex.quote(f"{RUN}/logs/{log}.txt")
    logs = shlex.quote(f"{RUN}/logs")
    run = f"{PYTHON} -m palimpsest.book.launch"
    left = f"{run} progress --study {shlex.quote(STUDY)} --run-dir {shlex.quote(RUN)} --cores {workflow.cores or 1}"
    told = f" && ({left} || true)" if line.split()[0] == "part" or "03_student" in line else ""  # where hours go
    return f"mkdir -p {logs}; ({run} {line} > {log} 2>&1 || (tail -n 15 {log}; exit 1)){told}"


def notebook(name, log, **parameters):
    """The shell line that executes a notebook; every path and parameter is stated."""
    given = {"study_file": STUDY, "run_dir": RUN, **parameters}
    flags = " ".join(f"-p {key} {shlex.quote(value)}" for key, value in given.items())
    place = shlex.quote(f"{RUN}/logs/") + f"{log}.ipynb"
    return shell_line(f"notebook notebooks/{name}.ipynb {{output:q}} --log {place} {flags}", log)


def stage(name, log, more=""):
    return shell_line(f"{name} --study {shlex.quote(STUDY)} --run-dir {shlex.quote(RUN)} {more}", log)


def parents_of(arm):
    """What must be finished before an arm can start; plain fine-tuning need not wait for the teacher."""
    arm = ARMS[arm]
    method = METHODS[arm.method]
    needed = [f"{RUN}/models/base-{arm.size}/run.json"]
    if method.needs_teacher or method.leave_out:
        needed.append(f"{RUN}/notebooks/02_teacher.ipynb")
    if method.text == "teacher":
        needed.append(f"{RUN}/teacher_text/run.json")
    return needed + [f"{RUN}/notebooks/runs/{other.name}.ipynb" for other in read_first(arm)]


rule book:
    input:
        f"{RUN}/html/index.html",
        f"{RUN}/ro-crate-metadata.json",


rule records:
    output:
        touch(f"{RUN}/data.done"),
    params:
        fingerprint=PRINTS["data"],
    shell:
        stage("data", "data")


rule data:
    input:
        f"{RUN}/data.done",
        "notebooks/01_data.ipynb",
    output:
        f"{RUN}/notebooks/01_data.ipynb",
    params:
        fingerprint=[S.show_secrets, CODE],
    shell:
        notebook("01_data", "01_data")


rule base:
    input:
        f"{RUN}/data.done",
        lambda w: f"{RUN}/models/base-teacher/run.json" if S.start(w.size).keep else [],
    output:
        update(f"{RUN}/models/base-{{size}}/run.json"),
    params:
        fingerprint=lambda w: [PRINTS[f"models/base-{w.size}"], PRINTS[f"scores/base-{w.size}"]],
    priority: lambda w: 30 if w.size == "teacher" else 10  # the longest way through the study begins with it
    threads: EACH
    resources:
        gpu=GPU,
    shell:
        stage("base", "base-{wildcards.size}", "--size {wildcards.size}") + " && touch {output:q}"


rule teacher:
    input:
        f"{RUN}/models/base-teacher/run.json",
        "notebooks/02_teacher.ipynb",
    output:
        f"{RUN}/notebooks/02_teacher.ipynb",
    params:
        fingerprint=[PRINTS["models/teacher"], PRINTS["scores/teacher"], PRINTS["teacher_text"] if "seq_kd" in S.every_method() else "", CODE],
    priority: 20
    threads: left_by(BESIDE_TEACHER)
    resources:
        gpu=GPU,
    shell:
        notebook("02_teacher", "02_teacher")


rule teacher_text:
    input:
        f"{RUN}/notebooks/02_teacher.ipynb",
    output:
        update(f"{RUN}/teacher_text/run.json"),
    params:
        fingerprint=PRINTS["teacher_text"],
    priority: 15
    threads: left_by(BESIDE_TEXT)
    resources:
        gpu=GPU,
    shell:
        stage("teacher-text", "teacher_text") + " && touch {output:q}"


rule student:
    input:
        lambda w: parents_of(w.arm),
        "notebooks/03_student.ipynb",
    output:
        f"{RUN}/notebooks/runs/{{arm}}.ipynb",
    params:
        fingerprint=lambda w: [PRINTS[f"models/{w.arm}"], PRINTS[f"scores/{w.arm}"], CODE],
    # The longest arms first, so that no core is left alone with one at the end; in a study with parts they come last, for
    # they are what can be done without where hours run out.
    priority: lambda w: (1 if PARTS else 5) if METHODS[ARMS[w.arm].method].samples else 4 if PARTS else 0
    threads: EACH
    resources:
        gpu=GPU,
    shell:
        notebook("03_student", "{wildcards.arm}", arm="{wildcards.arm}")


rule part_teacher:
    output:
        touch(f"{RUN}/{{part}}/teacher.done"),
    params:
        fingerprint=lambda w: PARTS[w.part].fingerprints["scores/teacher"],
    priority: 3
    resources:
        gpu=GPU,
    shell:
        stage("part", "{wildcards.part}-teacher", "--part {wildcards.part} --what teacher")


ruleorder: part_teacher > part_students


rule part_students:
    input:
        f"{RUN}/{{part}}/teacher.done",
    output:
        touch(f"{RUN}/{{part}}/{{what}}.done"),
    params:
        fingerprint=lambda w: sorted(v for k, v in PARTS[w.part].fingerprints.items() if k.startswith(f"models/{w.what}-")),
    priority: 2
    resources:
        gpu=GPU,
    shell:
        stage("part", "{wildcards.part}-{wildcards.what}", "--part {wildcards.part} --what {wildcards.what}")


rule tables:
    input:
        DONE,
        f"{RUN}/notebooks/02_teacher.ipynb",
        expand(f"{RUN}/models/base-{{size}}/run.json", size=SIZES),
        expand(f"{RUN}/notebooks/runs/{{arm}}.ipynb", arm=ARMS),
    output:
        f"{RUN}/tables/run.json",
    params:
        fingerprint=PRINTS["tables"],
    shell:
        stage("tables", "tables")


rule analysis:
    input:
        f"{RUN}/tables/run.json",
        "notebooks/{analysis}.ipynb",
        sorted(Path("book/published").rglob("*.csv")),
    output:
        f"{RUN}/notebooks/{{analysis}}.ipynb",
    params:
        fingerprint=PRINTS["pages"],
    shell:
        notebook("{wildcards.analysis}", "{wildcards.analysis}")


rule html:
    input:
        expand(f"{RUN}/notebooks/{{name}}.ipynb", name=["01_data", "02_teacher", *ANALYSES]),
        expand(f"{RUN}/notebooks/runs/{{arm}}.ipynb", arm=ARMS),
        STATIC,
    output:
        f"{RUN}/html/index.html",
    params:
        folder=RUN,
        # The library whole, whose docstrings are the reference, and all pages of `book`. What Sphinx has read of them (`build`) is kept
        # for the next book made of the same, if it was read without a warning; a build that failed or was killed leaves nothing.
        fingerprint=fingerprint([code_of(("",)), [[p, file_digest(Path(p))] for p in STATIC]]),
    shell:
        stage("pages", "pages", "--out {params.folder:q}/book")
        + " && (grep -qsx {params.fingerprint} {params.folder:q}/build/of || rm -rf {params.folder:q}/build; rm -f {params.folder:q}/build/of;"
        " jupyter-book build {params.folder:q}/book --config _config.yml --path-output {params.folder:q}/build -W -n --keep-going"
        " && rm -rf {params.folder:q}/html && mv {params.folder:q}/build/_build/html {params.folder:q}/html"
        " && echo {params.fingerprint} > {params.folder:q}/build/of)"
        " > {params.folder:q}/logs/book.txt 2>&1 || (tail -n 30 {params.folder:q}/logs/book.txt; exit 1)"


rule description:
    input:
        f"{RUN}/html/index.html",
        f"{RUN}/tables/run.json",
    output:
        f"{RUN}/ro-crate-metadata.json",
    params:
        fingerprint=PRINTS["pages"],
    shell:
        stage("describe", "describe")
