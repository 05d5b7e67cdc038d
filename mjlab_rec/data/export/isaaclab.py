"""Export to Isaac Lab's HDF5 layout: as for robomimic, with nested observations and states."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mjlab_rec.data.attached_model import MODEL, attached_model
from mjlab_rec.data.export.hdf5_tree import Values
from mjlab_rec.data.export.isaaclab_states import EntityStates, Quaternion
from mjlab_rec.data.export.robomimic import write_demos
from mjlab_rec.data.export.source import Batch, Source
from mjlab_rec.data.formats.robomimic_layout import INITIAL, LATER, NAMES
from mjlab_rec.data.schema import DataError

_CENTRES = "body_ipos"  # the model field with the centres of mass


def write_isaaclab(
    source: Source, path: Path, *, quaternion: Quaternion = "wxyz", joints: Sequence[str] = ()
) -> None:
    """Write a file for Isaac Lab's tools.

    Args:
        source: What to export.
        path: The file.
        quaternion: Order of the numbers of quaternions: "wxyz" up to Isaac Lab 2, "xyzw" later.
        joints: Names of joints, in the order of Isaac Lab; empty: in that of the model.
    """
    imported = [name for name in source.specs if name.startswith("state/")]
    if imported:
        _write_imported(source, path, imported)
        return
    states = _states(source, quaternion, joints)
    if states is None:
        write_demos(source, path, _place)
        return

    def more(batch: Batch) -> dict[str, Values]:
        values = states(batch.arrays["state"], _centres(batch))
        later = np.ones(batch.rows, bool)
        later[batch.starts] = False
        # A state is also the one after the step before it. That after the last one is not recorded.
        return _initial(values, batch) | {
            f"{LATER}/{name}": Values(items=rows[later], counts=batch.counts - 1)
            for name, rows in values.items()
        }

    about = {"quaternion": quaternion, "joint_names": json.dumps(states.joint_names)}
    write_demos(source, path, _place, more, about, taken=[LATER])


def _write_imported(source: Source, path: Path, names: Sequence[str]) -> None:
    """Write states that were imported from such a file where they were in it."""

    def more(batch: Batch) -> dict[str, Values]:
        return _initial({name.removeprefix("state/"): batch.arrays[name] for name in names}, batch)

    def place(name: str) -> str:
        after = name.removeprefix("next_state/")
        return f"{LATER}/{after}" if after != name else _place(name)

    write_demos(source, path, place, more)


def _place(name: str) -> str:
    # The group of this name is for the states of entities.
    return name if name == "state" else NAMES.get(name, name)


def _initial(values: dict[str, np.ndarray], batch: Batch) -> dict[str, Values]:
    """The values before the first step of each stretch, with an axis of length one."""
    return {
        f"{INITIAL}/{name}": Values(items=rows[batch.starts][:, None])
        for name, rows in values.items()
    }


def _states(source: Source, quaternion: Quaternion, joints: Sequence[str]) -> EntityStates | None:
    """What converts states, if there are states and their model."""
    missing = "Isaac Lab cannot replay the file, because it has no initial_state:"
    if "state" not in source.specs or MODEL not in source.info.attachments:
        source.note(f"{missing} that needs the channel 'state'.")
        return None
    try:
        model = attached_model(source.info, "The recording")
    except DataError as error:
        source.note(f"{missing} {error}")
        return None
    states = EntityStates(model, source.specs["state"].elements, quaternion, joints)
    if states.left_out:
        source.note(
            f"Isaac Lab has no place for ball joints: left out are {', '.join(states.left_out)}."
        )
    return states


def _centres(batch: Batch) -> np.ndarray | None:
    """The centres of mass of bodies in each row, if they differ between episodes."""
    values = batch.model().get(_CENTRES)
    return None if values is None else np.repeat(values, batch.counts, axis=0)
