"""The compiled model that a recording with physics states has as an attached file."""

from __future__ import annotations

import mujoco

from mjlab_rec.data.schema import DataError, RunInfo

MODEL = "model.mjb"
"""Name of the attached file."""


def attached_model(info: RunInfo, where: str) -> mujoco.MjModel:
    """Read the model of a recording; raises DataError if this MuJoCo cannot.

    Args:
        info: The description of the recording, which must have this attached file.
        where: The recording, for the error.
    """
    try:
        return mujoco.MjModel.from_binary_path(MODEL, {MODEL: info.attachments[MODEL]})
    except ValueError as error:
        recorded = (info.about.get("versions") or {}).get("mujoco")
        if recorded is not None and recorded != mujoco.__version__:
            raise DataError(
                f"{where} holds a model of MuJoCo {recorded}, which MuJoCo {mujoco.__version__}"
                f" cannot read. Use it with pip install mujoco=={recorded}."
            ) from error
        raise DataError(f"{where} is damaged: its model cannot be read ({error}).") from error
