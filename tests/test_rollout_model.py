"""Random rollouts, recorders and mishaps: every file holds what the rules say, bit for bit.

``make test-model`` runs thousands of examples, ``make test-long`` always the same 500;
MJLAB_REC_EXAMPLES says how many, and MJLAB_REC_WITHOUT leaves out what is named there, such as
"errors,inside,csv" (see ``Dims``); an empty text leaves out nothing.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from long_runs import LONG
from rollout_examples import Dims, Example, examples
from rollout_model import Step
from rollout_run import run

COUNT = int(os.environ.get("MJLAB_REC_EXAMPLES", "0"))
OUTSIDE = "late_traps,early_traps"
"""Failures before a recorder's first hook of a step, or after its last: not the step's, for it."""
WITHOUT = [name for name in os.environ.get("MJLAB_REC_WITHOUT", OUTSIDE).split(",") if name]


def budget(examples: int, share: int = 1) -> settings:
    """So many examples, always the same ones; or a share of those asked for, each time others."""
    return settings(
        max_examples=COUNT // share or examples,
        deadline=None,
        derandomize=not COUNT,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


@budget(500 if LONG else 60)
@given(examples(Dims.without(WITHOUT)))
def test_every_file_holds_what_the_rules_say(example):
    check(example)


@budget(20, share=20)
@given(examples(Dims.without([*WITHOUT, "+warp"])))
def test_every_file_holds_what_the_rules_say_on_warp(example):
    check(example)


@budget(10, share=100)
@given(examples(Dims.without(["threads"])))
def test_a_used_environment_is_as_good_as_a_new_one(example):
    """So that examples on warp, which share environments, mean the same."""
    used, new = [], []
    run(example, new)
    for _ in range(2):
        used.clear()
        run(replace(example, used=True), used)
    assert [type(h) for h in used] == [type(h) for h in new]
    for ours, theirs in zip(used, new, strict=True):
        if isinstance(ours, Step):
            assert ours.t == theirs.t
            assert ours.values.keys() == theirs.values.keys()
            for part in ("values", "fields", "conditions", "success"):
                for name, value in getattr(ours, part).items():
                    np.testing.assert_array_equal(value, getattr(theirs, part)[name], str(name))


def check(example: Example) -> None:
    """Run an example and complain about every deviation from the rules."""
    deviations = run(example)
    assert not deviations, "\n".join([repr(example), *map(str, deviations)])
