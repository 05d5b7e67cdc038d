"""Checkpoints of older versions of RSL-RL."""

from __future__ import annotations

from typing import Any


def update_format(checkpoint: dict[str, Any]) -> None:
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
