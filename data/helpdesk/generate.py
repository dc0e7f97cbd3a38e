"""Write the help-desk records: invented public text, private letters, canaries and their unseen twins.

    python data/helpdesk/generate.py --out data/helpdesk/records.jsonl

Standard library only; the same seed gives the same bytes. The data card, data/README.md, says what is in the file.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from forum import thread
from grammar import shuffled
from letters import full_name, letter, signs

SEED = 20_260_801
PUBLIC = 1_500
LETTERS = {"member": 240, "non_member": 240, "test": 120}
CANARIES = {1: 8, 2: 8, 4: 6, 8: 4, 16: 3}  # copies in the training text: how many canaries have them
TEACHER_ONLY = {8: 6}  # the same for canaries that the teacher's text has and no student's
TWINS = 128
CODE_LENGTH = 6
COLUMNS = ("instruction", "context", "response", "category", "split", "kind", "secrets", "copies", "teacher_only")

Record = dict[str, Any]


def canary(rng: Random) -> Record:
    """A question about somebody's door code, and the code: 30 bits that nothing else in the data tells."""
    before, code = "The door opens with ", signs(rng, CODE_LENGTH)
    record = {"instruction": f"Door code for {full_name(rng)}?", "context": "", "response": f"{before}{code}."}
    span = {"start": len(before), "end": len(before) + CODE_LENGTH, "kind": "access_code"}
    return record | {"category": "access", "secrets": [span]}


def distinct(
    draw: Callable[[Random], Record], rng: Random, count: int, seen: set[str], one_form=False
) -> list[Record]:
    """Draw `count` records that repeat no instruction, response or secret of any before; `seen` remembers those.

    Nor may a response equal another but for its secrets, unless all have `one_form` on purpose.
    """
    records = []
    while len(records) < count:
        record = draw(rng)
        form = record["response"]
        held = {record["instruction"], form}
        for span in reversed(record["secrets"]):
            held.add(record["response"][span["start"] : span["end"]])
            form = f"{form[: span['start']]}<{span['kind']}>{form[span['end'] :]}"
        held |= set() if one_form else {form}
        if not held & seen:
            seen |= held
            records.append(record)
    return records


def build(seed: int = SEED) -> list[Record]:
    """All records in the order of the file.

    Private letters are drawn as one batch, shuffled and cut into splits, and canaries with their twins likewise, so
    that nothing in a record's text tells which split it is in.
    """
    streams = [Random(seed + n) for n in range(3)]  # of their own, so that editing the forum leaves the letters alone
    seen: set[str] = set()
    public = distinct(thread, streams[0], PUBLIC, seen)
    letters = iter(shuffled(streams[1], distinct(letter, streams[1], sum(LETTERS.values()), seen)))
    planted = [(copies, False) for copies, count in CANARIES.items() for _ in range(count)]
    planted += [(copies, True) for copies, count in TEACHER_ONLY.items() for _ in range(count)]
    codes = iter(shuffled(streams[2], distinct(canary, streams[2], len(planted) + TWINS, seen, one_form=True)))

    def place(record: Record, split: str, kind: str, copies: int, teacher_only: bool = False) -> Record:
        row = record | {"split": split, "kind": kind, "copies": copies, "teacher_only": teacher_only}
        return {column: row[column] for column in COLUMNS}

    rows = [place(record, "public", "letter", 0) for record in public]
    for split, count in LETTERS.items():
        rows += [place(next(letters), split, "letter", int(split == "member")) for _ in range(count)]
    rows += [place(next(codes), "member", "canary", copies, teacher_only) for copies, teacher_only in planted]
    return rows + [place(record, "twin", "twin", 0) for record in codes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("records.jsonl"), help="file to write")
    out = parser.parse_args().out
    out.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in build()).encode())


if __name__ == "__main__":
    main()
