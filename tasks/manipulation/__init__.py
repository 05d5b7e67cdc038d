"""Manipulation: an arm moves its hand to a pose, or lifts a cube, by state or by pictures."""

from mjlab_rec.registry import register_task

for _task, _function in (
    ("reach-arm", "reach"),
    ("lift-arm", "lift"),
    ("lift-arm-depth", "lift_depth"),
    ("lift-arm-rgb", "lift_rgb"),
):
    register_task(
        _task,
        env_cfg=f"tasks.manipulation.env_cfg:{_function}_env_cfg",
        rl_cfg=f"tasks.manipulation.rl_cfg:{_function}_rl_cfg",
    )
