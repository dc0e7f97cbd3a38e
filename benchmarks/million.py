"""Does the memory of `palimpsest audit` stay flat, and how long does a large file take?

    python benchmarks/million.py [--records 100000] [--times 10] [--shards 4] [--folder DIR] [-- OPTIONS OF palimpsest audit]

Makes a tiny model with random weights and two files of short records, one `--times` as long as the other, runs
`palimpsest audit` on each in a process of its own, and prints peak resident memory, their ratio, processor seconds, and bytes
on disk. With `--shards` the larger file is also audited in so many parts, one after the other, and merged: seconds of a part
and of the merging, to reckon with for more records. What follows `--` is handed on, such as `--no-approximate`.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
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


def run(*words: object) -> tuple[int, float]:
    """Peak resident memory in bytes and processor seconds of one `palimpsest` command on one thread."""
    command = [sys.executable, "-m", "palimpsest.cli", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"palimpsest {words[0]} failed; its message stands above")
    return usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())


def in_shards(audit: list[object], data: Path, number: int, folder: Path) -> None:
    """Print seconds and bytes of one part after the other, and of merging them."""
    parts = [folder / f"part-{i}" for i in range(1, number + 1)]
    seconds = [run(*audit, "--out", part, "--shard", f"{i}/{number}")[1] for i, part in enumerate(parts, 1)]
    peak, merging = run("merge", *parts, "--out", folder / "merged")
    print(
        f"\n{data.name} in {number} shards: {min(seconds):.0f} to {max(seconds):.0f} s and {size(parts[0]) / 1e6:.0f} MB each; "
        f"merging {merging:.0f} s, {peak / 1e6:.0f} MB of memory"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000, help="records in the smaller file")
    parser.add_argument("--times", type=int, default=10, help="how many times as many are in the larger one")
    parser.add_argument("--shards", type=int, default=0, help="also audit the larger file in so many parts")
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
            audit, out = (
                ["audit", "--model", folder / "model", "--data", data, "--quiet", *args.options],
                folder / f"audit-{count}",
            )
            rows.append((count, *run(*audit, "--out", out), size(data), size(out / "records.parquet")))
        if args.shards:
            in_shards(audit, data, args.shards, folder)
    print(
        f"palimpsest audit {' '.join(args.options)}\n\n| records | peak memory, MB | processor seconds | records/s | bytes of input per record "
        "| of records.parquet |\n|---|---|---|---|---|---|"
    )
    for count, peak, seconds, given, written in rows:
        print(
            f"| {count:,} | {peak / 1e6:.0f} | {seconds:.0f} | {count / seconds:,.0f} | {given / count:.0f} | {written / count:.0f} |"
        )
    print(f"\nPeak after {rows[1][0]:,} over peak after {rows[0][0]:,} records: {rows[1][1] / rows[0][1]:.2f}")


if __name__ == "__main__":
    main()
