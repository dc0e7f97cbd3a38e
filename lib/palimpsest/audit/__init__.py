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

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(  # a room whole, of which only what is asked for is imported
    __name__,
    submod_attrs={
        "settings": ["Settings"],
        "auditing": ["run"],
        "page": ["report"],
    },
)
