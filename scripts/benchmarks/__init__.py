"""The measurements of scripts/bench.py: a file for each subcommand, and their tools."""
