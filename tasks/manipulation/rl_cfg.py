"""How PPO learns the manipulation tasks."""

from __future__ import annotations

from mjlab_rec.rl import RslRlModelCfg, RslRlOnPolicyRunnerCfg, RslRlPpoAlgorithmCfg

_CNN = {
    "output_channels": [16, 32],
    "kernel_size": [5, 3],
    "stride": [2, 2],
    "padding": "zeros",
    "activation": "elu",
    "max_pool": False,
    "spatial_softmax_temperature": 1.0,
}


def lift_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """PPO for lifting by state."""
    return _rl_cfg(max_iterations=600)


def lift_depth_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """PPO for lifting by depth pictures."""
    return _with_cnn(_rl_cfg(max_iterations=3000))


def lift_rgb_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """PPO for lifting by colour pictures."""
    return _with_cnn(_rl_cfg(max_iterations=3000))


def reach_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """PPO for reaching."""
    return _rl_cfg(max_iterations=300)


def _rl_cfg(max_iterations: int) -> RslRlOnPolicyRunnerCfg:
    return RslRlOnPolicyRunnerCfg(
        actor=RslRlModelCfg(
            hidden_dims=(128, 128, 64),
            activation="elu",
            obs_normalization=True,
            distribution_cfg={
                "class_name": "GaussianDistribution",
                "init_std": 0.6,
                "std_type": "log",
            },
        ),
        critic=RslRlModelCfg(hidden_dims=(128, 128, 64), activation="elu", obs_normalization=True),
        algorithm=RslRlPpoAlgorithmCfg(
            class_name="mjlab_rec.rl.ppo:PPO",
            num_learning_epochs=5,
            num_mini_batches=4,
            learning_rate=1e-3,
            gamma=0.95,
            lam=0.95,
            entropy_coef=0.002,
        ),
        clip_actions=1.0,
        num_steps_per_env=32,
        max_iterations=max_iterations,
    )


def _with_cnn(cfg: RslRlOnPolicyRunnerCfg) -> RslRlOnPolicyRunnerCfg:
    """Let the actor see the wrist camera through a CNN; the critic knows where the cube is."""
    cfg.actor.cnn_cfg = dict(_CNN)
    cfg.actor.class_name = "mjlab_rec.rl.spatial_softmax:SpatialSoftmaxCNNModel"
    cfg.obs_groups = {"actor": ("actor", "camera"), "critic": ("critic",)}
    return cfg
