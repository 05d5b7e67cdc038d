"""Small helpers that do not depend on simulators or environments."""
