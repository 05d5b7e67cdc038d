"""Runs scripts, each in a process forked from one that has imported everything once.

A script then starts in a tenth of the time, and sees no difference: its process continues as if it
had just been started (see exit_runs). For tests about the start itself there is ``start=True``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from exit_runs import Runner

ROOT = Path(__file__).parent.parent

RunScript = Callable[..., subprocess.CompletedProcess[str]]

CODE = """
import runpy
import threading

for stream, name in ((1, "stdout"), (2, "stderr")):
    os.dup2(os.open(f"{out}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
os.chdir(job["cwd"])
os.environ.clear()
os.environ.update(job["env"])
sys.argv[:] = job["argv"]
sys.path[:2] = [os.path.dirname(sys.argv[0])]  # Instead of the folder of tests.
for name in job["missing"]:
    assert name not in sys.modules, f"{name} is already imported"
    sys.modules[name] = None
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
    code = 0
except SystemExit as ended:
    code = ended.code or 0
    assert isinstance(code, int), code
# What Python does at an exit, but for freeing every object, which takes as long as a short script.
threading._shutdown()
atexit._run_exitfuncs()
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    """Runs code in forked processes."""
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def run_script(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> RunScript:
    """Runs a script of the folder scripts to its end and returns its code, stdout and stderr."""

    def run(
        name: str | Path,
        *argv: str,
        cwd: Path = ROOT,
        missing: tuple[str, ...] = (),
        start: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a script, as if the packages in ``missing`` were not installed."""
        words = [str(ROOT / "scripts" / name), *argv]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        if start:
            assert not missing
            command = [sys.executable, *words]
            return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env)
        out = tmp_path_factory.mktemp("script")
        job = dict(argv=words, cwd=str(cwd), env=env, missing=missing)
        ran = runner.run(CODE, out=str(out), **job)
        stdout, stderr = ((out / stream).read_text() for stream in ("stdout", "stderr"))
        return subprocess.CompletedProcess(words, ran["code"], stdout, stderr + ran["output"])

    return run
