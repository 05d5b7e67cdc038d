"""The registry of tasks: ids and their cfgs, which are loaded only when needed.

Tasks are also registered with Gymnasium, as ``mjlab_rec/<task>-v0``. ``import mjlab_rec`` imports
the packages that register tasks, so keep their imports light: name cfgs as
"package.module:function".
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import gymnasium

from mjlab_rec.utils.lookup import import_here, import_packages, look_up
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnvCfg

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "mjlab_rec.tasks"

CfgSource = str | Callable[[], Any] | Any
"""Source of a cfg: "module:function", a function, or the cfg."""


class UnknownTaskError(KeyError):
    """There is no task with this id."""

    def __str__(self) -> str:
        # KeyError shows the repr of its message, which is hard to read.
        return self.args[0]


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Description of a task, without loading its cfgs."""

    task_id: str
    """The id, such as cartpole-balance."""
    env_cfg: CfgSource
    """Source of the environment's cfg."""
    play_env_cfg: CfgSource | None
    """Source of the cfg for watching the task; None: env_cfg."""
    rl_cfg: CfgSource | None
    """Source of the learner's cfg; None if there is none."""
    runner_cls: str | type | None = None
    """Class that trains the task, or "module:Class"; None: the default one."""
    train_num_envs: int | None = None
    """Environments to train in, if the user does not say how many; None: as in the cfg."""


_tasks: dict[str, TaskSpec] = {}
_broken: list[str] = []
_discovered = False


def register_task(
    task_id: str,
    env_cfg: CfgSource,
    play_env_cfg: CfgSource | None = None,
    rl_cfg: CfgSource | None = None,
    runner_cls: str | type | None = None,
    train_num_envs: int | None = None,
) -> None:
    """Register a task under an id, by which scripts and ``gymnasium.make_vec`` find it.

    What is named as "package.module:name" is imported only when it is loaded. Functions that make
    cfgs, and cfg objects, are possible, too, as in mjlab.
    """
    if not (runner_cls is None or isinstance(runner_cls, (str, type))):
        raise TypeError(
            f"Task {task_id!r}: runner_cls must be a class, or its name as 'package.module:Class',"
            f" got {runner_cls!r}."
        )
    if task_id in _tasks:
        raise ValueError(
            f"Task {task_id!r} is already registered, with env_cfg {_tasks[task_id].env_cfg!r}. "
            f"Choose another id for {env_cfg!r}."
        )
    _tasks[task_id] = TaskSpec(
        task_id=task_id,
        env_cfg=env_cfg,
        play_env_cfg=play_env_cfg,
        rl_cfg=rl_cfg,
        runner_cls=runner_cls,
        train_num_envs=train_num_envs,
    )
    _register_with_gymnasium(task_id)


register_mjlab_task = register_task
"""mjlab's name for register_task."""


def discover() -> None:
    """Import, once, the task packages of all installed distributions.

    ``import mjlab_rec`` does this. A package whose import is running, and imports mjlab_rec, is
    imported when tasks are next looked up.
    """
    global _discovered
    if _discovered:
        return
    _discovered = True
    for name in sorted({point.module for point in entry_points(group=ENTRY_POINT_GROUP)}):
        if _is_being_imported(name.partition(".")[0]):
            _discovered = False
        elif name not in _broken:
            _import_or_report(name)


def list_tasks() -> list[str]:
    """List the ids of all tasks, sorted."""
    discover()
    return sorted(_tasks)


def task_spec(task_id: str) -> TaskSpec:
    """Look a task up by its id."""
    discover()
    if task_id not in _tasks:
        of_mjlab = task_id.lower().startswith("mjlab-")
        message = (
            f"Unknown task {task_id!r}. {nearest('' if of_mjlab else task_id, sorted(_tasks))}"
        )
        if of_mjlab:
            message += " Tasks of mjlab are not in here; tasks/README.md says how to port one."
        if _broken:
            message += f" Failed to load: {', '.join(_broken)}."
        raise UnknownTaskError(message)
    return _tasks[task_id]


def load_env_cfg(task_id: str, play: bool = False) -> ManagerBasedRlEnvCfg:
    """Load a task's environment cfg. Each call returns a new object.

    With `play`, load the cfg for watching the task, if it has one.
    """
    spec = task_spec(task_id)
    cfg = _load(spec.play_env_cfg if play and spec.play_env_cfg is not None else spec.env_cfg)
    if getattr(cfg, "task", "") is None:
        cfg.task = task_id
    return cfg


def load_rl_cfg(task_id: str) -> Any:
    """Load a task's learner cfg. Each call returns a new object."""
    spec = task_spec(task_id)
    if spec.rl_cfg is None:
        raise ValueError(f"Task {task_id!r} has no rl_cfg. Pass one to register_task(rl_cfg=...).")
    return _load(spec.rl_cfg)


def load_runner_cls(task_id: str) -> type | None:
    """Load the class that trains a task; None means the default one."""
    source = task_spec(task_id).runner_cls
    return look_up(source) if isinstance(source, str) else source


def import_task_module(name: str) -> None:
    """Import a module that registers tasks; the current folder is searched too."""
    import_here(name)


def import_subpackages(package: str) -> None:
    """Import each package inside a package, at any depth, so that it registers its tasks.

    Packages named ``mdp`` or ``utils`` hold terms and helpers, and are left out. Failures are
    logged with their traceback, and the others still load.
    """
    import_packages(sys.modules[package], skip=(".mdp", ".utils"), on_error=_report)


def _is_being_imported(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return getattr(spec, "_initializing", False)


def _import_or_report(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception:
        _report(name)


def _report(name: str) -> None:
    """Log the exception of a failed import."""
    _broken.append(name)
    logger.exception("The task package %r could not be loaded. Its tasks are not available.", name)


def _register_with_gymnasium(task_id: str) -> None:
    gymnasium_id = f"mjlab_rec/{task_id}-v0"
    if gymnasium_id in gymnasium.registry:
        return
    try:
        gymnasium.register(
            gymnasium_id,
            entry_point="mjlab_rec.gymnasium_ids:refuse_single_env",
            vector_entry_point="mjlab_rec.gymnasium_ids:make_vector_env",
            kwargs={"task_id": task_id},
        )
    except gymnasium.error.Error as error:
        logger.warning("Gymnasium does not accept the task id %r: %s", task_id, error)


def _load(source: CfgSource) -> Any:
    if isinstance(source, str):
        source = look_up(source)
    # Copy results of functions too: they may share parts with later results.
    return deepcopy(source() if callable(source) else source)
