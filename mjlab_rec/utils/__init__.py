"""Small helpers that know nothing of simulators or environments."""
