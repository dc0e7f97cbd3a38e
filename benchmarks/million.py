"""Does the memory of `palimpsest audit` stay flat, and how long does a large file take?

    python benchmarks/million.py [--records 100000] [--times 10] [--folder DIR] [-- OPTIONS OF palimpsest audit]

Makes a tiny model with random weights and two files of short records, one `--times` as long as the other, runs
`palimpsest audit` on each in a process of its own, and prints peak resident memory, their ratio, and seconds. What
follows `--` is handed on, such as `--no-approximate`.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from palimpsest.measure.models import build_model, train_tokenizer
from palimpsest.study.sections import Scratch

WORDS = "ab be ca do el fa go ha in jo ku la me no or pa qu ra so ta un vi we xo ya zu".split()


def write_records(path: Path, count: int) -> None:
    """Prompts and responses of a few random words and a number, 12 to 21 tokens with their end-of-text."""
    draw = random.Random(0)
    with path.open("w") as file:
        for i in range(count):
            question, answer = (" ".join(draw.choices(WORDS, k=draw.randint(2, 5))) for _ in range(2))
            file.write(json.dumps({"question": f"{question}?", "answer": f" {answer} {i}"}) + "\n")


def make_model(folder: Path) -> None:
    """One layer of width 32 over 300 tokens."""
    words = " ".join(WORDS)
    tokenizer = train_tokenizer([f"{words}? {words} {n}" for n in range(0, 10_000, 7)], 300)
    shape = Scratch(architecture="llama", layers=1, width=32, heads=2, context=64)
    build_model(shape, tokenizer, 0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def audited(model: Path, data: Path, out: Path, options: list[str]) -> tuple[int, float]:
    """Peak resident memory in bytes and seconds of one audit."""
    command = [sys.executable, "-m", "palimpsest.cli", "audit", "--model", str(model), "--data", str(data)]
    began = time.perf_counter()
    process = subprocess.Popen([*command, "--out", str(out), "--quiet", *options], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the audit of {data} failed; its message stands above")
    return usage.ru_maxrss * 1024, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000, help="records in the smaller file")
    parser.add_argument("--times", type=int, default=10, help="how many times as many are in the larger one")
    parser.add_argument("--folder", type=Path, help="keep files and results here (default: a temporary folder)")
    parser.add_argument("options", nargs="*", help="options of `palimpsest audit`, after --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make_model(folder / "model")
        rows = []
        for count in (args.records, args.records * args.times):
            data = folder / f"{count}.jsonl"
            write_records(data, count)
            rows.append((count, *audited(folder / "model", data, folder / f"audit-{count}", args.options)))
    print(
        f"palimpsest audit {' '.join(args.options)}\n\n| records | peak memory, MB | seconds | records/s |\n|---|---|---|---|"
    )
    for count, peak, seconds in rows:
        print(f"| {count:,} | {peak / 1e6:.0f} | {seconds:.0f} | {count / seconds:,.0f} |")
    print(f"\nPeak after {rows[1][0]:,} over peak after {rows[0][0]:,} records: {rows[1][1] / rows[0][1]:.2f}")


if __name__ == "__main__":
    main()
