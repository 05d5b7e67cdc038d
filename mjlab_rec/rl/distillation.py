"""The training loop of distillation, which is that of PPO once there is a teacher."""

from __future__ import annotations

from mjlab_rec.rl.runner import MjlabOnPolicyRunner


class MjlabDistillationRunner(MjlabOnPolicyRunner):
    """Trains a student to act like a teacher. Load the teacher's checkpoint before ``learn``."""

    def learn(self, num_learning_iterations: int, init_at_random_ep_len: bool = False) -> None:
        """Train, as MjlabOnPolicyRunner does."""
        if not self.alg.teacher_loaded:
            raise ValueError(
                "Distillation needs a teacher. Load the checkpoint of one first, with load(), or"
                " set teacher_checkpoint in the cfg (--agent.teacher-checkpoint)."
            )
        super().learn(num_learning_iterations, init_at_random_ep_len)
