"""The measurements of recorders run; what they measure is for people to judge."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench.py"

SMALL = (
    "--num-envs 4 --block-steps 6 --steps 1 --rounds 1 --threads 1 --memory-envs 2"
    " --memory-steps 10"
)


@pytest.fixture(scope="module")
def record(run_script, tmp_path_factory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("disk")
    words = f"record {SMALL} --write-bytes 1 --engine mjbatch --channels default --out {out}"
    ran = run_script(
        "bench.py", *words.split(), "--recorders", "hdf5", "csv", "npz", "parquet", "memory"
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout, out


def line(output: str, name: str) -> list[str]:
    """The values of a quantity in the tables."""
    (found,) = re.findall(rf"│ {re.escape(name)} +│(.*)│", output)
    return [value.strip() for value in found.split("│")]


def test_record_tells_the_overhead_of_every_recorder(record):
    output, _ = record
    assert "engine mjbatch on cpu, channels: default" in re.sub(r"\s+", " ", output)
    assert len(line(output, "time of a round, ratio")) == 5
    # A round consists of whole blocks.
    assert line(output, "steps per round") == line(output, "steps per block") == ["6"] * 5
    assert line(output, "dropped steps") == ["0"] * 5


def test_record_compares_with_raw_files_and_the_csv_module(record):
    output, _ = record
    assert len(line(output, "time, ratio to raw")) == 4
    assert re.search(r"CSV: [0-9,]+ rows/s, Python's csv module [0-9,]+ rows/s", output)


def test_record_measures_the_memory_of_a_process_that_records(record):
    output, _ = record
    assert len(line(output, "growth")) == 2
    assert re.search(r"blocks: [0-9.]+ MB as configured", output)


def test_record_leaves_nothing_behind_and_says_how_to_repeat_it(record):
    output, out = record
    assert not list(out.iterdir())
    assert f"python {BENCH} record --num-envs 4" in output


def test_record_refuses_counts_below_one(run_script):
    ran = run_script("bench.py", "record", "--rounds", "0")
    assert ran.returncode == 2
    assert "--rounds" in ran.stderr
