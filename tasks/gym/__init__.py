"""Gymnasium's MuJoCo tasks, version 5, with the same physics, observations and rewards."""

from mjlab_rec.registry import register_task

for _name in (
    "ant",
    "hopper",
    "half_cheetah",
):
    register_task("gym-" + _name.replace("_", "-"), env_cfg=f"tasks.gym.{_name}:{_name}_env_cfg")
