"""The runner of the task in train_tasks.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mjlab_rec.rl import MjlabOnPolicyRunner


class WeighingRunner(MjlabOnPolicyRunner):
    """Writes sums of the weights at the end, in each process."""

    def learn(self, *args: Any, **kwargs: Any) -> None:
        """Train, and write the sums."""
        super().learn(*args, **kwargs)
        weights = [value.double().sum().item() for value in self.alg.actor.state_dict().values()]
        path = Path(self.logger.log_dir) / f"weights_{self.gpu_global_rank}.txt"
        path.write_text(str(weights))
