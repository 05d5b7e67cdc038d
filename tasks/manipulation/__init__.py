"""Manipulation: an arm moves its hand to a pose, or lifts a cube, by state or by pictures."""

from mjlab_rec.registry import register_task

for _task, _function, _num_envs in (
    ("reach-arm", "reach", 256),
    ("lift-arm", "lift", 256),
    ("lift-arm-depth", "lift_depth", 64),
    ("lift-arm-rgb", "lift_rgb", 64),
):
    register_task(
        _task,
        env_cfg=f"tasks.manipulation.env_cfg:{_function}_env_cfg",
        rl_cfg=f"tasks.manipulation.rl_cfg:{_function}_rl_cfg",
        train_num_envs=_num_envs,
    )
