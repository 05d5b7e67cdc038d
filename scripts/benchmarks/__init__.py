"""The measurements behind scripts/bench.py, one file for each subcommand and its tools."""
