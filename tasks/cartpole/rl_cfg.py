"""PPO for cartpole, sized for 64 environments."""

from __future__ import annotations

from mjlab_rec.rl import RslRlModelCfg, RslRlOnPolicyRunnerCfg, RslRlPpoAlgorithmCfg


def balance_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For a pole that starts upright: half a million steps of all environments."""
    return _rl_cfg(max_iterations=125)


def swingup_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For a pole that must be swung up first: a million steps of all environments."""
    return _rl_cfg(max_iterations=250)


def _rl_cfg(max_iterations: int) -> RslRlOnPolicyRunnerCfg:
    hidden_dims = (64, 64)
    return RslRlOnPolicyRunnerCfg(
        actor=RslRlModelCfg(
            hidden_dims=hidden_dims,
            activation="relu",
            obs_normalization=True,
            distribution_cfg={
                "class_name": "GaussianDistribution",
                "init_std": 1.0,
                "std_type": "scalar",
            },
        ),
        critic=RslRlModelCfg(hidden_dims=hidden_dims, activation="relu", obs_normalization=True),
        algorithm=RslRlPpoAlgorithmCfg(
            class_name="mjlab_rec.rl.ppo:PPO",
            # Without it some seeds stop exploring with the cart far from the centre.
            entropy_coef=0.01,
            # Returns are up to 5, and a clipped value may change by 0.2 per update only.
            use_clipped_value_loss=False,
        ),
        num_steps_per_env=64,
        max_iterations=max_iterations,
        # Beyond this, more effort is not more force.
        clip_actions=1.0,
    )
