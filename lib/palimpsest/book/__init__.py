"""The stages of a study in order, and the book put together.

In: a run (`study.open_run`); for the book, the static pages of `book/` and the run's executed notebooks.
Out: everything in the run folder: data, models, scores, tables, executed notebooks, and the sources of its book.
Open first: `stages`, which the Snakefile, the notebooks and JupyterLab all call; then `assembly`.
To add a stage: 1. a function of a run in `stages`, its body under `run_once`; 2. what it depends on, in `study.fingerprints`;
3. its name in `launch.STAGES`, or a notebook that calls it; 4. a rule in the Snakefile, whose parameter is its fingerprint.
"""
