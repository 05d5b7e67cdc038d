"""Cartpole: balance a pole on a cart, or swing it up first, by pushing the cart."""

from mjlab_rec.registry import register_task

register_task(
    "cartpole-balance",
    env_cfg="tasks.cartpole.env_cfg:balance_env_cfg",
    rl_cfg="tasks.cartpole.rl_cfg:balance_rl_cfg",
    train_num_envs=64,
)
register_task(
    "cartpole-swingup",
    env_cfg="tasks.cartpole.env_cfg:swingup_env_cfg",
    rl_cfg="tasks.cartpole.rl_cfg:swingup_rl_cfg",
    train_num_envs=64,
)
