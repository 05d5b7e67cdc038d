"""The command line of all scripts: options, overrides of any cfg field, and errors."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from waiting import until
from worlds import cart_cfg

from mjlab_rec import cli, registry
from mjlab_rec.commands import evaluate, play
from mjlab_rec.commands import list as list_tasks
from mjlab_rec.commands import main as command
from mjlab_rec.data.files import PathExistsError
from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.sensor import BuiltinSensorCfg, ObjRef

ROOT = Path(__file__).parent.parent


@dataclass(kw_only=True)
class Scene:
    num_envs: int = 1
    """Number of environments. They do not touch."""


@dataclass
class Reward:
    weight: float
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Cfg:
    scene: Scene = field(default_factory=Scene)
    seed: int | None = None
    engine: Literal["auto", "warp"] = "auto"
    auto_reset: bool = True
    limits: tuple[float, float] | None = None
    names: tuple[str, ...] = ()
    rewards: dict[str, Reward | None] = field(
        default_factory=lambda: {
            "smooth": Reward(1.0, {"std": 1, "range": (0.0, 1.0), "ids": [1], "name": "x"})
        }
    )
    term: Any = print
    recorders: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(autouse=True)
def one_task(monkeypatch):
    monkeypatch.setattr(registry, "_discovered", True)
    monkeypatch.setattr(registry, "_tasks", {})
    registry.register_task("task", env_cfg=Cfg)


def parse(*argv: str) -> tuple[cli.TaskArgs, Any]:
    return cli.parse(cli.TaskArgs, "A script.", ["--task", "task", "--device", "cpu", *argv])


def refusal(capsys, *argv: str) -> str:
    """The text on stderr of a command line that fails with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        parse(*argv)
    assert caught.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_options_reach_the_cfg():
    args, cfg = parse("--num-envs", "8", "--seed", "3")
    assert (args.device, cfg.scene.num_envs, cfg.seed) == ("cpu", 8, 3)


@pytest.mark.parametrize(
    ("words", "get", "value"),
    [
        ("--env.scene.num-envs 64", lambda c: c.scene.num_envs, 64),
        ("--env.scene.num_envs=64", lambda c: c.scene.num_envs, 64),
        ("--env.seed 5", lambda c: c.seed, 5),
        ("--env.seed None", lambda c: c.seed, None),
        ("--env.engine warp", lambda c: c.engine, "warp"),
        ("--env.auto-reset False", lambda c: c.auto_reset, False),
        ("--env.limits -0.5 1", lambda c: c.limits, (-0.5, 1.0)),
        ("--env.names a b", lambda c: c.names, ("a", "b")),
        ("--env.rewards.smooth.weight -2", lambda c: c.rewards["smooth"].weight, -2.0),
        ("--env.rewards.smooth None", lambda c: c.rewards["smooth"], None),
        ("--env.rewards.smooth.params.std 0.5", lambda c: c.rewards["smooth"].params["std"], 0.5),
        (
            "--env.rewards.smooth.params.range -1 2",
            lambda c: c.rewards["smooth"].params["range"],
            (-1, 2),
        ),
        (
            "--env.rewards.smooth.params.ids 1 2",
            lambda c: c.rewards["smooth"].params["ids"],
            [1, 2],
        ),
        ("--env.rewards.smooth.params.name y", lambda c: c.rewards["smooth"].params["name"], "y"),
    ],
)
def test_override_sets_a_field_in_its_type(words, get, value):
    _, cfg = parse(*words.split())
    assert get(cfg) == value
    assert type(get(cfg)) is type(value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--env.scene.num-env 2", "There is no 'num_env' in 'scene'. Did you mean 'num_envs'?"),
        ("--env.scene.num-envs two", "'two' is not a whole number. It is 1 now."),
        ("--env.scene.num-envs", "a value is missing. It is 1 now."),
        ("--env.engine wrap", "'wrap' is not one of 'auto', 'warp'"),
        ("--env.limits 1", "'1' is not 2 numbers or None"),
        ("--env.rewards.smooth 2", "this is a group of fields. Set one of them, or"),
        ("--env.rewards.smooth.params.std soft", "'soft' has the wrong type. It is 1 now."),
        ("--env.rewards.smooth.params.range 1", "'1' has the wrong type. It is (0.0, 1.0) now."),
        ("--env.term x", "this is a function, which cannot be set on the command line."),
    ],
)
def test_override_of_the_wrong_type_is_refused(capsys, words, message):
    option = words.split()[0]
    assert f"Error: {option}: {message}" in refusal(capsys, *words.split())


def test_unknown_task_module_is_refused(capsys):
    assert "No module named 'no_such_module'" in refusal(capsys, "--task-module", "no_such_module")


def test_a_task_module_that_fails_shows_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import not_installed_anywhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        parse("--task-module", "half_there")


def test_unknown_option_is_refused(capsys):
    assert "--num-env" in refusal(capsys, "--num-env", "2")


@pytest.mark.parametrize("error", [ValueError, DataError])
def test_an_expected_error_ends_the_script_with_its_message(capsys, error):
    args, _ = parse()
    with pytest.raises(SystemExit) as caught, cli.explained(args):
        raise error("num_envs is 0.")
    assert caught.value.code == 2
    assert "num_envs is 0." in capsys.readouterr().err


def test_other_errors_keep_their_traceback():
    args, _ = parse()
    with pytest.raises(KeyError), cli.explained(args):
        raise KeyError("a bug")


def test_ctrl_c_ends_a_script_without_a_traceback():
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    assert caught.value.code == 130


def test_help_lists_every_field_with_its_docstring(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--env.scene.num-envs", "64", "--help")
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "Id of the task" in out
    assert "--env.scene.num-envs 64\n        Number of environments.\n" in out
    assert "--env.rewards.smooth.params.std" in out


@dataclass(kw_only=True)
class Light:
    name: str = "sun"
    """Name of the light."""
    active: bool = True


@dataclass(kw_only=True)
class LitScene(Scene):
    env_spacing: float = 2.0
    lights: tuple[Light, ...] = (Light(),)


@dataclass(kw_only=True)
class LargeCfg:
    decimation: int = 4
    scene: LitScene = field(default_factory=LitScene)
    events: dict[str, Reward] = field(default_factory=lambda: {"push": Reward(1.0)})
    sim: Reward = field(default_factory=lambda: Reward(3.0))
    episode_length_s: float = 5.0
    rewards: dict[str, Reward] = field(default_factory=lambda: {"smooth": Reward(1.0)})
    recorders: dict[str, Any] = field(default_factory=dict)


def test_help_begins_with_common_fields_and_ends_with_the_looks(capsys):
    registry.register_task("large", env_cfg=LargeCfg)
    with pytest.raises(SystemExit):
        cli.parse(cli.TaskArgs, "A script.", ["--task", "large", "--help"])
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if line.startswith("--env.")]
    assert shown == [
        "--env.scene.num-envs 1",
        "--env.episode-length-s 5.0",
        "--env.rewards.smooth.weight 1.0",
        "--env.rewards.smooth.params {}",
        "--env.events.push.weight 1.0",
        "--env.events.push.params {}",
        "--env.decimation 4",
        "--env.scene.env-spacing 2.0",
        "--env.sim.weight 3.0",
        "--env.sim.params {}",
        "--env.recorders {}",
        "--env.scene.lights.0.{name, active}",
    ]
    assert not any("Name of the light" in line for line in lines)


# The command mjlab-rec.


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_without_arguments_the_commands_are_listed(capsys, argv):
    command.main(argv)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert lines[0] == ["usage:", "mjlab-rec", "COMMAND", "[OPTIONS]"]
    names = [line[0] for line in lines[1:-1]]
    assert names == [
        *("play", "train", "evaluate", "collect", "export", "replay"),
        *("data", "list", "terrain"),
    ]
    assert all(line[-1].endswith(".") for line in lines[1:])


def test_the_package_runs_as_the_command():
    ran = subprocess.run(
        [sys.executable, "-m", "mjlab_rec", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert ran.returncode == 0 and ran.stdout.startswith("usage: mjlab-rec COMMAND")


@pytest.mark.parametrize(
    ("args", "words", "seed"),
    [
        (play.PlayArgs, [], 2),
        (play.PlayArgs, ["--config", "train"], 1),
        (evaluate.EvaluateArgs, [], 1),
        (evaluate.EvaluateArgs, ["--config", "play"], 2),
    ],
)
def test_commands_take_the_cfg_for_watching_or_that_of_training(args, words, seed):
    registry.register_task("two", lambda: Cfg(seed=1), lambda: Cfg(seed=2))
    _, cfg = cli.parse(args, "", ["--task", "two", *words])
    assert cfg.seed == seed


def test_an_unknown_command_gets_a_suggestion(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["pley", "--task", "task"])
    assert caught.value.code == 2
    assert "Unknown command 'pley'. Did you mean 'play'?" in capsys.readouterr().err


def test_a_command_ends_with_the_exit_code_of_its_script(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["play", "--task", "tesk"])
    assert caught.value.code == 2
    assert "Did you mean 'task'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("play", "play.py"),
        ("evaluate", "evaluate.py"),
        ("collect", "collect.py"),
        ("export", "export.py"),
        ("data", "data.py"),
        ("list", "list_tasks.py"),
        ("terrain", "show_terrain.py"),
    ],
)
def test_a_command_has_the_help_of_its_script(run_script, name, script):
    code = "from mjlab_rec.commands.main import main; main()"
    argv = [sys.executable, "-c", code, name, "--help"]
    ran = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    usage, _, text = ran.stdout.partition("\n")
    of_script = run_script(script, "--help")
    assert (ran.returncode, of_script.returncode) == (0, 0)
    assert usage.startswith(f"usage: mjlab-rec {name} ")
    assert text == of_script.stdout.partition("\n")[2]


# Recorders.


def parse_recorded(words: str) -> dict[str, Any]:
    argv = ["--task", "task", *words.split()]
    return cli.parse(cli.RecordArgs, "A script.", argv)[1].recorders


def test_recorders_are_added_to_the_cfg_with_paths_of_the_task():
    recorders = parse_recorded("--record csv --record=hdf5_full_state")
    assert list(recorders) == ["csv", "hdf5_full_state"]
    assert recorders["csv"].path == "rollouts/task/csv.csv"
    assert recorders["csv"].if_exists == "number"


def test_fields_belong_to_the_recorder_before_them():
    recorders = parse_recorded(
        "--record csv --record.path a.csv --record.channels obs action --seed 1 --record hdf5"
        " --record.path=b.h5 --env.seed 3 --record.every 2"
    )
    assert recorders["csv"].path == "a.csv" and recorders["csv"].channels == ("obs", "action")
    assert recorders["hdf5"].path == "b.h5" and recorders["hdf5"].every == 2
    assert recorders["csv"].every == 1


def test_fields_before_the_first_recorder_belong_to_it():
    assert parse_recorded("--record.path a.csv --record csv")["csv"].path == "a.csv"


def test_channels_may_be_separated_by_commas():
    recorders = parse_recorded("--record csv --record.channels obs/actor,action,")
    assert recorders["csv"].channels == ("obs/actor", "action")
    recorders = parse_recorded("--record csv --record.channels obs/actor, action")
    assert recorders["csv"].channels == ("obs/actor", "action")


def test_short_options_add_recorders():
    recorders = parse_recorded("--video --record.length 20 --rerun --plot --record csv")
    assert list(recorders) == ["video", "rerun", "live_plot", "csv"]
    assert recorders["video"].length == 20
    assert recorders["rerun"].path == "rollouts/task/rerun.rrd"


def test_recorders_with_the_same_name_get_different_names(monkeypatch):
    monkeypatch.setattr(registry, "_tasks", {})
    registry.register_task("task", env_cfg=lambda: Cfg(recorders={"csv": None}))
    recorders = parse_recorded("--record csv --record csv --record.path b.csv")
    assert list(recorders) == ["csv", "csv_", "csv__"] and recorders["csv"] is None
    assert recorders["csv__"].path == "b.csv"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--record hdf", "--record hdf: Unknown recorder preset 'hdf'. Did you mean 'hdf5'?"),
        ("--record.path x", "--record.path needs a recorder before it, such as --record hdf5."),
        (
            "--record hdf5 --record.pth x",
            "--record.pth: The recorder 'hdf5' has no field 'pth'. Did",
        ),
        ("--record hdf5 --record.every x", "--record.every: 'x' is not a whole number."),
    ],
)
def test_bad_recorders_are_refused(capsys, words, message):
    with pytest.raises(SystemExit) as caught:
        parse_recorded(words)
    assert caught.value.code == 2
    assert f"Error: {message}" in " ".join(capsys.readouterr().err.split())


def test_scripts_without_recording_refuse_recorders(capsys):
    assert "--record" in refusal(capsys, "--record", "hdf5")


def test_help_lists_the_fields_of_a_recorder(capsys):
    with pytest.raises(SystemExit):
        parse_recorded("--record csv --record.path a.csv --help")
    out = capsys.readouterr().out
    assert "Fields of recorder csv, with their values:" in out
    assert "--record.path 'a.csv'" in out and "--record.on-error 'raise'" in out


def test_play_runs_a_task_and_prints_returns(run_script):
    ran = run_script(
        "play.py",
        *("--task cartpole-balance --agent random --num-envs 4 --steps 6 --seed 1").split(),
        *("--env.episode-length-s 0.25 --env.rewards.smooth.weight 2").split(),
        start=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "4 environments, engine" in ran.stdout and "seed 1, random agent" in ran.stdout
    assert "Episodes finished" in ran.stdout and "env-steps/s" in ran.stdout
    assert "5.0 steps" in ran.stdout


def test_play_records_and_reads_back_what_it_recorded(run_script, tmp_path):
    words = "--task cartpole-balance --num-envs 2 --steps 8 --env.episode-length-s 0.25"
    ran = run_script("play.py", *words.split(), *"--record hdf5 --record csv".split(), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    path = Path("rollouts/cartpole-balance/hdf5.h5")
    assert f"Recorder hdf5 wrote {path}" in ran.stdout
    with open_rollouts(tmp_path / path) as rollouts:
        assert rollouts.rows == 16
        assert ran.stdout.count(rollouts.summary().splitlines()[-1]) == 1
        again = path.with_name("csv")
        assert f"{len(rollouts)} episodes, 16 rows: mjlab-rec data info {again}" in ran.stdout


def test_an_existing_path_names_the_options_to_set(run_script, tmp_path):
    (tmp_path / "taken.h5").write_text("")
    (tmp_path / "taken.npz").write_text("")
    words = "--task cartpole-balance --steps 3 --record mjlab_rec.recorders:{} --record.path {}"
    for recorder, path, append in (
        ("Hdf5RecorderCfg", "taken.h5", ", append (add to it)"),
        ("NpzRecorderCfg", "taken.npz", ""),
    ):
        ran = run_script("play.py", *words.format(recorder, path).split(), cwd=tmp_path)
        assert ran.returncode == 2
        stem, _, suffix = path.partition(".")
        assert (
            f"Error: '{path}' already exists. Choose another path, or give --record.if-exists"
            f" overwrite (replace it){append} or number (use the next free name, such as"
            f" {stem}_1.{suffix})." in ran.stderr
        )


def test_an_existing_path_of_the_tasks_recorder_names_its_field(capsys):
    args, _ = parse()
    with pytest.raises(SystemExit), cli.explained(args):
        raise PathExistsError(Path("a.h5"), "a_1.h5")
    assert "or set if_exists to 'overwrite' (replace it)" in capsys.readouterr().err


FAULTY = """
from mjlab_rec.data.schema import DataError
from mjlab_rec.managers import RecorderTerm

class Faulty(RecorderTerm):
    def close(self):
        raise DataError("the disk is full")
"""


def test_play_shows_what_was_recorded_even_if_a_recorder_fails_to_close(run_script, tmp_path):
    (tmp_path / "faulty.py").write_text(FAULTY)
    # The module is in the current folder, which the script is not.
    words = "--task cartpole-balance --steps 8 --record hdf5 --record faulty:Faulty"
    ran = run_script("play.py", *words.split(), cwd=tmp_path)
    assert ran.returncode == 2
    assert "Recorder hdf5 wrote rollouts/cartpole-balance/hdf5.h5" in ran.stdout
    assert "Error: the disk is full" in ran.stderr and "Traceback" not in ran.stderr


def test_play_stopped_by_ctrl_c_has_written_everything(tmp_path):
    words = "--task cartpole-balance --num-envs 2 --steps 100000000 --record hdf5 --record.every 5"
    argv = [sys.executable, str(ROOT / "scripts" / "play.py"), *words.split()]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as play:
        assert play.stdout is not None
        first = play.stdout.readline()  # Printed before the first step; it runs from then on.
        assert "2 environments" in first
        files = tmp_path / "rollouts"
        until(lambda: any(files.rglob("*.h5")) or play.poll() is not None)
        out = None
        while out is None:
            play.send_signal(signal.SIGINT)
            # Python drops exceptions in some callbacks, and the user presses again.
            with contextlib.suppress(subprocess.TimeoutExpired):
                out = play.communicate(timeout=100)[0]
        assert play.wait() == 130, out
    assert "Stopped by Ctrl-C after" in out and "Recorder hdf5 wrote" in out
    with open_rollouts(tmp_path / "rollouts/cartpole-balance/hdf5.h5") as rollouts:
        assert rollouts.info.every == 5


@pytest.mark.parametrize(
    ("words", "steps"), [("--steps 7", 14), ("--episodes 3", 20), ("--seconds 0.3", 12)]
)
def test_play_stops_after_steps_episodes_or_seconds(run_script, words, steps, tmp_path):
    words = f"--task cartpole-balance --num-envs 2 --env.episode-length-s 0.25 --record csv {words}"
    ran = run_script("play.py", *words.split(), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    with open_rollouts(tmp_path / "rollouts/cartpole-balance/csv.csv") as rollouts:
        assert rollouts.rows == steps


def test_play_without_terminations_ends_no_episode(run_script):
    words = "--task cartpole-balance --steps 12 --env.episode-length-s 0.25 --no-terminations"
    ran = run_script("play.py", *words.split())
    assert ran.returncode == 0, ran.stderr
    assert "Episodes finished" in ran.stdout and "Return so far" in ran.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--steps 5 --episodes 2", "--steps and --episodes are mutually exclusive"),
        ("--seconds -1", "--seconds must be a finite number above 0, got -1.0."),
        ("--seconds inf", "--seconds must be a finite number above 0, got inf."),
        ("--episodes 3 --no-terminations", "--episodes has no effect"),
        ("--camera nosuch --steps 3", "There is no camera 'nosuch'"),
        ("--agent rondom", "Unknown agent 'rondom'. Did you mean 'random'?"),
        ("--video --camera 7", "There is no camera 7"),
    ],
)
def test_play_refuses_invalid_options_before_it_runs(run_script, words, message):
    ran = run_script("play.py", "--task", "cartpole-balance", *words.split())
    assert ran.returncode == 2 and message in ran.stderr
    assert "Traceback" not in ran.stderr and "Until the first step" not in ran.stdout


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        ("--video", "imageio_ffmpeg", "video"),
        ("--rerun", "rerun", "rerun"),
        ("--plot --record.backend page", "viser", "web"),
        ("--viewer web", "viser", "web"),
    ],
)
def test_play_names_the_extra_that_is_missing_before_it_runs(
    run_script, words, package, extra, tmp_path
):
    words = f"--task cartpole-balance {words}"
    ran = run_script("play.py", *words.split(), cwd=tmp_path, missing=(package,))
    assert ran.returncode == 2, ran.stderr
    errors = [line for line in ran.stderr.splitlines() if line.startswith("Error")]
    assert len(errors) == 1 and f"pip install 'mjlab_rec[{extra}]'" in errors[0]
    assert "Until the first step" not in ran.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--viewer native", "there is no display"),
        ("--video --record.renderer gl", "OpenGL does not work"),
    ],
)
def test_play_says_what_is_missing_on_the_machine_before_it_runs(
    run_script, words, message, monkeypatch, tmp_path
):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("MUJOCO_GL", "glfw")  # Which cannot work without a display.
    words = f"--task cartpole-balance {words}"
    ran = run_script("play.py", *words.split(), cwd=tmp_path, start=True)
    assert ran.returncode == 2, ran.stderr
    assert message.lower() in ran.stderr.lower() and "Traceback" not in ran.stderr
    assert "Until the first step" not in ran.stdout


@pytest.mark.parametrize("words", ["--viewer native", "--plot --record.backend window"])
def test_play_says_that_the_display_does_not_respond(run_script, words, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    ran = run_script("play.py", "--task", "cartpole-balance", *words.split(), cwd=tmp_path)
    assert ran.returncode == 2, ran.stderr
    assert (
        "The display :77 that DISPLAY names does not respond" in ran.stderr
        and "Traceback" not in ran.stderr
    )


def test_a_plot_without_a_path_does_not_replace_another(run_script, tmp_path):
    pytest.importorskip("matplotlib")
    words = "--task cartpole-balance --steps 3 --plot --record.backend file"
    for _ in range(2):
        ran = run_script("play.py", *words.split(), cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
    assert len(list(tmp_path.rglob("live_plot*.png"))) == 2


def test_play_suggests_the_nearest_task(run_script):
    ran = run_script("play.py", "--task", "cartpole-balence")
    assert ran.returncode == 2
    assert "Did you mean 'cartpole-balance'?" in ran.stderr


def test_play_refuses_a_cfg_that_cannot_be_built(run_script):
    ran = run_script("play.py", *"--task cartpole-balance --device tpu".split())
    assert ran.returncode == 2 and "Unknown device 'tpu'" in ran.stderr
    ran = run_script("play.py", *"--task cartpole-balance --num-envs 0".split())
    assert ran.returncode == 2
    assert "num_envs" in ran.stderr and "Traceback" not in ran.stderr


def test_tasks_are_listed_with_what_their_functions_say(monkeypatch, capsys):
    registry.register_task("named", "tasks.cartpole.env_cfg:balance_env_cfg", "no_module:f")
    registry.register_task("lost", "no_module:f")
    monkeypatch.setenv("COLUMNS", "200")
    list_tasks.main([])
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert "The pole starts upright, and must stay upright." in lines["named"]
    assert "yes" in lines["named"] and "yes" not in lines["lost"]


def test_the_channels_of_a_task_are_listed_with_shapes_and_elements(monkeypatch, capsys):
    made = cart_cfg()
    made.scene.sensors = (BuiltinSensorCfg("tip", "framepos", ObjRef("site", "tip", "robot")),)
    registry.register_task("cart", lambda: made)
    monkeypatch.setenv("COLUMNS", "200")
    list_tasks.main(["cart", "--channels"])
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert {"obs/actor", "action", "state", "termination_terms/end"} <= set(lines)
    assert "slider, hinge" in lines["entity/robot/joint_pos"]
    assert lines["sensor/robot/tip"].replace(" ", "").split("│")[2:5] == ["3", "float32", "before"]
    with pytest.raises(SystemExit):
        list_tasks.main(["crat", "--channels"])
    assert "--channels needs the id of one task" in capsys.readouterr().err


def test_list_tasks_shows_ids_and_succeeds(run_script):
    ran = run_script("list_tasks.py", "swing")
    assert ran.returncode == 0
    assert "cartpole-swingup" in ran.stdout and "cartpole-balance" not in ran.stdout
