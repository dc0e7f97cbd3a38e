"""From any source to records, splits and tokens.

In: a file (JSON lines, JSON, CSV, Parquet) or hub id, and which columns are what.
Out: records, one row each: `id` (a hash of the text), `instruction`, `context`, `response` (or `text`), and in a study `split`,
`kind`, `secrets`, `copies`, `teacher_only`; and examples, their tokens (`encode`), padded in one place (`examples.collate`).
Open first: `records`.
To add a format: a reader in `sources`, its ending in `FILES`, a test with a broken file, a line in the how-to page.
"""

from palimpsest.data.examples import Example, by_length, collate
from palimpsest.data.masking import escape, mask, to_html
from palimpsest.data.records import encode, read_records, record_ids, training_text
