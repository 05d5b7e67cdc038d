"""PPO for Gymnasium's tasks, sized for 64 environments on a CPU."""

from __future__ import annotations

from mjlab_rec.rl import RslRlModelCfg, RslRlOnPolicyRunnerCfg, RslRlPpoAlgorithmCfg


def hopper_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For hopper."""
    return _rl_cfg(hidden_dims=(128, 128), max_iterations=1500)


def half_cheetah_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For half_cheetah."""
    return _rl_cfg(hidden_dims=(128, 128), max_iterations=3000)


def ant_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For ant."""
    return _rl_cfg(hidden_dims=(128, 128), max_iterations=3000)


def _rl_cfg(hidden_dims: tuple[int, ...], max_iterations: int) -> RslRlOnPolicyRunnerCfg:
    return RslRlOnPolicyRunnerCfg(
        actor=RslRlModelCfg(
            hidden_dims=hidden_dims,
            activation="relu",
            obs_normalization=True,
            distribution_cfg={
                "class_name": "GaussianDistribution",
                "init_std": 0.5,
                "std_type": "scalar",
            },
        ),
        critic=RslRlModelCfg(hidden_dims=hidden_dims, activation="relu", obs_normalization=True),
        algorithm=RslRlPpoAlgorithmCfg(
            class_name="mjlab_rec.rl.ppo:PPO",
            num_learning_epochs=8,
            num_mini_batches=8,
            entropy_coef=0.0,
            desired_kl=0.015,
            # Returns are in the hundreds, and a clipped value may change by 0.2 per update only.
            use_clipped_value_loss=False,
        ),
        num_steps_per_env=64,
        max_iterations=max_iterations,
        clip_actions=1.0,  # The range of the motors.
    )
