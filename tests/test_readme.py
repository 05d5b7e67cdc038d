"""The pages are correct: examples and commands run, and links work.

An indented line that begins with one of RUN is a command. A block whose first line names a file, as
``# my_tasks.py`` does, is written to that file before anything else of its page runs.
"""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from mjlab_rec import registry
from mjlab_rec.commands import main as mjlab_rec
from mjlab_rec.recorders import VideoRecorderCfg

ROOT = Path(__file__).parent.parent
PAGES = {str(page.relative_to(ROOT)): page.read_text() for page in ROOT.glob("*.md")}
for folder in ("mjlab_rec", "tasks", "scripts", "configs", ".github"):
    PAGES |= {str(p.relative_to(ROOT)): p.read_text() for p in (ROOT / folder).rglob("*.md")}
# Its code is a package that tests/test_formats_plugin.py installs.
EXAMPLES_ELSEWHERE = "mjlab_rec/data/formats/README.md"

RUN = (".venv/bin/python scripts/", "mjlab-rec ", "make ")
EXTRAS = {
    "--video": "imageio_ffmpeg",
    "--rerun": "rerun",
    "--viewer": "mjviser",
    "video": "imageio_ffmpeg",
    "rerun": "rerun",
    "import pandas": "pandas",
    "import plot": "matplotlib",
    "plot": "matplotlib",
    "import rerun": "rerun",
    "import duckdb": "duckdb",
    "import make_vec_env": "stable_baselines3",
    "import MjlabOnPolicyRunner": "rsl_rl",
    "import export_agent": "onnxruntime",
    "import prepared": "rsl_rl",
    "import for_mjlab": "mjlab",
    "import close_recordings, for_isaaclab": "isaaclab",
    "train": "rsl_rl",
    'pictures="h264"': "imageio_ffmpeg",
}
# Scripts are not run to their end, to save time; tests/benchmarks runs the other benchmarks.
SHORT = {
    "scripts/bench.py": "--help",
    "scripts/bench.py rerun": "--num-envs 1 --frames 2 --rounds 1",
    "scripts/bench.py terrain": "--num-envs 2 --tiles 1 --grid 1 --rounds 1 --kinds tilted_grid",
    "scripts/rerun_screenshot.py": "--help",
    "scripts/benchmarks/velocity_follow.py": "--help",
    "scripts/benchmarks/velocity_physics.py": "--num-envs 2 --rounds 1 --variants cg",
    "scripts/benchmarks/velocity_random.py": "--steps 2 --num-envs 2",
    "scripts/docs.py": "--help",
    "scripts/make_motion.py": "",
    "scripts/examples/behaviour_cloning.py": "--help",
    "scripts/examples/ppo.py": "--total-steps 100 --num-envs 2",
    "scripts/pictures.py": "--tasks cartpole-balance --columns 1",
}
PLAY_OR_LIST = {
    "scripts/play.py": ["play"],
    "scripts/replay.py": ["replay"],
    "scripts/list_tasks.py": ["list"],
    "scripts/show_terrain.py": ["terrain"],
    "scripts/train.py": ["train"],
    "scripts/evaluate.py": ["evaluate"],
    "scripts/collect.py": ["collect"],
    "scripts/export.py": ["export"],
    "scripts/data.py": ["data"],
    "mjlab-rec": [],
}


def blocks(page: str, language: str = r"\w+") -> list[str]:
    """The blocks of code on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


def text_of(page: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)


def headings(page: Path) -> list[str]:
    """The anchors of a page's headings."""
    titles = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]


def commands(page: str) -> list[str]:
    """The commands on a page that can be run here."""
    lines = re.findall(
        r"^    (\S[^#\n]*)", re.sub(r"^```.*?^```", "", PAGES[page], flags=16 | 8), 8
    )
    return [line.strip() for line in lines if line.startswith(RUN)]


def of_pages(found):
    """One test for each item on the pages."""
    return [
        pytest.param(page, item, id=f"{page}-{number}")
        for page in PAGES
        if page != EXAMPLES_ELSEWHERE
        for number, item in enumerate(found(page))
    ]


@pytest.fixture
def folder(request, tmp_path, monkeypatch):
    """A folder with the files that a page names; what examples register or import is forgotten.

    Videos are small unless their size is given.
    """
    sizes = VideoRecorderCfg.__init__.__kwdefaults__
    assert sizes is not None
    monkeypatch.setitem(sizes, "width", 160)
    monkeypatch.setitem(sizes, "height", 120)
    page = request.node.callspec.params["page"]
    for block in blocks(page):
        if name := re.match(r"(?:# |<!-- )([\w.]+\.\w+)\b", block):
            (tmp_path / name[1]).write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    registry.list_tasks()
    tasks, modules = dict(registry._tasks), set(sys.modules)
    yield tmp_path
    registry._tasks.clear()
    registry._tasks.update(tasks)
    for name in sys.modules.keys() - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.mark.parametrize(("page", "example"), of_pages(lambda page: blocks(page, "python")))
def test_example_runs_and_runs_again(page, example, folder, monkeypatch):
    for needed in EXTRAS:
        if needed.startswith(("import", "pictures")) and needed in example:
            pytest.importorskip(EXTRAS[needed])
    tasks = dict(registry._tasks)
    for _ in range(2):
        monkeypatch.setattr(registry, "_tasks", dict(tasks))
        exec(compile(example, "<example>", "exec"), {"__name__": "page", "__file__": "page.py"})


@pytest.mark.parametrize(("page", "command"), of_pages(commands))
def test_command_runs(page, command, folder, run_script):
    program, *options = shlex.split(command.removeprefix(".venv/bin/python "))
    for option in EXTRAS.keys() & set(options):
        pytest.importorskip(EXTRAS[option])
    if program == "make":
        options += ["--dry-run", f"PYTHON={sys.executable}"]
        subprocess.run([program, *options], cwd=ROOT, capture_output=True, check=True)
    elif program in PLAY_OR_LIST:
        run_command([*PLAY_OR_LIST[program], *options])
    else:
        names = [" ".join([program, *options[:1]]), program]
        options += next(SHORT[name] for name in names if name in SHORT).split()
        ran = run_script(ROOT / program, *options, cwd=folder)
        assert ran.returncode == 0, ran.stderr


def run_command(words: list[str]) -> None:
    """Run ``mjlab-rec``; what records must run again."""
    wants_help = "--help" in words
    if words[0] == "play" and not wants_help:  # Not to the end, to save time.
        words = shlex.split(re.sub(r"--(episodes|seconds|steps) \S+", "", shlex.join(words)))
        words += ["--steps", "3"]
    if words[0] == "train" and not wants_help:
        words = _short_training(words)
    if words[0] == "evaluate" and not wants_help:
        words = shlex.split(re.sub(r"--episodes \S+", "--episodes 2", shlex.join(words)))
        words += ["--env.episode-length-s", "0.2"]
    if words[0] == "collect" and not wants_help:
        options = r"--(episodes|workers|num-envs) \S+"
        words = shlex.split(re.sub(options, "", shlex.join(words)))
        words += ["--episodes", "2", "--env.episode-length-s", "0.2"]
    if words[0] == "data":
        record_inputs(words)
    if words[0] != "train" and not {"latest", "best"}.isdisjoint(words):
        pytest.importorskip("rsl_rl")
        learn(words[words.index("--task") + 1])
    if words[0] == "replay" and not wants_help:
        record = ["--steps", "3", "--record", "replay", "--record.path", words[1]]
        mjlab_rec.main(["play", "--task", "cartpole-balance", *record])
        modes = {"--verify", "--policy", "--task"}
        words += [] if modes & set(words) else ["--steps", "2"]
    for _ in range(2 if "--record.path" in words and not wants_help else 1):
        try:
            mjlab_rec.main(words)
        except SystemExit as ended:
            assert not ended.code, words


def record_inputs(words: list[str]) -> None:
    """Record the files that a command reads."""
    read = [w for before, w in pairwise(words) if w.endswith(".h5") and not before.startswith("-")]
    preset = "replay" if words[1] == "relabel" else "hdf5"
    options = f"--task cartpole-balance --num-envs 16 --seed 0 --steps 3 --record {preset}"
    for path in read:
        mjlab_rec.main(["play", *options.split(), "--record.path", path])


def _short_training(words: list[str]) -> list[str]:
    """A training of one iteration; what goes on with an earlier run gets one first."""
    short = ["--num-envs", "2", "--agent.num-steps-per-env", "4", "--agent.max-iterations"]
    if "--resume" in words:
        at = words.index("--resume")
        mjlab_rec.main([*words[:at], *words[at + 2 :], *short, "1"])
    return [*words, *short, "2" if "--resume" in words else "1"]


def learn(task: str) -> None:
    """Write a run of the task without a training, into the current folder."""
    from dataclasses import asdict

    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.rl import MjlabOnPolicyRunner, RslRlVecEnvWrapper
    from mjlab_rec.rl.config import default_runner_cfg
    from mjlab_rec.rl.run_folders import BEST, new_run_folder, write_cfgs

    run, env_cfg = new_run_folder(task), registry.load_env_cfg(task)
    has_cfg = registry.task_spec(task).rl_cfg is not None
    cfg = registry.load_rl_cfg(task) if has_cfg else default_runner_cfg(env_cfg.observations)
    with ManagerBasedRlEnv(env_cfg) as env:
        runner = MjlabOnPolicyRunner(RslRlVecEnvWrapper(env), asdict(cfg), log_dir=None)
        for name in ("model_0.pt", BEST):
            runner.save(str(run / name))
    write_cfgs(run, task, cfg, {})


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    text = text_of(page)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if link.startswith(("http:", "https:")):
            continue
        file, _, heading = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), link
        assert not heading or heading in headings(target), link


def test_the_front_page_is_short_and_has_examples():
    assert len(PAGES["README.md"].splitlines()) <= 150
    assert blocks("README.md", "python")
    assert commands("README.md")
