"""Pictures of a model's cameras in all worlds: what can be asked for, and who draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch

CameraDataType = Literal["rgb", "depth", "segmentation"]


@dataclass(frozen=True, kw_only=True)
class CameraLook:
    """What all cameras of a simulation see."""

    use_textures: bool
    use_shadows: bool
    geom_groups: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CameraView:
    """A camera of the model and the pictures to take with it."""

    camera: int
    """Number of the camera in the model."""
    width: int
    height: int
    data_types: tuple[CameraDataType, ...]


class Cameras(Protocol):
    """Draws cameras from the derived quantities of the moment, such as geom_xpos and cam_xpos."""

    def draw(
        self, view: CameraView, worlds: torch.Tensor | None = None
    ) -> dict[CameraDataType, torch.Tensor]:
        """Draw new pictures of a camera: rgb uint8, depth float32, segmentation int32.

        Args:
            view: The camera and the kinds of pictures.
            worlds: A bool mask (num_envs,) of the worlds whose pictures will be used; None means
                all. The other rows have no meaning.

        Returns:
            A tensor (num_envs, height, width, channels) of each kind, with 3, 1 and 2 channels.
        """
        ...
