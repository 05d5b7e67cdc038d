"""The list of modules in mjlab_rec/README.md is complete, and imports stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_layers import RANK

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mjlab_rec"
MAP = PACKAGE / "README.md"


def module_map() -> str:
    """Every folder and module below mjlab_rec, in layer order, with its docstring's first line."""

    def lines(folder: Path, indent: str) -> Iterator[str]:
        for path in sorted(folder.iterdir(), key=order):
            name, inner = path.name, path / "__init__.py"
            if inner.exists():
                yield entry(f"{indent}{name}/", inner)
                yield from lines(path, indent + "  ")
            elif path.suffix == ".py" and name != "__init__.py":
                yield entry(indent + name, path)

    def order(path: Path) -> tuple[int, bool, str]:
        rank = RANK.get(f"mjlab_rec.{path.stem}", 0) if path.parent == PACKAGE else 0
        return rank, path.is_file(), path.name

    def entry(name: str, path: Path) -> str:
        doc = ast.get_docstring(ast.parse(path.read_text())) or "(no docstring)"
        return f"{name:29} {doc.splitlines()[0]}"

    return "\n".join(lines(PACKAGE, ""))


def test_map_lists_all_modules():
    text = MAP.read_text()
    missing = [line for line in module_map().splitlines() if line not in text]
    assert module_map() in text, f"run `make map`. Missing, for example: {missing[:3]}"


def imported_by(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint('modules:', *sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(ran.stdout.rpartition("modules:")[2].split())


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import mjlab_rec", {"torch", "warp", "mujoco", "polars", "h5py", "tyro"}),
        (
            "from mjlab_rec.registry import list_tasks; assert list_tasks()",
            {"torch", "warp", "mujoco", "polars", "h5py", "tyro"},
        ),
        ("import mjlab_rec.cli", {"torch", "warp", "mujoco", "polars", "h5py"}),
        ("import mjlab_rec.sim", {"warp", "mujoco_warp", "mjbatch"}),
        ("import mjlab_rec.envs", {"warp", "mujoco_warp", "mjbatch", "polars", "h5py", "tyro"}),
    ],
)
def test_import_does_not_load_heavy_packages(statement, heavy):
    assert imported_by(statement) & heavy == set()


def test_first_step_on_the_cpu_loads_neither_warp_nor_torchs_compiler():
    statement = """
import torch
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.registry import load_env_cfg
cfg = load_env_cfg("cartpole-balance")
cfg.sim.engine = "mjbatch"
with ManagerBasedRlEnv(cfg, device="cpu") as env:
    env.reset()
    env.step(torch.zeros(1, 1))
"""
    assert imported_by(statement) & {"warp", "mujoco_warp", "torch._dynamo", "sympy"} == set()


def test_license_and_typing_marker_are_shipped():
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert (PACKAGE / "py.typed").exists()


if __name__ == "__main__":  # `make map`
    before, _, rest = MAP.read_text().partition("```text\n")
    after = rest.partition("\n```")[2]
    MAP.write_text(f"{before}```text\n{module_map()}\n```{after}")
