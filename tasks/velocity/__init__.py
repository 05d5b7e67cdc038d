"""Velocity: legged robots go as fast, and where, as they are told to, on flat and rough ground."""

from mjlab_rec.registry import register_task

for _ground in ("flat", "rough"):
    register_task(
        f"velocity-{_ground}-quadruped",
        env_cfg=f"tasks.velocity.env_cfg:{_ground}_quadruped_env_cfg",
        play_env_cfg=f"tasks.velocity.env_cfg:{_ground}_quadruped_play_env_cfg",
        rl_cfg=f"tasks.velocity.rl_cfg:{_ground}_rl_cfg",
    )
