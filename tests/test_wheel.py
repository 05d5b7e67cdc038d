"""The installed package works without the checkout: commands, tasks and presets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mjlab_rec.data.rollouts import open_rollouts

ROOT = Path(__file__).parent.parent


def run(*argv: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    # Without PYTHONPATH, which contains the checkout.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a virtual environment with this package's wheel, without the checkout."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", "dist"]
    built = run(*pip, *build, ROOT, cwd=folder)
    assert built.returncode == 0, built.stderr
    made = run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=folder)
    assert made.returncode == 0, made.stderr
    programs = folder / "venv" / "bin"
    (wheel,) = (folder / "dist").glob("mjlab_rec-*.whl")
    into = ["--python", programs / "python", "install", "--no-deps", "--no-index", wheel]
    done = run(*pip, *into, cwd=folder)
    assert done.returncode == 0, done.stderr
    # What it depends on. The .pth files there, such as that of a checkout, are not read: only
    # those in an environment's own folder are.
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(str(Path(torch.__file__).parents[1]))
    return programs


def test_the_checkout_is_not_importable_from_the_wheel_test(installed, tmp_path):
    code = "import mjlab_rec, tasks, sys; print(mjlab_rec.__file__, tasks.__file__, *sys.path)"
    ran = run(installed / "python", "-c", code, cwd=tmp_path)
    package, tasks, *path = ran.stdout.split()
    assert Path(package).is_relative_to(installed.parent), ran.stderr
    assert Path(tasks).is_relative_to(installed.parent)
    assert str(ROOT) not in path


def test_presets_are_those_of_the_checkout(installed, tmp_path):
    code = "from mjlab_rec.recorders.presets import PRESETS; print(PRESETS)"
    ran = run(installed / "python", "-c", code, cwd=tmp_path)
    presets = Path(ran.stdout.strip())
    assert presets.is_relative_to(installed.parent), ran.stderr
    there = {path.name: path.read_text() for path in presets.glob("*.toml")}
    here = {path.name: path.read_text() for path in (ROOT / "configs/recorders").glob("*.toml")}
    assert there == here


def test_play_records_a_rollout_in_an_empty_folder(installed, tmp_path):
    words = "play --task cartpole-balance --num-envs 2 --steps 8 --device cpu --record hdf5"
    ran = run(installed / "mjlab-rec", *words.split(), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert os.listdir(tmp_path) == ["rollouts"]
    with open_rollouts(tmp_path / "rollouts/cartpole-balance/hdf5.h5") as rollouts:
        assert rollouts.rows == 16
        assert "next_obs/actor" in rollouts[0]


def test_list_shows_the_tasks(installed, tmp_path):
    ran = run(installed / "mjlab-rec", "list", cwd=tmp_path)
    assert ran.returncode == 0 and "cartpole-swingup" in ran.stdout, ran.stderr
