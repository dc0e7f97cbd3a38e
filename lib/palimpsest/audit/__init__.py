"""What does any causal language model recite of a file? An audit: nothing is trained, one folder of results.

In: a model (folder or hub id), conversations, records or texts (whatever `data.sources` reads), `Settings`; better with
records the model was not trained on (`non_members`) and the model before its fine-tuning (`reference`).
Out: a folder with `report.html`, `summary.json` (every rate with count and interval) and `records.parquet` (a row per record).
Open first: `auditing.run`, the whole audit in order; then `summary`, which says what is counted, `signoff` (who is most at risk,
what can't be excluded, the limit of a release), `family` (teacher, student, baseline), `people`, `shards` and `compare`.
To add a setting: 1. a field in `settings.Settings`, which is the flag of `palimpsest audit` too; 2. if numbers depend on it, an
entry in `auditing._said`; 3. what it does, in the module it concerns; 4. a test.

From Python::

    from palimpsest import audit
    summary = audit.run("my-model", "members.jsonl", "audit", audit.Settings(non_members="held_out.jsonl"))
    audit.report("audit")  # the page again, from the folder
"""

from palimpsest.audit.settings import Settings

_HEAVY = {"run": "auditing", "report": "page"}  # public names whose modules import torch: only when they are asked for


def __getattr__(name: str):
    if name in _HEAVY:
        from importlib import import_module

        return getattr(import_module(f"palimpsest.audit.{_HEAVY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
