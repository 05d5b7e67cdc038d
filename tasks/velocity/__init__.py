"""Velocity: legged robots go as fast, and where, as they are told to, on flat and rough ground."""

from mjlab_rec.registry import register_task

for _ground in ("flat", "rough"):
    for _robot in ("quadruped", "biped"):
        register_task(
            f"velocity-{_ground}-{_robot}",
            env_cfg=f"tasks.velocity.env_cfg:{_ground}_{_robot}_env_cfg",
            play_env_cfg=f"tasks.velocity.env_cfg:{_ground}_{_robot}_play_env_cfg",
            rl_cfg=f"tasks.velocity.rl_cfg:{_ground}_rl_cfg",
            train_num_envs=1024,
        )
