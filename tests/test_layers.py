"""Modules import only from their own layer and lower ones."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom up; parts of one layer may import each other.
LAYERS = [
    {"mjlab_rec.utils"},
    {"mjlab_rec.data"},
    {"mjlab_rec.sim"},
    {"mjlab_rec.actuator", "mjlab_rec.entity", "mjlab_rec.sensor", "mjlab_rec.terrains"},
    {"mjlab_rec.scene"},
    {"mjlab_rec.managers"},
    {"mjlab_rec.envs.mdp"},
    {"mjlab_rec.envs"},
    {"mjlab_rec.recorders"},
    {
        "mjlab_rec.adapters",
        "mjlab_rec.viewer",
        "mjlab_rec.rl",
        "mjlab_rec.replay",
        "mjlab_rec.collecting",
    },
    {"mjlab_rec.registry"},
    {"mjlab_rec.cli", "mjlab_rec.gymnasium_ids"},
    {"mjlab_rec.commands", "mjlab_rec.asset_zoo", "mjlab_rec.scripts", "mjlab_rec.tasks"},
    {"mjlab_rec.__main__"},
    {"tasks"},
    {"scripts"},
]
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}

# Recorders also run in mjlab's own environment, and data is read without a simulator.
FORBIDDEN = {
    "mjlab_rec.data": ("mujoco_warp", "warp", "mjbatch", "mjlab_rec.sim", "mjlab_rec.envs"),
    "mjlab_rec.recorders": ("mujoco_warp", "warp", "mjbatch", "mjlab_rec.envs"),
}


def part_of(module: str) -> str | None:
    """The part of the package that a module belongs to; None for other packages and mjlab_rec."""
    matching = [part for part in RANK if module == part or module.startswith(part + ".")]
    return max(matching, key=len, default=None)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def runtime_imports(
    nodes: Iterable[ast.AST], module: str, is_package: bool
) -> Iterator[tuple[int, str]]:
    """Line and full name of all imports, except those for type checkers."""
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from runtime_imports(node.orelse, module, is_package)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".")
                above = here[: len(here) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            # `from package import name` may import a module of that name.
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        else:
            yield from runtime_imports(ast.iter_child_nodes(node), module, is_package)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    part = part_of(module)
    found = []
    for line, target in runtime_imports([ast.parse(source)], module, is_package):
        target_part = part_of(target)
        if part and target_part and RANK[target_part] > RANK[part]:
            found.append(f"{module}:{line} imports {target}, which is above {part}")
        for name in FORBIDDEN.get(part or "", ()):
            if target == name or target.startswith(name + "."):
                found.append(f"{module}:{line} imports {target}, which {part} may not")
    return found


def modules() -> list[Path]:
    return sorted(
        p for top in ("mjlab_rec", "tasks", "scripts") for p in (ROOT / top).rglob("*.py")
    )


def test_imports_point_downward():
    found = [
        violation
        for path in modules()
        for violation in violations(path.read_text(), module_name(path), path.stem == "__init__")
    ]
    assert not found, "\n".join(found)


def cycles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import themselves indirectly."""
    found, done = [], set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for target in sorted(imports[module]):
                visit(target, [*path, module])
            done.add(module)

    for module in sorted(imports):
        visit(module, [])
    return found


def imports_within(package: str) -> dict[str, set[str]]:
    """The imports between modules of a package, also in functions."""
    files = {
        module_name(path): path
        for path in modules()
        if f"{module_name(path)}.".startswith(f"{package}.") and path.stem != "__init__"
    }
    found = {}
    for module, path in files.items():
        targets = runtime_imports([ast.parse(path.read_text())], module, is_package=False)
        names = {target for _, target in targets}
        found[module] = {
            other for other in files if any(f"{n}.".startswith(f"{other}.") for n in names)
        }
    return found


@pytest.mark.parametrize("package", ["mjlab_rec.managers", "mjlab_rec.recorders"])
def test_there_are_no_circular_imports_within_a_package(package):
    """A cfg module imports its recorder module, never the other way round."""
    assert cycles(imports_within(package)) == []


def test_a_circular_import_is_found():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]


def test_every_module_belongs_to_a_layer():
    names = [module_name(path) for path in modules()]
    assert [n for n in names if part_of(n) is None] == ["mjlab_rec"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mjlab_rec.utils.math", "from mjlab_rec.sim import Simulation"),
        ("mjlab_rec.utils.math", "def f():\n    import mjlab_rec.envs.mdp"),
        ("mjlab_rec.managers.base", "from mjlab_rec import envs"),
        ("mjlab_rec.envs.mdp.rewards", "from mjlab_rec.envs import ManagerBasedRlEnv"),
        ("mjlab_rec.managers.base", "from ..envs import mdp"),
        ("mjlab_rec.data.worker", "import warp.types"),
        ("mjlab_rec.recorders.csv", "from mjlab_rec.envs import ManagerBasedRlEnv"),
        ("mjlab_rec.sim.engine", "if TYPE_CHECKING:\n    pass\nelse:\n    import tasks.cartpole"),
    ],
)
def test_an_upward_import_is_found(module, source):
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mjlab_rec.sim.engine", "if TYPE_CHECKING:\n    from mjlab_rec.envs import mdp"),
        ("mjlab_rec.entity.data", "from mjlab_rec.actuator import ActuatorCfg"),
        ("mjlab_rec.envs.env", "from mjlab_rec.envs import mdp"),
        ("mjlab_rec.managers.base", "from . import reward_manager"),
        ("tasks.cartpole.mdp", "import torch\nfrom mjlab_rec import rl"),
    ],
)
def test_a_downward_import_is_allowed(module, source):
    assert violations(source, module) == []
