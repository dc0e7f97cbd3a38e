"""The runner and the stages agree on what is stale, whatever the study's path."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def dry_run(project, study, *more, cores=2, **environment):
    """What Snakemake would do: its whole output, commands included."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", str(cores), "-n", "-p", "--config", f"study={study}", *more],
        cwd=project,
        env={**os.environ, **environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def planned(text):
    """Rule -> the stages it would make (arms and sizes by their names)."""
    stages = {}
    for block in re.split(r"\n(?=(?:local)?rule )", text):
        if found := re.match(r"(?:local)?rule (\w+):", block):
            which = re.search(r"wildcards: (?:arm|size|analysis)=([\w-]+)", block)
            stages.setdefault(found[1], set()).add(which[1] if which else "")
    return stages


@contextmanager
def edited(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.xdist_group("smoke, edited")
class TestAfterTheSmokeRun:
    STUDY = "studies/smoke.yaml"

    @pytest.fixture(scope="class")
    def project(self, smoke_run, tmp_path_factory):
        """A copy, for what is edited here."""
        return shutil.copytree(smoke_run.parents[1], tmp_path_factory.mktemp("edited") / "project")

    def plan(self, project, **environment):
        return planned(dry_run(project, self.STUDY, **environment))

    def test_an_edited_page_of_the_data_touches_no_model(self, project):
        with edited(project / "notebooks" / "01_data.ipynb", "What you will see", "What you'll see"):
            plan = self.plan(project)
        assert set(plan) == {"data", "html", "description", "book"}

    def test_text_that_is_no_longer_shown_is_taken_from_tables_and_pages_and_nothing_is_trained(self, project):
        with edited(project / self.STUDY, "show_secrets: true", "show_secrets: false"):
            plan = self.plan(project)
        assert {"data", "tables", "analysis"} <= set(plan)
        assert not {"records", "base", "teacher", "teacher_text", "student", "part_teacher", "part_students"} & set(
            plan
        )

    def test_nothing_is_left_to_do(self, project):
        assert self.plan(project) == {}

    def test_other_library_code_makes_tables_and_pages_again_and_draws_or_measures_nothing(self, project, tmp_path):
        library = shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
        with edited(library / "palimpsest" / "chapters" / "figures.py", '"""', '"""Other words. '):
            plan = self.plan(project, PYTHONPATH=str(library))
        assert {"data", "teacher", "student", "tables", "analysis", "html", "description"} <= set(plan)
        assert not {"records", "base", "part_teacher", "part_students"} & set(plan)

    def test_edited_data_makes_every_stage_again(self, project):
        with edited(project / "data" / "helpdesk" / "records.jsonl", "the", "teh"):
            plan = self.plan(project)
        assert {"records", "data", "base", "teacher", "teacher_text", "student", "tables", "analysis", "html"} <= set(
            plan
        )

    def test_another_teacher_makes_its_students_again_and_no_other(self, project):
        with edited(project / self.STUDY, "teacher: {epochs: 10", "teacher: {epochs: 9"):
            plan = self.plan(project)
        assert not {"records", "data", "base"} & set(plan) and plan["teacher"] == {""}
        assert plan["student"] == {"small-word_kd-s0", "small-seq_kd-s0", "small-rkl_student-s0"}

    def test_a_key_of_one_kind_of_method_trains_no_other(self, project):
        with edited(project / self.STUDY, "rollout_steps: 4", "rollout_steps: 3"):
            plan = self.plan(project)
        assert "teacher" not in plan and plan["student"] == {"small-rkl_student-s0"}

    def test_another_window_measures_training_anew_and_keeps_the_base(self, project):
        with edited(project / self.STUDY, "left_target: 8", "left_target: 9"):
            plan = self.plan(project)
        assert "records" not in plan and plan["base"] == {"teacher", "small"}  # measured again; the models are kept


def test_a_study_may_lie_anywhere(tmp_path):
    folder = tmp_path / "my studies; it's"
    folder.mkdir()
    study = folder / "smoke.yaml"
    study.write_text((ROOT / "studies" / "smoke.yaml").read_text())
    runs = tmp_path / "my runs"
    text = dry_run(ROOT, study, f"runs={runs}")
    lines = [line for line in text.splitlines() if "palimpsest.book.launch" in line]
    assert len(lines) > 10
    for line in lines:
        words = shlex.split(line.removeprefix("Shell command: "))
        assert str(study) in words and str(runs / "smoke") in words


@pytest.mark.parametrize(("cores", "teacher", "arm"), [(1, 1, 1), (2, 1, 1), (8, 7, 2)])
def test_the_teacher_has_the_cores_that_no_arm_beside_it_needs(tmp_path, cores, teacher, arm):
    text = dry_run(ROOT, "studies/smoke.yaml", f"runs={tmp_path}", cores=cores)
    found = {}
    for block in re.split(r"\n(?=(?:local)?rule )", text):
        if rule := re.match(r"(?:local)?rule (\w+):", block):
            threads = re.search(r"threads: (\d+)", block)
            found[rule[1]] = int(threads[1]) if threads else 1
    assert (found["teacher"], found["student"]) == (teacher, arm)


def test_make_passes_a_path_with_a_space_on(tmp_path):
    study = tmp_path / "my study.yaml"
    study.write_text((ROOT / "studies" / "smoke.yaml").read_text())
    done = subprocess.run(
        ["make", "-n", "-o", ".venv/ready", "book", f"STUDY={study}"], cwd=ROOT, capture_output=True, text=True
    )
    (line,) = [line for line in done.stdout.splitlines() if "snakemake" in line]
    assert f"study={study}" in shlex.split(line)
    assert any(line.endswith('runs/smoke/html/index.html"') for line in done.stdout.splitlines())
