"""From any source to records, splits and tokens.

In: a file, shards, a saved data set or hub id (`sources`), and which of its columns are what (`columns`, told by their names or
mapped). Further columns mean nothing unless they are declared (`annotations`): a user's own `split` or `copies` is none of ours.

Out: records, read alike for audits and studies (`reading`), a frame with one row each: `id` (a hash of the text), `row` (its
place) and `instruction`, `context`, `response`; or `messages` (the turns before, as JSON) and `response`; or `text`. A study draws its splits from them (`draw_splits`) and adds `split`, `kind`, `secrets` (spans of the response), `copies`
and `coin`. `encode` makes examples of them: token ids, how many are the prompt, which are secret; `collate` pads those
in the one place where it is done. `training_rows` are what a model is fine-tuned on. `mask` and `escape` keep data
text out of pages.

Open first: `records`, then `splits`.

To add a format: 1. a reader in `formats`, a generator of frames; 2. its ending in `KINDS`; 3. a test with a broken file, whose
line or row is named; 4. a line in the how-to page.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(  # a room whole, of which only what is asked for is imported
    __name__,
    submod_attrs={
        "chat": ["render"],
        "encoding": ["Layout", "encode"],
        "examples": ["Example", "by_length", "collate"],
        "masking": ["escape", "mask"],
        "records": ["read_records", "record_ids", "template", "training_rows"],
        "splits": ["COMPARED", "draw_splits", "fit_lengths", "load_records", "read_study_records", "select"],
    },
)
