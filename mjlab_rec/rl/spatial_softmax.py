"""An image encoder whose features are places in the image: a CNN with a spatial softmax."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mjlab_rec.utils.extras import require

_NAME = "SpatialSoftmaxCNNModel"
_Cnn: Any = require("rsl_rl.modules", "train", _NAME).CNN
_CnnModel: Any = require("rsl_rl.models", "train", _NAME).CNNModel


class SpatialSoftmax(nn.Module):
    """Where each channel is active: the mean position, weighted by the softmax of its values.

    Args:
        height: Height of the channels.
        width: Width of the channels.
        temperature: Below 1 the strongest places count more, above 1 less.
    """

    places: torch.Tensor
    """Coordinates of all pixels, (height * width, 2)."""

    def __init__(self, height: int, width: int, temperature: float = 1.0) -> None:
        super().__init__()
        y, x = torch.meshgrid(
            torch.linspace(-1.0, 1.0, height), torch.linspace(-1.0, 1.0, width), indexing="ij"
        )
        # x grows to the right and y downwards, both from -1 to 1.
        self.register_buffer("places", torch.stack((x.flatten(), y.flatten()), dim=-1))
        self.temperature = temperature

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Turn channels (batch, channels, height, width) into x, y of each: (batch, 2 channels)."""
        weights = torch.softmax(features.flatten(2) / self.temperature, dim=-1)
        return (weights @ self.places).flatten(1)


class SpatialSoftmaxCNN(nn.Module):
    """RSL-RL's CNN, with the channels' places as its output.

    Args:
        input_dim: Height and width of the images.
        input_channels: Their channels.
        temperature: Of the softmax.
        **cnn_kwargs: Further arguments of RSL-RL's CNN. Those on pooling are not used.
    """

    output_channels = None
    """None: the output is flat."""

    def __init__(
        self,
        input_dim: tuple[int, int],
        input_channels: int,
        temperature: float = 1.0,
        **cnn_kwargs: Any,
    ) -> None:
        super().__init__()
        kept = {k: v for k, v in cnn_kwargs.items() if k not in ("global_pool", "flatten")}
        self.cnn = _Cnn(
            input_dim=input_dim,
            input_channels=input_channels,
            global_pool="none",
            flatten=False,
            **kept,
        )
        self.spatial_softmax = SpatialSoftmax(*self.cnn.output_dim, temperature=temperature)
        self.output_dim = 2 * self.cnn.output_channels
        """Two numbers per channel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode images (batch, channels, height, width)."""
        return self.spatial_softmax(self.cnn(images))


class SpatialSoftmaxCNNModel(_CnnModel):
    """RSL-RL's CNNModel with a spatial softmax after each image encoder.

    Name it in RslRlModelCfg as class_name="mjlab_rec.rl.spatial_softmax:SpatialSoftmaxCNNModel".
    Its `cnn_cfg` may also hold `spatial_softmax_temperature`.
    """

    def __init__(
        self,
        obs: Any,
        obs_groups: dict[str, list[str]],
        obs_set: str,
        output_dim: int,
        cnn_cfg: Mapping[str, Any],
        cnns: Any = None,
        **model_kwargs: Any,
    ) -> None:
        given = cnns is not None
        if not given:
            self._get_obs_dim(obs, obs_groups, obs_set)
            cnns = nn.ModuleDict(self._encoders(cnn_cfg))
        # RSL-RL prints that such encoders are shared with another model.
        with contextlib.nullcontext() if given else contextlib.redirect_stdout(io.StringIO()):
            super().__init__(
                obs, obs_groups, obs_set, output_dim, cnn_cfg={}, cnns=cnns, **model_kwargs
            )

    def _encoders(self, cnn_cfg: Mapping[str, Any]) -> dict[str, SpatialSoftmaxCNN]:
        groups = self.obs_groups_2d
        if not all(isinstance(value, Mapping) for value in cnn_cfg.values()):
            cnn_cfg = dict.fromkeys(groups, cnn_cfg)  # One config for all groups.
        if set(cnn_cfg) != set(groups):
            raise ValueError(
                f"cnn_cfg has the groups {list(cnn_cfg)}, but the image observations are {groups}."
            )
        encoders = {}
        for group, size, channels in zip(
            groups, self.obs_dims_2d, self.obs_channels_2d, strict=True
        ):
            cfg = {k: v for k, v in cnn_cfg[group].items() if k != "spatial_softmax"}
            temperature = cfg.pop("spatial_softmax_temperature", 1.0)
            encoders[group] = SpatialSoftmaxCNN(size, channels, temperature, **cfg)
        return encoders
