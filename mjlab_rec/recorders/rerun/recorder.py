"""The Rerun recorder: a 3D scene with plots beside it, to look at now or later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import torch

from mjlab_rec.data.schema import DataError
from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.recorders.cfg import typed
from mjlab_rec.recorders.channels import Channel, Source
from mjlab_rec.recorders.rerun.cfg import RerunRecorderCfg
from mjlab_rec.recorders.rerun.poses import model_fields, pose_sources
from mjlab_rec.recorders.rerun.viewer import RerunViewer, listens
from mjlab_rec.recorders.rerun.writer import ACTIVE, RerunTarget, RerunWriter
from mjlab_rec.recorders.rollout import RolloutRecorder
from mjlab_rec.recorders.triggers import trigger_from
from mjlab_rec.terrains.terrain_entity import grid_origins
from mjlab_rec.utils.extras import require

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.recorders.stretches import Stretches

logger = logging.getLogger(__name__)

_PORTS = {"rerun": 443, "rerun+http": 80, "rerun+https": 443}


class RerunRecorder(RolloutRecorder):
    """Records a 3D scene of all environments, with plots, for the Rerun viewer.

    A frame shows what a step led to: after n control steps of the environment it is at n on the
    timeline "step" and at n times ``step_dt`` on "time". At the last step of an episode it shows
    where that ended. Where a reset puts things is no frame of its own, so that L steps give L
    frames. Observations and other values from before the action are at the step before.

    Each geom is an entity with an instance per environment, each number a line per environment.
    Ends of episodes are lines of text in "/episodes". With a trigger of episodes and a single
    environment, each episode N has timelines of its own as well: "episode_N_step" and
    "episode_N_time".

    A file is complete once it is closed. After a kill everything up to the last chunk is there.
    """

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        require("rerun", "rerun", "RerunRecorder")
        cfg = typed(cfg, RerunRecorderCfg)
        cfg.check()
        self.rerun_cfg = cfg
        """What this recorder was told."""
        self.page = ""
        """Address of the web page, if one is served; it ends with the environment."""
        self._viewers: list[RerunViewer] = []
        super().__init__(cfg.as_rollout(env.num_envs), env)
        self._asked = self._sources
        self._by_episode = (
            cfg.trigger is not None
            and trigger_from(cfg.trigger).scope == "episode"
            and self._lanes.count == 1
        )
        self._together = self._stretches.per_env
        if self._together:
            self._stretches: Any = _Together(self._stretches)
        if cfg.connect is not None:
            _check_url(cfg.connect)
        try:
            if cfg.serve:
                self._viewers.append(RerunViewer("web", cfg.web_port))
                self.page = self._viewers[0].page
                logger.info("Rerun's page: %s", self.page)
            if cfg.spawn:
                self._viewers.append(RerunViewer("native"))
        except BaseException:
            self._close_viewers()
            raise

    def channels(self) -> Sequence[str | Channel]:
        """What is plotted."""
        return self.rerun_cfg.channels

    def writer(self) -> Callable[..., Any]:
        """What writes to Rerun."""
        cfg, sim = self.rerun_cfg, self._env.sim
        urls = [viewer.url for viewer in self._viewers]
        origins = np.zeros((self._lanes.count, 3), np.float32)
        if cfg.spacing_m:
            origins = grid_origins(self._lanes.count, cfg.spacing_m, "cpu").numpy()
        target = RerunTarget(
            stream=cfg.recording_stream,
            urls=urls if cfg.connect is None else [*urls, cfg.connect],
            model=sim.mj_model,
            per_world=model_fields(self._env, cfg.contacts),
            origins=origins,
            groups=cfg.geom_groups,
            contacts=cfg.contacts,
            cameras=cfg.cameras,
            blueprint=cfg.blueprint,
            by_episode=self._by_episode,
            viewers_may_go=bool(cfg.path) or cfg.connect is None,
        )
        return partial(RerunWriter, target=target)

    def close(self) -> None:
        """Write what is left, finish the file and end the page, which ``stop()`` leaves open."""
        try:
            super().close()
        finally:
            self._close_viewers()

    def _prepare(self) -> None:
        more = pose_sources(self._env, self.rerun_cfg.contacts)
        if self._together:
            more.append(Source(name=ACTIVE, read=self._active, when="before"))
        self._sources = [*self._asked, *more]
        super()._prepare()

    def _active(self) -> torch.Tensor:
        """Which environments the step to come is recorded of (num_envs,)."""
        counters = getattr(self, "_counters", None)  # There are none yet while it gets ready.
        taken = self._env.episode_length_buf if counters is None else counters.length
        return self._stretches.active(self._env.common_step_counter, taken)

    def _close_viewers(self) -> None:
        viewers, self._viewers = self._viewers, []
        for viewer in viewers:
            viewer.close()


class _Together:
    """Follows a trigger that decides for each environment, of rows that are written together.

    The rollout recorder would gather such rows by episodes. Here environments are instances of the
    same entities, so every row is taken and ``active`` is recorded with it.
    """

    per_env = False

    def __init__(self, stretches: Stretches) -> None:
        self.want = stretches.want
        self.begin = stretches.begin
        self.active = stretches.active
        self.fire = stretches.fire


def _check_url(url: str) -> None:
    """Say at once if no viewer is there; Rerun would only say it after a while."""
    address = urlsplit(url)
    try:
        port = address.port or _PORTS[address.scheme]
    except (KeyError, ValueError):  # What urlsplit says of a port that is no number.
        port = None
    if port is None or not address.hostname:
        raise ValueError(
            f"{url!r} is no viewer's URL. It looks like 'rerun+http://127.0.0.1:9876/proxy'."
        )
    if not listens(address.hostname, port):
        raise DataError(
            f"No Rerun viewer listens at {address.hostname}:{port}. Start one with the command"
            " 'rerun', or use serve=True or spawn=True, which start one."
        )
