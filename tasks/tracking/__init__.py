"""Tracking: a biped does what a motion shows, such as a squat, a recording or captured motion."""

from mjlab_rec.registry import register_task

register_task(
    "tracking-biped",
    env_cfg="tasks.tracking.env_cfg:tracking_env_cfg",
    play_env_cfg="tasks.tracking.env_cfg:tracking_play_env_cfg",
    rl_cfg="tasks.tracking.rl_cfg:tracking_rl_cfg",
    train_num_envs=256,
)
