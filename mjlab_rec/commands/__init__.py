"""The commands of the scripts and of ``mjlab-rec``."""
