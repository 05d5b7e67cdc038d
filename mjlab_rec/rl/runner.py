"""RSL-RL's training loop, with checkpoints that remember how far curricula were."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.utils.extras import require

if TYPE_CHECKING:
    from mjlab_rec.rl.vecenv_wrapper import RslRlVecEnvWrapper

_OnPolicyRunner: Any = require("rsl_rl.runners", "train", "MjlabOnPolicyRunner").OnPolicyRunner

# Without a value, RSL-RL must not see these fields of RslRlModelCfg at all.
_OPTIONAL = ("cnn_cfg", "distribution_cfg")
_RECURRENT = ("rnn_type", "rnn_hidden_dim", "rnn_num_layers")


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
        for name in ("actor", "critic"):
            if name in train_cfg:
                train_cfg[name] = _without_unused(train_cfg[name])
        super().__init__(env, train_cfg, log_dir, device)

    def save(self, path: str, infos: dict[str, Any] | None = None) -> None:
        """Write a checkpoint, and upload it unless the config says otherwise."""
        state = {"common_step_counter": self.env.unwrapped.common_step_counter}
        checkpoint = {
            **self.alg.save(),
            "iter": self.current_learning_iteration,
            "infos": {**(infos or {}), "env_state": state},
        }
        torch.save(checkpoint, path)
        if self.cfg.get("upload_model", True):
            self.logger.save_model(path, self.current_learning_iteration)

    def load(
        self,
        path: str,
        load_cfg: dict[str, Any] | None = None,
        strict: bool = True,
        map_location: str | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint, also one of an older RSL-RL, and return its ``infos``."""
        # As in RSL-RL itself: a checkpoint may hold any Python object, so load only your own.
        checkpoint = torch.load(path, map_location=map_location, weights_only=False)
        _update_format(checkpoint)
        if self.alg.load(checkpoint, load_cfg, strict):
            self.current_learning_iteration = checkpoint["iter"]
        infos = checkpoint["infos"]
        if infos and "env_state" in infos:
            counter = infos["env_state"]["common_step_counter"]
            self.env.unwrapped.common_step_counter = counter
        return infos

    def export_policy_to_onnx(
        self, path: str, filename: str = "policy.onnx", verbose: bool = False
    ) -> None:
        """Write the policy as an ONNX file into the folder ``path``."""
        model = self.alg.get_policy().as_onnx(verbose=verbose).to("cpu").eval()
        os.makedirs(path, exist_ok=True)
        torch.onnx.export(
            model,
            model.get_dummy_inputs(),
            os.path.join(path, filename),
            opset_version=18,
            verbose=verbose,
            input_names=model.input_names,
            output_names=model.output_names,
            # The other exporter warns of arguments that RSL-RL's models need.
            dynamo=False,
        )

    @staticmethod
    def _get_export_paths(checkpoint_path: str) -> tuple[Path, str, Path]:
        """Folder, name and path of the ONNX file next to a checkpoint, named after the folder."""
        folder = Path(checkpoint_path).parent
        name = f"{folder.name}.onnx"
        return folder, name, folder / name


def _without_unused(model: dict[str, Any]) -> dict[str, Any]:
    unused = {name for name in _OPTIONAL if model.get(name) is None}
    if model.get("rnn_type") is None:
        unused.update(_RECURRENT)
    return {name: value for name, value in model.items() if name not in unused}


def _update_format(checkpoint: dict[str, Any]) -> None:
    """Rename what RSL-RL 3 and 4 called differently."""
    old = checkpoint.pop("model_state_dict", None)
    if old is not None:
        actor, critic = {}, {}
        for key, value in old.items():
            owner, _, rest = key.partition(".")
            name, _, kind = owner.partition("_")
            weights = {"actor": actor, "critic": critic}.get(name)
            if weights is not None:
                weights[f"{'obs_normalizer' if kind else 'mlp'}.{rest}"] = value
            elif key in ("std", "log_std"):
                actor[key] = value
        checkpoint["actor_state_dict"], checkpoint["critic_state_dict"] = actor, critic
    actor = checkpoint.get("actor_state_dict", {})
    for name in ("std", "log_std"):
        if name in actor:
            actor[f"distribution.{name}_param"] = actor.pop(name)
