# One audit in N parts, on N cores, GPUs or jobs of a cluster, put together at the end:
#   snakemake -s "$(palimpsest merge --workflow)" --cores 8 --config shards=8 out=audit options="--model M --data D"
# A part whose folder is complete is not made again; a killed one goes on from its finished pieces.

N, OUT, OPTIONS = int(config["shards"]), config["out"], config["options"]


rule report:
    input:
        expand(f"{OUT}/shards/{{i}}/shard/shard.json", i=range(1, N + 1)),
    output:
        f"{OUT}/summary.json",
    params:
        folders=[f"{OUT}/shards/{i}" for i in range(1, N + 1)],
    shell:
        "palimpsest merge {params.folders:q} --out {OUT:q}"


rule shard:
    output:
        f"{OUT}/shards/{{i}}/shard/shard.json",
    threads: 1
    resources:
        gpu=1,
    shell:
        "OMP_NUM_THREADS={threads} palimpsest audit {OPTIONS} --shard {wildcards.i}/{N} --out {OUT:q}/shards/{wildcards.i} --quiet"
