"""One module per chapter: its tables, its words, its figures.

In: `tables(run)` of a chapter reads score tables, once, in the tables stage (`write_tables`). Everything else takes what `study.load_tables` gives.
Out: a noun is a frame (`memorization.rates`), `show_` a table for reading, `plot_` a figure, `say_` sentences of the same frame.
Open first: `memorization`. The look shared by all is `figures`.
To add a chapter: 1. a module here with `tables(run)`, in `WITH_TABLES`; 2. its columns in `study.columns`; 3. a notebook pair in
`notebooks/`, its cells tagged `csv:NAME` with the table they show; 4. its line in `book/_toc.yml`; the runner finds it there.
"""

from pathlib import Path

from palimpsest.chapters import (
    attacks,
    claims,
    closely,
    comparisons,
    dataset,
    front,
    inheritance,
    memorization,
    real_model,
    shadows,
    tradeoffs,
    training,
)
from palimpsest.study import Run, run_once, write_table

# Chapters whose `tables(run)` the tables stage writes, in this order.
WITH_TABLES = (dataset, memorization, closely, inheritance, attacks, shadows, tradeoffs, comparisons, real_model)


def write_tables(run: Run) -> Path:
    """Everything the chapters read, from the score tables, once: `tables/*.csv` (`study.tables`). The stage after all students."""
    for arm in run.study.everyone():
        run.require(f"scores/{arm.name}")
    with run_once(run, "tables") as facts:
        if facts is not None:
            for chapter in WITH_TABLES:
                for name, table in chapter.tables(run).items():
                    write_table(table, run.tables / f"{name}.csv")
    return run.tables
