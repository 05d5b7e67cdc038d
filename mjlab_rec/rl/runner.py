"""The training loop, with checkpoints from which a run goes on exactly where it was."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.envs import state as env_states
from mjlab_rec.rl import checkpoints, distributed
from mjlab_rec.rl.clocks import IterationClock
from mjlab_rec.rl.config import without_unused
from mjlab_rec.rl.export import export_onnx
from mjlab_rec.rl.finite import FiniteCheck, check_losses
from mjlab_rec.rl.iteration import Iteration, curves
from mjlab_rec.rl.learner_state import make_writable
from mjlab_rec.rl.old_checkpoints import update_format
from mjlab_rec.rl.run_folders import BEST, as_plain
from mjlab_rec.rl.run_state import (
    load_progress_of_env,
    load_run_state,
    progress_of_env,
    remove_other_run_states,
    write_run_state,
)
from mjlab_rec.rl.training_log import TrainingLog
from mjlab_rec.utils.extras import require

if TYPE_CHECKING:
    from mjlab_rec.rl.vecenv_wrapper import RslRlVecEnvWrapper

_OnPolicyRunner: Any = require("rsl_rl.runners", "train", "MjlabOnPolicyRunner").OnPolicyRunner

logger = logging.getLogger(__name__)


class MjlabOnPolicyRunner(_OnPolicyRunner):
    """The base of tasks' runners.

    Args:
        env: The environment, as RslRlVecEnvWrapper.
        train_cfg: RslRlOnPolicyRunnerCfg as a dict (``dataclasses.asdict``). RSL-RL adds to it.
        log_dir: Where logs and checkpoints go; None writes none.
        device: Where the networks are.
    """

    env: RslRlVecEnvWrapper

    def __init__(
        self,
        env: Any,
        train_cfg: dict[str, Any],
        log_dir: str | None = None,
        device: str = "cpu",
    ) -> None:
        agent = as_plain(train_cfg)
        for name in checkpoints.NETWORKS:
            if name in train_cfg:
                train_cfg[name] = without_unused(train_cfg[name])
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            super().__init__(env, train_cfg, log_dir, device)
        logger.info("%s", said.getvalue().strip())
        self.logger = TrainingLog(
            log_dir=log_dir,
            cfg=self.cfg,
            env_cfg=env.cfg,
            num_envs=env.num_envs,
            is_distributed=self.is_distributed,
            gpu_world_size=self.gpu_world_size,
            gpu_global_rank=self.gpu_global_rank,
            device=device,
        )
        self.iterations_done = 0
        """Number of iterations so far, those before a resume included."""
        self.best_return: float | None = None
        """Highest mean return so far, of the last whole episodes."""
        self.counts_from = 0
        """Number of the first iteration since the environments began at random times."""
        self.first_settings = env_states.settings(env.unwrapped)
        """Values in the cfgs of terms, before curricula change them."""
        self.on_iteration: Callable[[Iteration], None] = lambda iteration: None
        """Called after each iteration."""
        self.should_stop: Callable[[], bool] = lambda: False
        """Asked after each iteration; if True in any process, training ends as if complete."""
        self._about = checkpoints.describe(env, agent, self.cfg["obs_groups"])
        self._best: dict[str, Any] | None = None  # Not written yet.

    def learn(self, num_learning_iterations: int, init_at_random_ep_len: bool = False) -> None:
        """Train, and write checkpoints every ``save_interval`` iterations and at the end.

        Args:
            num_learning_iterations: How many iterations, in addition to those before.
            init_at_random_ep_len: Begin as if each environment had been running for a random time,
                so that they do not all end together.
        """
        env, alg, log = self.env, self.alg, self.logger
        if init_at_random_ep_len:
            env.episode_length_buf = torch.randint_like(
                env.episode_length_buf, high=int(env.max_episode_length)
            )
            self.counts_from = self.iterations_done
        obs = env.get_observations().to(self.device)
        alg.train_mode()
        if self.is_distributed:
            alg.broadcast_parameters()
        first, end = self.iterations_done, self.iterations_done + num_learning_iterations
        log.init_logging_writer(first)
        clock, finite = IterationClock(env.unwrapped), FiniteCheck()
        try:
            with clock.watching(), distributed.noticing_losses():
                for number in range(first, end):
                    clock.start()
                    obs = self._collect(obs, clock, finite)
                    finite.report(number)
                    with torch.inference_mode():
                        alg.compute_returns(obs)
                    losses = alg.update()
                    check_losses(losses, number)
                    self.current_learning_iteration = number
                    self.iterations_done = number + 1
                    self._conclude(clock, losses, end)
                    stop = distributed.any_of_all(self.should_stop(), self.device)
                    is_last = stop or number == end - 1
                    if is_last and self.best_return is None:
                        self._best = self._checkpoint(None)  # Until there is a better one.
                    if is_last or number % self.cfg["save_interval"] == 0:
                        self._save_all(number)
                    if is_last:
                        break
        except distributed.LostProcessError:
            raise
        except Exception as error:
            # A flight recorder writes the steps that led here.
            env.unwrapped.recorder_manager.record_exception(error)
            raise
        finally:
            log.stop_logging_writer()

    def save(self, path: str, infos: dict[str, Any] | None = None) -> None:
        """Write a checkpoint, and upload it unless the config says otherwise."""
        checkpoints.check_plain(infos)
        checkpoints.write(path, self._checkpoint(infos))
        self._upload(path)

    def load(
        self,
        path: str,
        load_cfg: dict[str, Any] | None = None,
        strict: bool = True,
        map_location: str | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint, also one of an older RSL-RL, and return its ``infos``.

        Raises:
            CheckpointError: It does not fit; the message says what differs.
        """
        checkpoint = checkpoints.read(path, map_location or self.device)
        update_format(checkpoint)
        if strict:
            checkpoints.check_fits(path, checkpoint, self._about, self.alg.save(), load_cfg)
        infos = checkpoint.get("infos")
        make_writable(self.alg)
        if self.alg.load(checkpoint, load_cfg, strict):
            self.current_learning_iteration = checkpoint["iter"]
            self.iterations_done = self.counts_from = checkpoint["iter"] + 1
            self.best_return = (infos or {}).get("best_return")
        if infos and "env_state" in infos:
            load_progress_of_env(self.env, infos["env_state"])
        return infos  # type: ignore[return-value]

    def resume(self, path: str | Path) -> bool:
        """Go on from a checkpoint, and exactly from there if the environments' state is known.

        Counters, curricula, normalization and the optimizer go on in any case. The state of the
        environments is in the file ``state_<iteration>.pt`` next to the last checkpoint of a run;
        it is used if the environments are configured as they were.

        Returns:
            Whether the environments go on in the middle of their episodes. Otherwise they begin
            new ones: call ``learn`` with ``init_at_random_ep_len=True``.
        """
        path = Path(path)
        infos = self.load(str(path)) or {}
        task, ours = infos.get("task"), self._about["task"]
        if task not in (None, ours):
            raise checkpoints.CheckpointError(
                f"{path} is a checkpoint of the task {task!r}, and cannot be resumed with {ours!r}."
            )
        return load_run_state(self, path.parent, self.current_learning_iteration)

    def export_policy_to_onnx(
        self, path: str, filename: str = "policy.onnx", verbose: bool = False
    ) -> None:
        """Write the policy as an ONNX file into the folder ``path``."""
        model = self.alg.get_policy().as_onnx(verbose=verbose).to("cpu").eval()
        os.makedirs(path, exist_ok=True)
        export_onnx(model, model.get_dummy_inputs(), Path(path) / filename, verbose)

    @staticmethod
    def _get_export_paths(checkpoint_path: str) -> tuple[Path, str, Path]:
        """Folder, name and path of the ONNX file next to a checkpoint, named after the folder."""
        folder = Path(checkpoint_path).parent
        name = f"{folder.name}.onnx"
        return folder, name, folder / name

    # -- an iteration ------------------------------------------------------------------------------

    @torch.inference_mode()
    def _collect(self, obs: Any, clock: IterationClock, finite: FiniteCheck) -> Any:
        """Take the steps of an iteration, and return the observation after them."""
        env, alg, device = self.env, self.alg, self.device
        intrinsic = None
        for _ in range(self.cfg["num_steps_per_env"]):
            actions = alg.act(obs)
            obs, rewards, dones, extras = clock.step(env.step, actions.to(env.device))
            finite.add_step(obs, rewards)
            obs, rewards, dones = obs.to(device), rewards.to(device), dones.to(device)
            alg.process_env_step(obs, rewards, dones, extras)
            if self.cfg["algorithm"].get("rnd_cfg"):
                intrinsic = alg.intrinsic_rewards
            self.logger.process_env_step(rewards, dones, extras, intrinsic)
        return obs

    def _conclude(self, clock: IterationClock, losses: dict[str, float], end: int) -> None:
        """Write the curves of an iteration, and keep its policy if it is the best so far."""
        log, number = self.logger, self.current_learning_iteration
        shares = clock.read()
        logged = log.end_iteration(number, shares.total)
        good = self._whole_return()
        is_best = good is not None and (self.best_return is None or good > self.best_return)
        if is_best:
            self.best_return = good
            self._best = deepcopy(self._checkpoint(None))
        iteration = Iteration(
            number=number,
            last=end - 1,
            env_steps=self.cfg["num_steps_per_env"] * self.env.num_envs * self.gpu_world_size,
            total_env_steps=log.tot_timesteps,
            shares=shares,
            mean_return=log.mean_return,
            mean_length=log.mean_length,
            losses=losses,
            log=logged,
            best_return=self.best_return,
            is_best=is_best,
        )
        std = getattr(self.alg.get_policy(), "output_std", None)
        std = None if std is None else std.mean().item()
        log.write(number, curves(iteration, self.alg.learning_rate, std))
        self.on_iteration(iteration)

    def _whole_return(self) -> float | None:
        """Mean return of the last episodes that began after the first iteration did.

        The others are cut short, which may look good.
        """
        needed = math.ceil(self.env.max_episode_length / self.cfg["num_steps_per_env"])
        return self.logger.mean_return_since(self.counts_from + needed)

    # -- checkpoints -------------------------------------------------------------------------------

    def _checkpoint(self, infos: dict[str, Any] | None) -> dict[str, Any]:
        return {
            **self.alg.save(),
            "iter": self.current_learning_iteration,
            "infos": {
                **(infos or {}),
                **self._about,
                "best_return": self.best_return,
                "env_state": progress_of_env(self),
            },
        }

    def _save_all(self, number: int) -> None:
        """Write the state of the environments, a checkpoint and the best policy."""
        if self.logger.log_dir is None:
            return
        folder, is_first = Path(self.logger.log_dir), self.gpu_global_rank == 0
        if is_first:
            folder.mkdir(parents=True, exist_ok=True)
        if folder.is_dir():  # Another machine may not have it.
            write_run_state(self, folder, number)
        self._wait_for_all()  # All states are there before the checkpoint is.
        if is_first:
            if self._best is not None:
                checkpoints.write(folder / BEST, self._best)
                self._upload(folder / BEST)
            self.save(str(folder / f"model_{number}.pt"))
        self._best = None
        self._wait_for_all()  # Until then, the run would go on from the states before.
        remove_other_run_states(folder, number)

    def _upload(self, path: str | Path) -> None:
        if self.cfg.get("upload_model", True):
            self.logger.save_model(str(path), self.current_learning_iteration)

    def _wait_for_all(self) -> None:
        if self.is_distributed:
            torch.distributed.barrier()

    def _configure_multi_gpu(self) -> None:
        """Join the other processes that torchrun started, on GPUs or CPUs."""
        here = distributed.ranks()
        self.gpu_world_size, self.is_distributed = here.world_size, here.is_distributed
        self.gpu_global_rank, self.gpu_local_rank = here.rank, here.local_rank
        self.cfg["multi_gpu"] = None
        if self.is_distributed:
            distributed.connect(self.device)
            self.cfg["multi_gpu"] = {
                "global_rank": here.rank,
                "local_rank": here.local_rank,
                "world_size": here.world_size,
            }
