"""Read tables with pandas, polars and DuckDB, and compare them with what was recorded."""

import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas
import polars
from truth import check, done, rows_of, stretches

folder = Path(sys.argv[1])
truth, count = stretches(folder), 0
together = rows_of(truth)
NAMES = [name for name in together if name != "step"]


def plain(value):
    """Nested arrays as nested lists."""
    return [plain(each) for each in value] if isinstance(value, (np.ndarray, list)) else value


def of_pandas(frame, name):
    return np.array(plain(frame[name].to_numpy()))


parquet = str(folder / "parquet")
by_pandas = pandas.read_parquet(parquet)
by_polars = polars.read_parquet(parquet)
by_duckdb = duckdb.sql(f"FROM '{parquet}/*.parquet' ORDER BY env, episode, step").df()
for name in NAMES:
    expected = together[name]
    check(of_pandas(by_pandas, name).astype(expected.dtype), expected, f"pandas {name}")
    check(of_pandas(by_duckdb, name).astype(expected.dtype), expected, f"duckdb {name}")
    values = by_polars[name].to_numpy().reshape(expected.shape)
    check(values.astype(expected.dtype), expected, f"polars {name}")
    count += 3
rows = sum(len(rows["step"]) for rows in truth)
for name, size in (("csv", ".csv"), ("lerobot", "/data/*/*.parquet")):
    for found in (
        len(duckdb.sql(f"FROM '{folder / name}{size}'").df()),
        len(polars.read_csv(folder / "csv.csv")),
        len(pandas.read_csv(folder / "csv.csv")),
    ):
        assert found == rows
for frame in (
    pandas.read_csv(folder / "csv.csv", float_precision="round_trip"),
    polars.read_csv(folder / "csv.csv", infer_schema_length=None).to_pandas(),
    duckdb.sql(f"FROM '{folder / 'csv.csv'}'").df(),
):
    for name, column in (("reward", "reward"), ("action", "action[left]"), ("state", "state[1]")):
        expected = together[name]
        expected = expected if expected.ndim == 1 else expected[:, int(name == "state")]
        check(frame[column].to_numpy().astype(expected.dtype), expected, column)
        count += 1
done(count, "pandas", "polars", "duckdb", "pyarrow")
