"""Robots made of primitives: a file of MJCF and a function for its config each."""
