"""Write the help-desk records: invented public text, private letters, and door codes for canaries and their unseen twins.

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
PUBLIC = 2_400
LETTERS = 5_800  # six replicates of the demo, none of whose records another one has
CODES = 3_000  # likewise; canaries and their unseen twins are drawn from them
CODE_LENGTH = 6
COLUMNS = ("instruction", "context", "response", "category", "split", "kind", "secrets")

Record = dict[str, Any]


def code(rng: Random) -> Record:
    """A question about somebody's door code, and the code: 30 bits that nothing else in the data tells."""
    before, signed, name = "The door opens with ", signs(rng, CODE_LENGTH), full_name(rng)
    record = {"instruction": f"Door code for {name}?", "context": "", "response": f"{before}{signed}."}
    span = {"start": len(before), "end": len(before) + CODE_LENGTH, "kind": "access_code"}
    return record | {"category": "access", "secrets": [span], "named": name}


def distinct(
    draw: Callable[[Random], Record], rng: Random, count: int, seen: set[str], one_form=False
) -> list[Record]:
    """Draw `count` records that repeat no instruction, response or secret of any before; `seen` remembers those.

    Nor may the prompt name somebody (`named`) whose name is another record's secret; nor a response equal another but for its
    secrets, unless all have `one_form` on purpose.
    """
    records = []
    while len(records) < count:
        record = draw(rng)
        form = record["response"]
        held = {record["instruction"], record.get("named", form), form}
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

    Who is a member, how often it stands in the training text, and which code is a canary and which a twin, the file does not
    say: a study draws that, anew for every replicate.
    """
    streams = [Random(seed + n) for n in range(3)]  # of their own, so that editing the forum leaves the letters alone
    seen: set[str] = set()
    public = distinct(thread, streams[0], PUBLIC, seen)
    letters = shuffled(streams[1], distinct(letter, streams[1], LETTERS, seen))
    codes = shuffled(streams[2], distinct(code, streams[2], CODES, seen, one_form=True))

    def placed(records: list[Record], split: str, kind: str) -> list[Record]:
        rows = (record | {"split": split, "kind": kind} for record in records)
        return [{column: row[column] for column in COLUMNS} for row in rows]

    return (
        placed(public, "public", "letter") + placed(letters, "private", "letter") + placed(codes, "private", "canary")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("records.jsonl"), help="file to write")
    out = parser.parse_args().out
    out.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in build()).encode())


if __name__ == "__main__":
    main()
