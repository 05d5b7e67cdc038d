"""PPO for cartpole, sized for 64 environments."""

from __future__ import annotations

from mjlab_rec.rl import RslRlModelCfg, RslRlOnPolicyRunnerCfg, RslRlPpoAlgorithmCfg


def balance_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """Half a million steps of the environment, in which the pole stays up."""
    return _rl_cfg(max_iterations=250)


def swingup_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """A million steps of the environment, in which the pole gets up and stays up."""
    return _rl_cfg(max_iterations=500)


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
        algorithm=RslRlPpoAlgorithmCfg(class_name="mjlab_rec.rl.ppo:PPO", entropy_coef=0.0),
        num_steps_per_env=32,
        max_iterations=max_iterations,
        # Beyond this, more effort is not more force.
        clip_actions=1.0,
    )
