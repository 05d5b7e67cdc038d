"""Import files in the layout of robomimic and Isaac Lab."""

from __future__ import annotations

from pathlib import Path

from mjlab_rec.data.export import record as records
from mjlab_rec.data.export.robomimic import RECORD
from mjlab_rec.data.formats.robomimic_layout import INITIAL
from mjlab_rec.data.importing.base import Foreign, Opened
from mjlab_rec.data.importing.hdf5_groups import EpisodeGroups
from mjlab_rec.data.importing.recorded import Recorded, usable
from mjlab_rec.data.rollouts import open_rollouts


def open_robomimic(path: Path, step_dt: float, use_record: bool) -> Foreign:
    """Open a file in this layout."""
    notes: list[str] = []
    groups = EpisodeGroups(path, "demo_", "data")
    try:
        content = groups.whole(RECORD) if use_record else None
        if content is not None:
            record = usable(records.load(content.tobytes(), f"'{path}'"), groups, notes)
            if record is not None:
                return Recorded(groups, record, "model_fields")
        initial = bool(groups.names) and groups.has(groups.names[0], INITIAL)
    except BaseException:
        groups.close()
        raise
    groups.close()
    found = Opened(open_rollouts(path))
    if step_dt and not found.info.step_dt:
        found.info.step_dt = step_dt
    found.notes += notes
    if initial and not any(spec.name.startswith("state/") for spec in found.info.channels):
        found.notes.append(f"Left out: {INITIAL}, because there are no states after it.")
    return found
