"""Read an export with WebDataset, and compare it with what was recorded."""

import sys
from pathlib import Path

import webdataset
from truth import check, done, stretches

folder = Path(sys.argv[1])
truth, count = stretches(folder), 0
shards = sorted(str(path) for path in (folder / "webdataset").glob("shard-*.tar"))
assert len(shards) > 1
samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
assert len(samples) == len(truth)
for number, (sample, rows) in enumerate(zip(samples, truth, strict=True)):
    assert sample["__key__"] == f"{number:09d}"
    assert (sample["json"]["env"], sample["json"]["number"]) == (rows["env"], rows["number"])
    for name in rows.keys() - {"env", "number"}:
        check(sample[f"{name.replace('/', '.')}.npy"], rows[name], name)
        count += 1
done(count, "webdataset")
