"""The registry of tasks: ids, lazy loading, and broken packages."""

from __future__ import annotations

import importlib
import logging
import sys
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint

import gymnasium
import pytest

from mjlab_rec import registry


@dataclass
class Cfg:
    weights: dict[str, float] = field(default_factory=lambda: {"a": 1.0})


SHARED = Cfg()


def shared_cfg() -> Cfg:
    return SHARED


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    """An empty registry that finds the packages of `points` only, in which tests declare them."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(registry, "_tasks", {})
    monkeypatch.setattr(registry, "_broken", [])
    monkeypatch.setattr(registry, "_discovered", False)
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    return points


@pytest.fixture
def package(fresh_registry, tmp_path, monkeypatch):
    """Write a package below a folder on sys.path, and declare it if wanted."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)

    def write(name: str, source: str, declare: bool = True) -> None:
        folder = tmp_path.joinpath(*name.split("."))
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(source)
        if declare:
            fresh_registry.append(EntryPoint(name, name, registry.ENTRY_POINT_GROUP))

    yield write
    for name in set(sys.modules) - known:
        if name.startswith("mine"):
            del sys.modules[name]


REGISTER = "from mjlab_rec.registry import register_task\nregister_task({id!r}, env_cfg='x:y')\n"


def test_declared_packages_are_found_on_first_use(package):
    package("mine_a", REGISTER.format(id="b-task"))
    package("mine_b", REGISTER.format(id="a-task"))
    assert "mine_a" not in sys.modules
    assert registry.list_tasks() == ["a-task", "b-task"]


def test_a_package_that_is_being_imported_is_postponed(package, caplog):
    package("mine_c", "from mjlab_rec import registry\nregistry.discover()\nvalue = 1\n")
    package("mine_c.tasks", "from mine_c import value\n" + REGISTER.format(id="late"))
    importlib.import_module("mine_c")
    assert "mine_c.tasks" not in sys.modules
    assert registry.list_tasks() == ["late"] and not caplog.records


def test_each_task_is_registered_with_gymnasium(monkeypatch, caplog):
    monkeypatch.setattr(gymnasium.envs.registration, "registry", {})
    monkeypatch.setattr(gymnasium, "registry", gymnasium.envs.registration.registry)
    registry.register_task("told", env_cfg="x:y")
    assert gymnasium.spec("mjlab_rec/told-v0").kwargs == {"task_id": "told"}
    registry.register_task("with spaces", env_cfg="x:y")
    assert "Gymnasium does not accept the task id 'with spaces'" in caplog.text
    assert registry.list_tasks() == ["told", "with spaces"]


def test_broken_package_is_reported_with_traceback_and_others_load(package, caplog):
    package("mine_bad", "import math\nmath.no_such_name\n")
    package("mine_good", REGISTER.format(id="good"))
    with caplog.at_level(logging.ERROR):
        assert registry.list_tasks() == ["good"]
    assert "'mine_bad' could not be loaded" in caplog.text
    assert "no_such_name" in caplog.text and "Traceback" in caplog.text
    registry.list_tasks()
    assert len(caplog.records) == 1


def test_unknown_id_names_the_package_that_failed(package):
    package("mine_bad", "1 / 0")
    with pytest.raises(registry.UnknownTaskError, match="Failed to load: mine_bad"):
        registry.load_env_cfg("gone")


def test_a_broken_subpackage_does_not_affect_the_others(package, caplog):
    package("mine", "from mjlab_rec.registry import import_subpackages as i\ni(__name__)\n")
    package("mine.bad", "1 / 0", declare=False)
    package("mine.good", REGISTER.format(id="good"), declare=False)
    assert registry.list_tasks() == ["good"]
    assert "'mine.bad' could not be loaded" in caplog.text


def test_module_in_the_current_folder_registers_its_tasks(package, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in (str(tmp_path), "")])
    monkeypatch.chdir(tmp_path)
    package("mine_local", REGISTER.format(id="local"), declare=False)
    registry.import_task_module("mine_local")
    assert registry.list_tasks() == ["local"]


def test_unknown_id_suggests_the_nearest():
    registry.register_task("cartpole-balance", env_cfg="x:y")
    with pytest.raises(KeyError) as caught:
        registry.load_env_cfg("cartpole-balence")
    assert str(caught.value) == (
        "Unknown task 'cartpole-balence'. Did you mean 'cartpole-balance'? Known: cartpole-balance."
    )


def test_a_task_of_mjlab_gets_no_wrong_suggestion():
    registry.register_task("velocity-flat-biped", env_cfg="x:y")
    with pytest.raises(KeyError, match="Tasks of mjlab are not in here; tasks/README.md") as caught:
        registry.load_env_cfg("Mjlab-Velocity-Flat-Unitree-Go1")
    assert "Did you mean" not in str(caught.value)


def test_id_registered_twice_is_an_error():
    registry.register_task("task", env_cfg="first:cfg")
    with pytest.raises(ValueError, match="'task' is already registered, with env_cfg 'first:cfg'"):
        registry.register_task("task", env_cfg="second:cfg")


@pytest.mark.parametrize(
    "source", [f"{__name__}:shared_cfg", f"{__name__}:SHARED", shared_cfg, SHARED]
)
def test_each_load_returns_a_new_cfg(source):
    registry.register_task("task", env_cfg=source, rl_cfg=source)
    for load in (registry.load_env_cfg, registry.load_rl_cfg):
        load("task").weights["a"] = 2.0
        assert load("task") == Cfg()


def test_play_cfg_is_used_only_for_play():
    registry.register_task("task", env_cfg=Cfg, play_env_cfg=lambda: Cfg({"play": 0.0}))
    registry.register_task("same", env_cfg=Cfg)
    assert registry.load_env_cfg("task", play=True).weights == {"play": 0.0}
    assert registry.load_env_cfg("task") == Cfg()
    assert registry.load_env_cfg("same", play=True) == Cfg()


def test_missing_learner_cfg_is_explained():
    registry.register_task("task", env_cfg=Cfg)
    with pytest.raises(ValueError, match=r"'task' has no rl_cfg"):
        registry.load_rl_cfg("task")


def test_wrong_source_is_explained():
    registry.register_task("no-colon", env_cfg="package.module")
    registry.register_task("no-name", env_cfg=f"{__name__}:shared_cgf")
    with pytest.raises(ValueError, match="Write 'package.module:name'"):
        registry.load_env_cfg("no-colon")
    with pytest.raises(ValueError, match="Did you mean 'shared_cfg'"):
        registry.load_env_cfg("no-name")


class Runner:
    """Stands for a class that trains."""


def test_the_runner_class_of_a_task_is_kept_and_loaded_when_asked_for():
    registry.register_mjlab_task("own", Cfg(), Cfg(), Cfg(), Runner)
    registry.register_task("named", env_cfg="x:y", runner_cls=f"{__name__}:Runner")
    registry.register_task("broken", env_cfg="x:y", runner_cls=f"{__name__}:Runer")
    registry.register_task("none", env_cfg=Cfg)
    assert registry.load_runner_cls("own") is registry.load_runner_cls("named") is Runner
    assert registry.load_runner_cls("none") is None
    with pytest.raises(ValueError, match="has no 'Runer'. Did you mean 'Runner'"):
        registry.load_runner_cls("broken")
    with pytest.raises(TypeError, match="'wrong': runner_cls must be a class"):
        registry.register_task("wrong", env_cfg="x:y", runner_cls=Runner())


def test_subpackages_are_imported_at_any_depth_and_broken_ones_reported(package, caplog):
    package("mine_deep", "", declare=False)
    package("mine_deep.velocity", "", declare=False)
    package("mine_deep.velocity.config", "", declare=False)
    package("mine_deep.velocity.config.go1", REGISTER.format(id="deep"), declare=False)
    package("mine_deep.velocity.config.bad", "raise RuntimeError('broken')", declare=False)
    package("mine_deep.velocity.mdp", "raise RuntimeError('not imported')", declare=False)
    importlib.import_module("mine_deep")
    with caplog.at_level(logging.ERROR):
        registry.import_subpackages("mine_deep")
    assert registry.list_tasks() == ["deep"]
    assert "'mine_deep.velocity.config.bad' could not be loaded" in caplog.text
    assert "not imported" not in caplog.text


def test_import_packages_raises_and_leaves_out_what_is_named(package):
    from mjlab_rec.utils.lab_api.tasks.importer import import_packages

    package("mine_more", "", declare=False)
    package("mine_more.a", "", declare=False)
    package("mine_more.a.robot", REGISTER.format(id="more"), declare=False)
    package("mine_more.a.mdp", "raise RuntimeError('broken')", declare=False)
    import_packages("mine_more", ["utils", ".mdp"])
    assert registry.list_tasks() == ["more"]
    with pytest.raises(RuntimeError, match="broken"):
        import_packages("mine_more")
