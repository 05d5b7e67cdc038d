"""RSL-RL's PPO with the same results and a fraction of the torch calls."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from mjlab_rec.rl.ppo_loss import ActorLoss, CriticLoss
from mjlab_rec.rl.ppo_network import ACTIVATIONS, Network
from mjlab_rec.utils.extras import require
from mjlab_rec.utils.matmul import fast_float32
from mjlab_rec.utils.threads import choose_threads, torch_threads

_NAME = "mjlab_rec.rl.ppo:PPO"
_RslRlPpo: Any = require("rsl_rl.algorithms", "train", _NAME).PPO
_MlpModel: Any = require("rsl_rl.models", "train", _NAME).MLPModel
_Gaussian: Any = require("rsl_rl.modules.distribution", "train", _NAME).GaussianDistribution

logger = logging.getLogger(__name__)

_LOWEST_LEARNING_RATE, _HIGHEST_LEARNING_RATE = 1e-5, 1e-2
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


class PPO(_RslRlPpo):
    """RSL-RL's PPO, computed with few torch calls where the networks allow it.

    Use it by ``RslRlPpoAlgorithmCfg(class_name="mjlab_rec.rl.ppo:PPO")``. From the same rollout and
    random numbers its losses and parameters are those of RSL-RL's PPO within float32 tolerance, and
    checkpoints of either continue with the other.

    Actor and critic must be MLPs with the activation elu, relu or tanh, and the actor's
    distribution a GaussianDistribution. ``fallback_reason`` says why RSL-RL's own code runs
    instead, for example for recurrent networks and images; it is None if this one does.
    """

    def __init__(self, actor: Any, critic: Any, storage: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(actor, critic, storage, *args, **kwargs)
        self._batch_size = (
            storage.num_envs * storage.num_transitions_per_env // self.num_mini_batches
        )
        self._update_threads = torch.get_num_threads()
        if str(self.device) == "cpu":
            networks = (*self.actor.parameters(), *self.critic.parameters())
            parameters = sum(parameter.numel() for parameter in networks)
            self._update_threads = choose_threads(parameters * self._batch_size).update
        self._use(self._find_fallback_reason())

    def compile(self, mode: str | None = None) -> None:
        """Compile actor and critic with ``torch.compile``; RSL-RL's own code then runs them."""
        super().compile(mode)
        if mode is not None and self.fallback_reason is None:
            self._use("torch_compile_mode is set")

    def act(self, obs: Any) -> torch.Tensor:
        """Sample actions, and store what an update needs of this step."""
        if self.fallback_reason is not None:
            return super().act(obs)
        storage = self.storage
        step = storage.step
        if step >= storage.num_transitions_per_env:
            raise OverflowError(f"The rollout has {step} steps already. Call update() first.")
        if step == 0:
            self._std = self._actor_loss.std()
        for name, rows in storage.observations.items():
            rows[step].copy_(obs[name])
        with torch.no_grad(), fast_float32(self._rollout_multiplications):
            mean = self._actor_network.infer(obs, out=self._means[step])
            self._critic_network.infer(obs, out=storage.values[step])
        action = storage.actions[step]
        action.normal_().mul_(self._std).add_(mean)
        # The row is overwritten in the next rollout, and others may keep the action.
        return action.clone()

    def process_env_step(
        self, obs: Any, rewards: torch.Tensor, dones: torch.Tensor, extras: dict[str, Any]
    ) -> None:
        """Store the results of a step."""
        if self.fallback_reason is not None:
            super().process_env_step(obs, rewards, dones, extras)
            return
        storage = self.storage
        step = storage.step
        storage.rewards[step, :, 0].copy_(rewards)
        storage.dones[step, :, 0].copy_(dones)
        if "time_outs" in extras:
            self._time_outs[step, :, 0].copy_(extras["time_outs"])
        else:
            self._time_outs[step].zero_()
        storage.step += 1

    def compute_returns(self, obs: Any) -> None:
        """Compute returns and advantages of the rollout, whose last observations these are."""
        if self.fallback_reason is not None:
            super().compute_returns(obs)
            return
        storage, values = self.storage, self.storage.values
        with torch.no_grad(), fast_float32(self._rollout_multiplications):
            last_values = self._critic_network.infer(obs, out=self._last_values)
        # Where time ran out, the return goes on with the value of the observation before the step.
        storage.rewards.addcmul_(values, self._time_outs, value=self.gamma)
        discount = (1.0 - storage.dones.float()).mul_(self.gamma)
        advantages = storage.rewards - values
        advantages[:-1].addcmul_(discount[:-1], values[1:])
        advantages[-1].addcmul_(discount[-1], last_values)
        discount.mul_(self.lam)
        rows, factors = advantages.unbind(), discount.unbind()
        for step in range(len(rows) - 2, -1, -1):
            rows[step].addcmul_(factors[step], rows[step + 1])
        torch.add(advantages, values, out=storage.returns)
        if not self.normalize_advantage_per_mini_batch:
            advantages.sub_(advantages.mean()).div_(advantages.std() + 1e-8)
        storage.advantages.copy_(advantages)

    def update(self) -> dict[str, float]:
        """Run the epochs of an update, and return the mean losses.

        Then the rollout's observations are included in the normalizers: means and values of the
        next rollout and its update come from the same ones.
        """
        with torch_threads(self._update_threads):
            if self.fallback_reason is not None:
                return super().update()
            with torch.no_grad(), fast_float32(self._update_multiplications):
                self._shuffle()
                totals = torch.zeros(3, device=self.device)
                for _ in range(self.num_learning_epochs):
                    for batch in range(self.num_mini_batches):
                        totals += self._update_batch(batch)
                obs = self.storage.observations.flatten(0, 1)
                for model in (self.actor, self.critic):
                    model.update_normalization(obs)
        self.storage.clear()
        # The only value of an update that the host waits for, but for the KL divergences.
        means = totals.div_(self.num_learning_epochs * self.num_mini_batches).tolist()
        return dict(zip(("value", "surrogate", "entropy"), means, strict=True))

    def load(self, loaded_dict: dict[str, Any], load_cfg: Any, strict: bool) -> bool:
        """Load what ``load_cfg`` names of a checkpoint, by default everything."""
        state = loaded_dict.get("optimizer_state_dict")
        if state is not None and self.fallback_reason is None and type(self.optimizer) in _FUSED:
            groups = [group | {"fused": True} for group in state["param_groups"]]
            loaded_dict = loaded_dict | {"optimizer_state_dict": state | {"param_groups": groups}}
        return super().load(loaded_dict, load_cfg, strict)

    def _find_fallback_reason(self) -> str | None:
        """Why this code cannot compute the networks; None if it can."""
        if self.rnd is not None:
            return "random network distillation is on"
        if self.symmetry is not None:
            return "symmetry augmentation is on"
        if self.use_mixed_precision:
            return "use_mixed_precision is set"
        for name, model in (("actor", self.actor), ("critic", self.critic)):
            if type(model) is not _MlpModel:
                return f"the {name} is {type(model).__name__}, not MLPModel"
            if name == "critic" and model.distribution is not None:
                return "the critic has a distribution"
            if name == "actor" and type(model.distribution) is not _Gaussian:
                return f"the actor's distribution is {type(model.distribution).__name__}"
            layers = list(model.mlp)
            if len(layers) % 2 == 0 or any(type(layer) is not nn.Linear for layer in layers[::2]):
                return f"the {name}'s MLP is not a chain of linear layers and activations"
            for layer in layers[1::2]:
                if type(layer) not in ACTIVATIONS:
                    return f"the {name}'s activation is {type(layer).__name__}"
        return None

    def _use(self, fallback_reason: str | None) -> None:
        """Prepare the buffers of this code, or say that RSL-RL's own code is used."""
        self.fallback_reason: str | None = fallback_reason
        if fallback_reason is not None:
            logger.info("PPO runs RSL-RL's own code, because %s.", fallback_reason)
            return
        storage = self.storage
        envs, batches, batch_size = storage.num_envs, self.num_mini_batches, self._batch_size
        self._actor_network = Network(self.actor, envs, batch_size, batches)
        self._critic_network = Network(self.critic, envs, batch_size, batches)
        networks = (self._actor_network, self._critic_network)
        self._rollout_multiplications = max(net.rollout_multiplications for net in networks)
        self._update_multiplications = max(net.update_multiplications for net in networks)
        self._actor_loss = ActorLoss(
            self.actor.distribution, batch_size, batches, self.clip_param, self.entropy_coef
        )
        clip = self.clip_param if self.use_clipped_value_loss else None
        self._critic_loss = CriticLoss(batch_size, batches, clip, self.value_loss_coef, self.device)
        self._means = torch.zeros_like(storage.actions)
        self._time_outs = torch.zeros_like(storage.rewards)
        self._last_values = torch.zeros_like(storage.values[0])
        self._std = self._actor_loss.std()
        if type(self.optimizer) in _FUSED:
            # All parameters in one call.
            groups = self.optimizer.param_groups
            parameters = [parameter for group in groups for parameter in group["params"]]
            self.optimizer = type(self.optimizer)(parameters, lr=groups[0]["lr"], fused=True)

    def _shuffle(self) -> None:
        """Divide the rollout into mini-batches; all epochs of an update use the same."""
        storage = self.storage
        order = torch.randperm(self._batch_size * self.num_mini_batches, device=self.device)
        for network in (self._actor_network, self._critic_network):
            network.shuffle(storage.observations, order)
        self._actor_loss.shuffle(
            storage.actions.flatten(0, 1),
            self._means.flatten(0, 1),
            storage.advantages.flatten(),
            order,
            self.normalize_advantage_per_mini_batch,
        )
        self._critic_loss.shuffle(
            storage.returns.flatten(0, 1), storage.values.flatten(0, 1), order
        )

    def _update_batch(self, batch: int) -> torch.Tensor:
        """Take an optimizer step; return value loss, surrogate loss and entropy, (3,)."""
        mean = self._actor_network.forward(batch)
        if self.desired_kl is not None and self.schedule == "adaptive":
            self._adapt_learning_rate(self._actor_loss.kl(batch, mean))
        gradient, surrogate_loss, entropy = self._actor_loss.backward(batch, mean)
        self._actor_network.backward(gradient)

        values = self._critic_network.forward(batch)
        gradient, value_loss = self._critic_loss.backward(batch, values)
        self._critic_network.backward(gradient)

        if self.is_multi_gpu:
            self.reduce_parameters()
        self._actor_network.clip_gradient(self.max_grad_norm)
        self._critic_network.clip_gradient(self.max_grad_norm)
        self.actor.distribution.update(mean)  # Logs read its standard deviation.
        self.optimizer.step()
        return torch.stack((value_loss, surrogate_loss, entropy))

    def _adapt_learning_rate(self, kl: torch.Tensor) -> None:
        """Follow the desired KL divergence; all processes see the same mean, and do the same."""
        if self.is_multi_gpu:
            torch.distributed.all_reduce(kl)
            kl = kl / self.gpu_world_size
        divergence = float(kl)
        if divergence > self.desired_kl * 2.0:
            self.learning_rate = max(_LOWEST_LEARNING_RATE, self.learning_rate / 1.5)
        # Before the first step of an update it may be 0 but for rounding, which says nothing.
        elif torch.finfo(kl.dtype).eps < divergence < self.desired_kl / 2.0:
            self.learning_rate = min(_HIGHEST_LEARNING_RATE, self.learning_rate * 1.5)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
