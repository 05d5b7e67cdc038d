"""The model that a recording with physics states has as attached files."""

from __future__ import annotations

import io
import logging
import zipfile
import zlib

import mujoco

from mjlab_rec.data.schema import DataError, RunInfo

logger = logging.getLogger(__name__)

MODEL = "model.mjb"
"""Name of the compiled model, which only the version of MuJoCo reads that wrote it."""
XML = "model.zip"
"""Name of the model as XML with its files, which some recordings also have."""
_MOST_BYTES = 4 << 30  # of the files in it


def attached_model(info: RunInfo, where: str) -> mujoco.MjModel:
    """Read the model of a recording; raises DataError if this MuJoCo cannot.

    Args:
        info: The description of the recording, which must have the compiled model.
        where: The recording, for the error.
    """
    try:
        return mujoco.MjModel.from_binary_path(MODEL, {MODEL: info.attachments[MODEL]})
    except ValueError as error:
        versions = info.about.get("versions")
        recorded = versions.get("mujoco") if isinstance(versions, dict) else None
        if recorded is None or recorded == mujoco.__version__:
            raise DataError(f"{where} is damaged: its model cannot be read ({error}).") from error
        if XML in info.attachments:
            return _compiled(info.attachments[XML], recorded, where)
        raise DataError(
            f"{where} holds a model of MuJoCo {recorded}, which MuJoCo {mujoco.__version__}"
            f" cannot read. Use it with pip install mujoco=={recorded}."
        ) from error


def _compiled(data: bytes, recorded: str, where: str) -> mujoco.MjModel:
    """Compile the XML in a recording of another version of MuJoCo."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
                raise ValueError("it is too large")
            files = {name: archive.read(name) for name in archive.namelist()}
        model = mujoco.MjModel.from_xml_string(files.pop("scene.xml").decode(), files)
    except (ValueError, KeyError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        why = " ".join(str(error).split())
        raise DataError(
            f"{where} holds a model of MuJoCo {recorded}, and its XML cannot be read"
            f" ({why}). Use it with pip install mujoco=={recorded}."
        ) from error
    logger.warning(
        "%s was recorded with MuJoCo %s. Its model was compiled again from XML, whose numbers have"
        " six digits.",
        *(where, recorded),
    )
    return model
