"""Configuration of training with RSL-RL: networks, PPO, and the run. It does not need RSL-RL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# Without a value, RSL-RL must not see these fields of RslRlModelCfg at all.
_OPTIONAL = ("cnn_cfg", "distribution_cfg")
_RECURRENT = ("rnn_type", "rnn_hidden_dim", "rnn_num_layers")


@dataclass
class RslRlModelCfg:
    """A network: the actor or the critic."""

    hidden_dims: tuple[int, ...] = (128, 128, 128)
    """Widths of the hidden layers."""

    activation: str = "elu"
    """Activation after each hidden layer."""

    obs_normalization: bool = False
    """Scale observations by their running mean and standard deviation."""

    cnn_cfg: dict[str, Any] | None = None
    """Arguments of RSL-RL's CNN for image observations, such as output_channels, kernel_size and
    stride; then `class_name` is "CNNModel"."""

    distribution_cfg: dict[str, Any] | None = None
    """Distribution of the actions, such as {"class_name": "GaussianDistribution", "init_std": 1.0,
    "std_type": "scalar"}. None: the output itself, as for a critic."""

    rnn_type: str | None = None
    """"lstm" or "gru"; then `class_name` is "RNNModel"."""

    rnn_hidden_dim: int = 256
    """Width of the recurrent state."""

    rnn_num_layers: int = 1
    """Number of recurrent layers."""

    class_name: str = "MLPModel"
    """RSL-RL's class of the network, or your own as "package.module:Class"."""


def without_unused(model: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a RslRlModelCfg that RSL-RL's class of network takes."""
    unused = {name for name in _OPTIONAL if model.get(name) is None}
    if model.get("rnn_type") is None:
        unused.update(_RECURRENT)
    return {name: value for name, value in model.items() if name not in unused}


@dataclass
class RslRlPpoAlgorithmCfg:
    """The PPO algorithm."""

    num_learning_epochs: int = 5
    """Passes over the collected steps in each update."""

    num_mini_batches: int = 4
    """Batches that each pass is divided into."""

    learning_rate: float = 1e-3
    """Learning rate, or its first value with an adaptive schedule."""

    schedule: Literal["adaptive", "fixed"] = "adaptive"
    """Whether the learning rate follows `desired_kl`."""

    gamma: float = 0.99
    """Discount per step."""

    lam: float = 0.95
    """Lambda of generalized advantage estimation."""

    entropy_coef: float = 0.005
    """Weight of the entropy bonus."""

    desired_kl: float = 0.01
    """KL divergence per update that the adaptive learning rate aims at."""

    max_grad_norm: float = 1.0
    """Greatest norm of the gradient."""

    value_loss_coef: float = 1.0
    """Weight of the critic's loss."""

    use_clipped_value_loss: bool = True
    """Clip the critic's change per update, too."""

    clip_param: float = 0.2
    """Greatest change of the action probabilities per update."""

    normalize_advantage_per_mini_batch: bool = False
    """Normalize advantages within each mini-batch instead of over all collected steps."""

    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    """The optimizer."""

    share_cnn_encoders: bool = False
    """Let actor and critic share their image encoders."""

    class_name: str = "PPO"
    """RSL-RL's class of the algorithm, or your own as "package.module:Class"."""


@dataclass
class RslRlBaseRunnerCfg:
    """A training run, whatever the algorithm."""

    seed: int = 42
    """Seed of the run."""

    num_steps_per_env: int = 24
    """Steps of each environment between updates."""

    max_iterations: int = 300
    """Number of updates."""

    obs_groups: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {"actor": ("actor",), "critic": ("critic",)}
    )
    """The groups of observations that each network sees."""

    save_interval: int = 50
    """Updates between checkpoints."""

    experiment_name: str = ""
    """Folder of the experiment's runs. Empty: the id of the task."""

    run_name: str = ""
    """Appended to the name of the run's folder."""

    logger: Literal["wandb", "tensorboard"] = "tensorboard"
    """Where curves go: files for TensorBoard, or also Weights & Biases."""

    wandb_project: str = "mjlab"
    """Project on Weights & Biases."""

    wandb_tags: tuple[str, ...] = ()
    """Tags on Weights & Biases."""

    resume: bool = False
    """mjlab's, and refused by ``train``, where ``--resume RUN`` continues an earlier run."""

    load_run: str = ".*"
    """mjlab's, for ``get_checkpoint_path``; refused by ``train`` as ``resume`` is."""

    load_checkpoint: str = "model_.*.pt"
    """mjlab's, for ``get_checkpoint_path``; refused by ``train`` as ``resume`` is."""

    clip_actions: float | None = None
    """Greatest action in either direction; None does not clip."""

    upload_model: bool = True
    """Send checkpoints to Weights & Biases."""


@dataclass
class RslRlOnPolicyRunnerCfg(RslRlBaseRunnerCfg):
    """A training run with PPO."""

    class_name: str = "OnPolicyRunner"
    """RSL-RL's class of the runner."""

    actor: RslRlModelCfg = field(
        default_factory=lambda: RslRlModelCfg(
            distribution_cfg={
                "class_name": "GaussianDistribution",
                "init_std": 1.0,
                "std_type": "scalar",
            }
        )
    )
    """The network that acts."""

    critic: RslRlModelCfg = field(default_factory=RslRlModelCfg)
    """The network that estimates returns."""

    algorithm: RslRlPpoAlgorithmCfg = field(default_factory=RslRlPpoAlgorithmCfg)
    """How both learn."""


def default_runner_cfg(observations: Mapping[str, Any]) -> RslRlOnPolicyRunnerCfg:
    """PPO with its defaults, for a task that has no cfg of a learner.

    Args:
        observations: The observation groups of the environment's cfg.
    """
    groups = [name for name, group in observations.items() if group is not None]
    if not groups:
        raise ValueError("there are no observations, so nothing can be learned.")
    actor = "actor" if "actor" in groups else groups[0]
    critic = "critic" if "critic" in groups else actor
    return RslRlOnPolicyRunnerCfg(obs_groups={"actor": (actor,), "critic": (critic,)})


@dataclass
class RslRlDistillationAlgorithmCfg:
    """Distillation: a student learns to act like a teacher, from its own observations."""

    num_learning_epochs: int = 1
    """Passes over the collected steps in each update."""

    learning_rate: float = 1e-3
    """Learning rate."""

    gradient_length: int = 12
    """Steps that a gradient is summed over, and goes back through a recurrent student. Steps of an
    update that are left over, after division by it, are not learned from."""

    max_grad_norm: float | None = None
    """Greatest norm of the gradient; None does not limit it."""

    loss_type: Literal["mse", "huber"] = "mse"
    """How the difference between student and teacher counts."""

    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    """The optimizer."""

    class_name: str = "Distillation"
    """RSL-RL's class of the algorithm, or your own as "package.module:Class"."""


@dataclass
class RslRlDistillationRunnerCfg(RslRlBaseRunnerCfg):
    """A training run that distills a teacher, which PPO has trained, into a student."""

    obs_groups: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {"student": ("actor",), "teacher": ("critic",)}
    )
    """The groups of observations that student and teacher see."""

    class_name: str = "DistillationRunner"
    """RSL-RL's class of the runner."""

    student: RslRlModelCfg = field(
        default_factory=lambda: RslRlModelCfg(
            distribution_cfg={
                "class_name": "GaussianDistribution",
                "init_std": 0.1,
                "std_type": "scalar",
            }
        )
    )
    """The network that learns."""

    teacher: RslRlModelCfg = field(
        default_factory=lambda: RslRlModelCfg(
            distribution_cfg={
                "class_name": "GaussianDistribution",
                "init_std": 1.0,
                "std_type": "scalar",
            }
        )
    )
    """The network that it learns from: the actor of the run in `teacher_checkpoint`."""

    teacher_checkpoint: str = ""
    """The teacher: a checkpoint or the folder of a run."""

    algorithm: RslRlDistillationAlgorithmCfg = field(default_factory=RslRlDistillationAlgorithmCfg)
    """How the student learns."""
