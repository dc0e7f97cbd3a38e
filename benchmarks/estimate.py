"""What `palimpsest check --estimate` said beside what a finished run took, stage by stage.

    python benchmarks/estimate.py studies/demo.yaml runs/demo

Both are processor time of one core, so that other work on the machine counts for neither; the start of a process, which the estimate
adds to every stage and a stage does not measure, is left out. The estimate is made anew, on this machine: it must be the one that
made the run. Of a run with parts, its own models are compared.
"""

import argparse

from palimpsest.book.checks import disk_needed, folder_bytes, model_sizes
from palimpsest.book.estimate import plan
from palimpsest.book.progress import STARTING
from palimpsest.study import open_run


def main(given=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("run_dir")
    args = parser.parse_args(given)
    run = open_run(args.study, args.run_dir)
    table, peak = plan(run)
    table = table[table["part"] == ""]
    stages = [[f"models/{arm.name}", f"scores/{arm.name}"] for arm in run.study.everyone()]
    stages += [["teacher_text"]] * (len(table) - len(stages))
    print("| stage | estimated, minutes | took | took / estimated |\n|---|--:|--:|--:|")
    sums = [0.0, 0.0]
    for said, names in zip(table.itertuples(), stages, strict=True):
        done = [facts for facts in map(run.finished, names) if facts]
        if len(done) < len(names) or not all("processor_seconds" in facts for facts in done):
            continue
        both = (said.seconds - STARTING) / 60, sum(facts["processor_seconds"] for facts in done) / 60
        sums = [total + one for total, one in zip(sums, both, strict=True)]
        print(f"| {said.stage} | {both[0]:.1f} | {both[1]:.1f} | {both[1] / both[0]:.2f} |")
    print(f"| together | {sums[0]:.1f} | {sums[1]:.1f} | {sums[1] / sums[0]:.2f} |")
    most = max(facts["peak_memory_bytes"] for names in stages for facts in map(run.finished, names) if facts)
    print(f"| memory of a stage, GB | {peak / 1e9:.1f} | {most / 1e9:.1f} | {most / peak:.2f} |")
    disk, held = disk_needed(run, model_sizes(run), 0) / 1e9, folder_bytes(run.path) / 1e9
    print(f"| disk, GB | {disk:.2f} | {held:.2f} | {held / disk:.2f} |")


if __name__ == "__main__":
    main()
