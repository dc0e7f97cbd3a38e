"""What a study file may say, what its stages depend on, and where a run keeps what it made.

In: one YAML file (`load_study`); a run folder (`open_run`).
Out: `Study` (its sections in `sections`, methods in `methods`) and its models (`Arm`: size, method, seed, role, label); `Run`:
paths, finished stages, fingerprints; `load_tables`: what the chapters read, its columns declared in `columns`.
Open first: `file`, then `runs`.
To add a method: 1. a row in `methods.METHODS`; 2. nothing else, its page, colour and place in every table follow;
3. `make book STUDY=...` with the method listed; 4. its mathematics on the book's page of methods.
To add a key: 1. a field with a default in `sections`; 2. read it where it acts; 3. `fingerprints` has to know which stages it can
change, and the test that goes through every key will ask; 4. the how-to page.
"""

from palimpsest.study.file import Arm, Study, load_study, near
from palimpsest.study.files import locate
from palimpsest.study.fingerprints import fingerprint
from palimpsest.study.methods import METHODS
from palimpsest.study.runs import Run, open_run, run_once
from palimpsest.study.tables import load_tables, write_table
