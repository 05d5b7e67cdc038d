"""What a training shows on a terminal, and prints elsewhere; curves on Weights & Biases."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console
from training_worlds import training

from mjlab_rec.rl.clocks import Shares

pytest.importorskip("rsl_rl")

from mjlab_rec.rl.iteration import Iteration  # noqa: E402
from mjlab_rec.rl.training_progress import TrainingProgress  # noqa: E402


def iteration(number: int = 9, **fields: Any) -> Iteration:
    values: dict[str, Any] = dict(
        number=number,
        last=99,
        env_steps=2400,
        total_env_steps=2400 * (number + 1),
        shares=Shares(total=2.0, env=1.5, physics=1.0),
        mean_return=12.5,
        mean_length=80.0,
        losses={"value": 0.25, "entropy": 1.5},
        log={"Episode_Reward/upright": 0.75},
        best_return=13.0,
        is_best=True,
    )
    return Iteration(**{**values, **fields})


def test_shares_add_up():
    assert Shares(total=2.0, env=1.5, physics=1.0).parts == {
        "physics": 0.5,
        "managers": 0.25,
        "learner": 0.25,
    }
    # Times of a GPU may be a little longer than those of the host.
    assert sum(Shares(total=1.0, env=1.1, physics=1.2).parts.values()) == pytest.approx(1.0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(terminal: bool, width: int = 100) -> tuple[TrainingProgress, Clock, io.StringIO]:
    clock, output = Clock(), io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=width, color_system=None)
    return TrainingProgress("my-task", console, lambda: "| hdf5 9 rows", clock), clock, output


def test_lines_where_there_is_no_terminal():
    progress, clock, output = shown(terminal=False)
    with progress:
        for number in range(10):
            clock.now += 2.0
            progress.update(iteration(number))
    lines = output.getvalue().splitlines()
    # The first one, then one every 5 s, and the last one.
    assert [line.split()[1] for line in lines] == ["1/100", "4/100", "7/100", "10/100"]
    assert lines[-1] == (
        "iteration 10/100  1,200 env-steps/s  0:03:00 left  return 12.50 (best 13.00)  length 80.0"
        "  physics 50% managers 25% learner 25%  | hdf5 9 rows"
    )


def test_before_an_episode_ends_there_is_no_return():
    progress, _, output = shown(terminal=False)
    with progress:
        progress.update(iteration(mean_return=None, mean_length=None))
    assert "return no episode has ended yet" in output.getvalue()


def test_a_panel_on_a_terminal():
    progress, clock, output = shown(terminal=True)
    clock.now = 20.0
    progress.update(iteration())
    # A bar without colours is shorter, and leaves room for what must not be on its line.
    console = Console(file=output, width=100, force_terminal=True, color_system="standard")
    console.print(progress.panel(iteration()))
    text = output.getvalue()
    for part in (
        "my-task",
        "iteration",
        "10 of 100",
        "0:03:00 left",
        "1,200 env-steps/s",
        "24,000",
    ):
        assert part in text, part
    for part in (
        "12.50 (best 13.00)",
        "80.0 steps",
        "value loss",
        "Episode_Reward/upright",
        "0.75",
    ):
        assert part in text, part
    for part in ("physics 50%", "managers 25%", "learner 25%", "| hdf5 9 rows"):
        assert part in text, part


class FakeWandb(ModuleType):
    """Notes what is sent."""

    def __init__(self, key: str | None) -> None:
        super().__init__("wandb")
        self.api = type("Api", (), {"api_key": key})
        self.sent: list[Any] = []

    def init(self, **kwargs: Any) -> None:
        self.sent.append(("init", kwargs))

    def log(self, values: dict[str, Any], step: int) -> None:
        self.sent.append(("log", next(iter(values)), step))

    def save(self, path: str, base_path: str) -> None:
        self.sent.append(("save", Path(path).name))

    def finish(self) -> None:
        self.sent.append(("finish",))


@training
@pytest.mark.parametrize("key", [None, "abc"])
def test_weights_and_biases_gets_curves_and_checkpoints_and_is_offline_without_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None
):
    from training_worlds import make_runner, train_cfg

    monkeypatch.delenv("WANDB_MODE", raising=False)
    fake = FakeWandb(key)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    runner = make_runner(tmp_path, cfg=train_cfg(logger="wandb", wandb_tags=("a",)))
    runner.learn(2)
    runner.env.close()
    kind, settings = fake.sent[0]
    assert kind == "init" and settings["project"] == "mjlab" and settings["tags"] == ["a"]
    assert settings["mode"] == ("offline" if key is None else None)
    assert settings["name"] == tmp_path.name and settings["dir"] == str(tmp_path)
    assert settings["config"]["env_cfg"]["decimation"] == 4
    assert ("log", "Loss/value", 1) in fake.sent
    assert ("save", "model_1.pt") in fake.sent and fake.sent[-1] == ("finish",)
    assert not any(sent[1].endswith("/time") for sent in fake.sent if sent[0] == "log")
    assert list(tmp_path.glob("events.out.tfevents.*"))
