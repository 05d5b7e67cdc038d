"""PPO for the tracking task."""

from __future__ import annotations

from mjlab_rec.rl import RslRlModelCfg, RslRlOnPolicyRunnerCfg, RslRlPpoAlgorithmCfg


def tracking_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """Networks for a short motion on a CPU; long ones need larger networks and more iterations."""
    return RslRlOnPolicyRunnerCfg(
        actor=RslRlModelCfg(
            hidden_dims=(256, 128),
            obs_normalization=True,
            distribution_cfg={
                "class_name": "GaussianDistribution",
                "init_std": 0.3,
                "std_type": "scalar",
            },
        ),
        critic=RslRlModelCfg(hidden_dims=(256, 128), obs_normalization=True),
        algorithm=RslRlPpoAlgorithmCfg(class_name="mjlab_rec.rl.ppo:PPO", entropy_coef=0.005),
        num_steps_per_env=24,
        max_iterations=2000,
    )
