"""Small rollouts that once were recorded wrongly, found by tests/test_rollout_model.py."""

from __future__ import annotations

import pytest
from rollout_examples import Example, Rec, Request, ResetBy, Steps
from rollout_run import run
from rollout_world import World

ONE, TWO = World(), World(num_envs=2)
PAUSE, START, STOP = Request(what="pause"), Request(what="start"), Request(what="stop")
FLUSH, FIRE = Request(what="flush"), Request(what="fire")
STEP, END, RESET = Steps(), Steps(ends=(1,)), ResetBy()
STATE = ("state", "obs", "next_obs", "reward")
FAILS = Steps(fail="reward")


def told(place: str, what: str) -> Steps:
    """A step that ends the episode and in which the recorder is told something."""
    return Steps(ends=(1,), inside=((place, 0, what),))


FINDINGS = {
    # Length, return and flags of what comes after the last row.
    "steps after the last row count when every leaves them out": (
        *(ONE, Rec(every=2)),
        *(STEP, STEP),
    ),
    "an episode that ends without a reset has ended": (
        *(World(auto_reset=False), Rec()),
        *(STEP, END),
    ),
    "an episode continues after max_steps": (ONE, Rec(max_steps=1), STEP, STEP),
    "an episode ends after max_steps": (ONE, Rec(max_steps=1), STEP, END),
    "an episode is reset after max_steps": (ONE, Rec(max_steps=1), STEP, STEP, RESET, STEP),
    "an episode continues in a pause": (ONE, Rec(), STEP, PAUSE, STEP),
    "an episode ends in a pause after a flush": (ONE, Rec(), STEP, PAUSE, FLUSH, END),
    "an episode ends in a pause after another pause": (
        *(ONE, Rec()),
        *(STEP, PAUSE, START, PAUSE, END),
    ),
    # Success.
    "a cut episode that had not succeeded says nothing": (ONE, Rec(success="wins"), STEP, RESET),
    "an episode that succeeded before the end of the recording": (
        *(ONE, Rec(success="wins")),
        Steps(wins=(0,)),
    ),
    "a cut episode that had succeeded is kept": (
        *(ONE, Rec(success="wins", keep="successful")),
        Steps(wins=(0,)),
    ),
    # Which episodes there are.
    "max_episodes counts the first to end": (
        *(TWO, Rec(max_episodes=1)),
        *(STEP, Steps(ends=(0, 1)), STEP),
    ),
    "max_episodes keeps no more when several end at once": (
        *(TWO, Rec(max_episodes=1)),
        Steps(ends=(1, 1)),
    ),
    "max_episodes counts those that are kept": (
        *(ONE, Rec(max_episodes=1, keep="successful", success="wins")),
        *(END, Steps(ends=(1,), wins=(0,)), STEP),
    ),
    "max_episodes without a reset": (
        *(World(num_envs=2, auto_reset=False), Rec(max_episodes=1, trigger=("at_episodes", (0,)))),
        Steps(ends=(0, 1)),
    ),
    "episodes before a late start are counted": (ONE, Rec(autostart=False), END, START, STEP),
    "episodes between two recordings are counted": (ONE, Rec(), STEP, STOP, END, START, STEP),
    "a late start knows the return": (ONE, Rec(autostart=False), STEP, START, STEP),
    "a second recording knows the return": (ONE, Rec(), STEP, STOP, START, STEP),
    "a trigger of episodes counts them before a late start": (
        *(ONE, Rec(autostart=False, trigger=("at_episodes", (1,)))),
        *(END, START, STEP),
    ),
    **{
        f"no episode has a number twice after appending to {name}": (
            *(ONE, Rec(format=name, append=True)),
            *(STEP, STOP, START, STEP),
        )
        for name in ("hdf5", "hdf5 episodes", "npz folder", "parquet")
    },
    # Values.
    "the final observation before a pause in which an episode ends": (
        *(ONE, Rec(format="npz folder")),
        *(END, PAUSE, END),
    ),
    "the final observation before a pause and a reset, raw": (
        *(ONE, Rec(format="csv")),
        *(END, PAUSE, STEP, RESET, STEP),
    ),
    "more episodes end in a block than it has room for": (
        *(World(fields="reset"), Rec(channels=STATE, block_steps=3)),
        *([END] * 10),
    ),
    "more episodes are reset in a block than it has room for": (
        *(World(fields="reset", num_envs=2), Rec(channels=STATE, block_steps=8)),
        *([Steps(ends=(1, 1)), RESET, ResetBy(envs=(0,))] * 5),
    ),
    "more episodes end between rows than a block has room for": (
        *(World(fields="reset"), Rec(channels=STATE, block_steps=3, every=2)),
        *([END] * 10),
    ),
    "model fields that change at every step, in npz": (
        *(World(fields="step"), Rec(format="npz folder", channels=("state",))),
        STEP,
    ),
    # Triggers.
    "the recorded return leaves out what a trigger leaves out": (
        *(ONE, Rec(trigger=("at_episodes", (0,)), length=1)),
        *(STEP, STEP),
    ),
    "fire takes effect at the next step": (ONE, Rec(trigger=("manual",)), STEP, FIRE, STEP),
    "fire takes effect at the next step, after a reset": (
        *(ONE, Rec(trigger=("manual",))),
        *(STEP, RESET, FIRE, STEP),
    ),
    "a trigger fires at a step that follows a reset by hand": (
        *(ONE, Rec(trigger=("at_steps", (1,)))),
        *(STEP, RESET, STEP),
    ),
    "a condition is asked once before a step": (
        *(ONE, Rec(trigger=("when", "old"), length=2)),
        *(Steps(count=2), RESET, STEP),
    ),
    "a stretch that begins in a pause continues after it": (
        *(ONE, Rec(trigger=("at_steps", (0,)), length=3)),
        *(PAUSE, STEP, START, STEP),
    ),
    "a trigger that fires in a pause without a length": (
        *(ONE, Rec(trigger=("at_steps", (1,)))),
        *(STEP, PAUSE, STEP, START, STEP),
    ),
    # In the middle of a step.
    **{
        f"{what} in the middle of a step: {place}": (ONE, Rec(), *before, told(place, what), STEP)
        for place in ("termination", "reward", "reset", "command")
        for what, before in {
            "pause": (STEP,),
            "stop": (STEP,),
            "start": (STEP, PAUSE),
            "flush": (STEP,),
        }.items()
    },
    **{
        f"a late start in the middle of a step: {place}": (
            *(ONE, Rec(autostart=False)),
            *(STEP, told(place, "start"), STEP),
        )
        for place in ("reward", "command")
    },
    # Steps that fail.
    **{
        f"a step fails: {place}": (ONE, Rec(), STEP, Steps(ends=(1,), fail=place), RESET, STEP)
        for place in (
            *("action", "termination", "reward", "reset", "command"),
            *("first recorder, post reset", "first recorder, post step"),
            *("last recorder, pre reset", "last recorder, post reset"),
        )
    },
    "a step fails after an episode ended": (
        *(TWO, Rec()),
        *(STEP, Steps(ends=(1, 0)), Steps(ends=(1, 0), fail="command"), RESET, STEP),
    ),
    "a step after one that failed, without a reset": (ONE, Rec(), STEP, FAILS, STEP, STEP),
    "a step after one that failed, when some were reset": (
        *(TWO, Rec()),
        *(STEP, FAILS, ResetBy(envs=(1,)), STEP),
    ),
    "a step fails after one that ended an episode": (ONE, Rec(), END, FAILS, RESET, STEP),
    **{
        f"a step after one that failed, after {name}": (ONE, Rec(), STEP, FAILS, *calls, STEP, STEP)
        for name, calls in {
            "a call of start": (START,),
            "a call of flush": (FLUSH,),
            "a pause": (PAUSE, START),
            "another recording began": (STOP, START),
        }.items()
    },
    "what is told in a step that fails comes before what is told later": (
        *(ONE, Rec()),
        *(STEP, Steps(fail="reward", inside=(("termination", 0, "pause"),)), START, RESET, STEP),
    ),
    "a start in a step that fails": (
        *(ONE, Rec()),
        *(STEP, PAUSE, Steps(fail="reward", inside=(("termination", 0, "start"),)), STEP, STEP),
    ),
    # Found in the recorders on the row clock.
    "the next observation of a step in which the recording is stopped": (
        *(ONE, Rec()),
        Steps(inside=(("reward", 0, "stop"),)),
    ),
    "the next observation of a step in which another thread stops the recording": (
        *(ONE, Rec()),
        Steps(inside=(("reward", 0, "stop elsewhere"),)),
    ),
    "a condition that comes true before a reset by hand": (
        *(ONE, Rec(trigger=("when", "tick"))),
        *(Steps(count=3), RESET, STEP),
    ),
    "a trigger fires at a step that follows the reset that the caller owes": (
        *(World(auto_reset=False), Rec(trigger=("every_n_steps", 1))),
        *(END, STEP),
    ),
    "a stretch that begins before a late start": (
        *(ONE, Rec(trigger=("at_steps", (0,)), length=3, autostart=False)),
        *(STEP, START, STEP),
    ),
    "max_steps counts steps that have rows": (
        *(ONE, Rec(trigger=("at_episodes", (1,)), max_steps=1)),
        *(STEP, END, STEP),
    ),
    "a csv file knows that it does not know what came after max_steps": (
        *(ONE, Rec(format="csv", max_steps=1)),
        *(STEP, STEP),
    ),
    "a csv file knows that it does not know what came in a pause": (
        *(ONE, Rec(format="csv")),
        *(STEP, PAUSE, END),
    ),
    "the state after a start in mid-run that follows a failed step": (
        *(ONE, Rec(channels=("state",), autostart=False)),
        *(Steps(count=2, fail="action"), RESET, START),
        *(Steps(count=2, ends=(1,)), Steps(count=2)),
    ),
    "a trigger that fires at a step that follows a failed one": (
        *(ONE, Rec(trigger=("at_steps", (0, 2)))),
        *(STEP, FAILS, STEP, STEP),
    ),
    "an episode that ended after max_steps comes before those that are cut": (
        *(TWO, Rec(max_steps=1, max_episodes=1)),
        *(STEP, ResetBy(envs=(1,))),
    ),
    "episodes that end one after the other in a pause": (
        *(TWO, Rec(max_episodes=1)),
        *(STEP, PAUSE, ResetBy(envs=(1,)), ResetBy(envs=(0,))),
    ),
    "model fields where a step fails after max_steps": (
        *(World(fields="reset"), Rec(channels=("state",), max_steps=1)),
        *(STEP, Steps(ends=(2,), fail="command"), RESET),
    ),
    "parts of an appended recording": (
        *(ONE, Rec(format="hdf5", block_steps=2, append=True, parts=True)),
        *([Steps(count=4), END] * 4),
        *(STOP, START),
        *([Steps(count=4), END] * 4),
    ),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_it_is_as_the_rules_say(name):
    world, recorder, *happens = FINDINGS[name]
    deviations = run(Example(world=world, recorders=(recorder,), happens=tuple(happens)))
    assert not deviations, "\n".join(map(str, deviations))
