"""Pictures of camera sensors on the web page."""

from __future__ import annotations

from typing import Any

import numpy as np

from mjlab_rec.sensor import CameraSensor
from mjlab_rec.viewer.frame import Frame, FrameReader

_OFF = "off"
_SMALL = 256  # Pixels of the wider side up to which pictures are enlarged.
_HASHES = np.array([73, 151, 211])  # Neighbouring numbers get different colours.


class WebCameras:
    """A picture that a camera sensor takes, in a folder that the user opens.

    A picture is drawn only while it is shown, unless the environment itself reads the sensor.
    """

    def __init__(self, gui: Any, env: Any, reader: FrameReader) -> None:
        self._gui, self._reader = gui, reader
        self._image: Any = None
        self._folder: Any = None
        self._choices: dict[str, tuple[str, str]] = {
            f"{name} {kind}": (name, kind)
            for name, sensor in env.scene.sensors.items()
            if isinstance(sensor, CameraSensor)
            for kind in sensor.cfg.data_types
        }
        if not self._choices:
            return
        self._folder = gui.add_folder("Cameras", expand_by_default=False)
        with self._folder:
            self._chooser = gui.add_dropdown("Picture", [_OFF, *self._choices], initial_value=_OFF)
        self._chooser.on_update(lambda _: self._choose(self._chooser.value))

    def draw(self, frame: Frame) -> None:
        """Show the picture. Called by one thread."""
        if self._folder is None:
            return
        if frame.picture is None:
            if self._image is not None:
                self._image.remove()
                self._image = None
            return
        kind, picture = frame.picture
        image = enlarged(in_colours(kind, picture))
        if self._image is not None:
            self._image.image = image
            return
        with self._folder:
            self._image = self._gui.add_image(image, format="png")

    def close(self) -> None:
        """Take it off the page."""
        if self._folder is not None:
            self._folder.remove()

    def _choose(self, choice: str) -> None:
        self._reader.camera = self._choices.get(choice)


def in_colours(kind: str, picture: np.ndarray) -> np.ndarray:
    """Return a picture (height, width, channels) as colours: uint8 (height, width, 3).

    Depth is the lighter the nearer, and black where there is nothing. Each object of a segmentation
    gets a colour.
    """
    if kind == "rgb":
        return picture
    if kind == "depth":
        depth = picture[..., 0]
        seen = depth > 0.0
        grey = np.zeros(depth.shape, dtype=np.uint8)
        if seen.any():
            nearest, span = depth[seen].min(), max(float(np.ptp(depth[seen])), 1e-6)
            grey[seen] = 255 - 215 * ((depth[seen] - nearest) / span)
        return np.repeat(grey[..., None], 3, axis=-1)
    numbers = picture[..., :1].astype(np.int64) * 8 + picture[..., 1:]
    return np.where(picture[..., :1] < 0, 0, numbers * _HASHES % 206 + 50).astype(np.uint8)


def enlarged(image: np.ndarray) -> np.ndarray:
    """Repeat the pixels of a small image so that they can be seen."""
    times = max(1, _SMALL // max(image.shape[:2]))
    return image.repeat(times, axis=0).repeat(times, axis=1)
