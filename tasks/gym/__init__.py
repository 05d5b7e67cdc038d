"""Gymnasium's MuJoCo tasks, version 5, with the same physics, observations and rewards."""

from mjlab_rec.registry import register_task

for _name in (
    "ant",
    "half_cheetah",
    "hopper",
    "humanoid",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "swimmer",
    "walker2d",
):
    register_task(
        "gym-" + _name.replace("_", "-"),
        env_cfg=f"tasks.gym.{_name}:{_name}_env_cfg",
        rl_cfg=f"tasks.gym.rl_cfg:{_name}_rl_cfg",
        train_num_envs=64,
    )
