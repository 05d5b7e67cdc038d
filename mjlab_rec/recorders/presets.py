"""Recorders by name: presets in TOML files, whose fields can be overridden."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from mjlab_rec.data.formats import formats
from mjlab_rec.managers.recorder_manager import RecorderTerm, RecorderTermCfg
from mjlab_rec.recorders.triggers import Trigger, trigger_from
from mjlab_rec.utils.cfg_paths import field_types
from mjlab_rec.utils.lookup import look_up
from mjlab_rec.utils.plain_data import build, fit_words
from mjlab_rec.utils.string import nearest


def _presets() -> Path:
    """The folder of presets: inside an installed package, or next to it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "configs" / "recorders"
    return installed if installed.is_dir() else package.parent / "configs" / "recorders"


PRESETS = _presets()
"""Folder of the project's presets."""

# A recorder's name in presets: where its cfg is, and the suffix of its path; None: it has none.
KINDS: dict[str, tuple[str, str | None]] = {
    "csv": ("mjlab_rec.recorders:CsvRecorderCfg", ".csv"),
    "hdf5": ("mjlab_rec.recorders:Hdf5RecorderCfg", ".h5"),
    "npz": ("mjlab_rec.recorders:NpzRecorderCfg", ""),
    "parquet": ("mjlab_rec.recorders:ParquetRecorderCfg", ""),
    "memory": ("mjlab_rec.recorders:MemoryRecorderCfg", None),
    "episode_log": ("mjlab_rec.recorders:EpisodeLogRecorderCfg", ".jsonl"),
    "video": ("mjlab_rec.recorders.video:VideoRecorderCfg", ""),
    "rerun": ("mjlab_rec.recorders.rerun:RerunRecorderCfg", ".rrd"),
    "live_plot": ("mjlab_rec.recorders.live_plot:LivePlotRecorderCfg", None),
    "flight": ("mjlab_rec.recorders.flight:FlightRecorderCfg", ""),
}

_ANY_FORMAT = "mjlab_rec.recorders:RolloutRecorderCfg"

_MAKERS = {Trigger: trigger_from}


class Preset:
    """A recorder and the fields set so far.

    Args:
        source: Name of a preset in configs/recorders, path of a TOML file, name of a recorder or
            file format, or "package.module:Class" for your own recorder or cfg.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = str(source)
        self.fields: dict[str, Any] = _read(self.source)
        """Fields set so far."""
        recorder = self.fields.pop("recorder")
        target, self._suffix = _kinds().get(recorder, (recorder, None))
        if target == _ANY_FORMAT:
            self.fields.setdefault("format", recorder)
        if ":" not in target:
            raise ValueError(
                f"Unknown recorder {target!r}. {nearest(target, list(_kinds()))} Write your own as"
                " 'package.module:Class'."
            )
        self.cfg_class, self._func = _classes(target)

    @property
    def name(self) -> str:
        """A short name: that of the file or class."""
        return Path(self.source.rpartition(":")[2]).stem

    def set(self, field: str, words: Sequence[str]) -> None:
        """Set a field from command-line words; ``params.x`` sets an entry of params."""
        name, _, entry = field.replace("-", "_").partition(".")
        hints = self._hints()
        if name not in hints or (entry and name != "params"):
            raise ValueError(
                f"The recorder {self.name!r} has no field {field!r}. {nearest(field, list(hints))}"
            )
        if not words:
            raise ValueError("a value is missing.")
        if entry:
            self.fields[name] = {**self.fields.get(name, {}), entry: fit_words(words, Any)}
        else:
            self.fields[name] = fit_words(words, hints[name], _MAKERS)

    def build(self, folder: str | Path | None = None) -> RecorderTermCfg:
        """Check the fields and create the cfg.

        Args:
            folder: Where to write if no path is set: to the next free file or folder with the
                preset's name.
        """
        table = dict(self.fields)
        if folder is not None and self._suffix is not None and "path" not in table:
            table["path"] = str(Path(folder) / f"{self.name}{self._suffix}")
            if "if_exists" in self._hints():
                table.setdefault("if_exists", "number")
        for key in table:
            if key not in self._hints():
                raise ValueError(
                    f"Recorder preset {self.source!r}: there is no field {key!r}."
                    f" {nearest(key, list(self._hints()))}"
                )
        if self._func is not None:
            table["func"] = self._func
        try:
            return build(self.cfg_class, table, _MAKERS)
        except ValueError as error:
            raise ValueError(f"Recorder preset {self.source!r}: {error}") from None

    def _hints(self) -> dict[str, Any]:
        """Fields that can be set, with their declared types."""
        hints = field_types(self.cfg_class)
        del hints["func"]
        return hints


def load_preset(source: str | Path, **fields: Any) -> RecorderTermCfg:
    """Create a recorder's cfg from a preset, overriding some fields.

    ``cfg.recorders["rollout"] = load_preset("hdf5", path="run.h5")``. See `Preset` for the source.
    """
    preset = Preset(source)
    preset.fields.update(fields)
    return preset.build()


def preset_names() -> list[str]:
    """Names that ``load_preset`` accepts."""
    return sorted({*_kinds(), *(path.stem for path in PRESETS.glob("*.toml"))})


def _kinds() -> dict[str, tuple[str, str | None]]:
    """KINDS, and a rollout recorder for each file format that is not listed there."""
    others = {f.name: (_ANY_FORMAT, (*f.suffixes, "")[0]) for f in formats()}
    return others | KINDS


def _read(source: str) -> dict[str, Any]:
    """Read the table of a preset; it names at least the recorder."""
    path = Path(source) if source.endswith(".toml") else PRESETS / f"{source}.toml"
    if not path.is_file():
        if source in _kinds() or ":" in source:
            return {"recorder": source}
        if source.endswith(".toml"):
            raise ValueError(
                f"There is no file '{path.absolute()}'. The package's presets have names without"
                f" .toml: {', '.join(preset_names())}."
            )
        raise ValueError(
            f"Unknown recorder preset {source!r}. {nearest(path.stem, preset_names())} Or give the"
            " path of a TOML file, or 'package.module:Class' for your own recorder."
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"The preset {str(path)!r} is not valid TOML: {error}.") from None
    if not isinstance(table.get("recorder"), str):
        raise ValueError(
            f"The preset {str(path)!r} names no recorder. Begin it with a line such as"
            f' recorder = "hdf5". Known recorders: {", ".join(_kinds())}.'
        )
    return table


def _classes(target: str) -> tuple[type[RecorderTermCfg], type[RecorderTerm] | None]:
    """The cfg class for a target; for a recorder, the base cfg class and the recorder."""
    found = look_up(target)
    if isinstance(found, type) and issubclass(found, RecorderTerm):
        return RecorderTermCfg, found
    if isinstance(found, type) and is_dataclass(found) and issubclass(found, RecorderTermCfg):
        return found, None
    raise ValueError(
        f"{target!r} must be a subclass of RecorderTerm or a dataclass that inherits from"
        " RecorderTermCfg."
    )
