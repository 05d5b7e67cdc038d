"""Compiled ground, and rays straight down onto it."""

from __future__ import annotations

import functools
from typing import Any

import mujoco
import numpy as np

from mjlab_rec.terrains import SubTerrainCfg, TerrainGenerator, TerrainGeneratorCfg, TerrainOutput

ABOVE = 50.0


class Ground:
    """A compiled model whose height can be asked for."""

    def __init__(self, spec: mujoco.MjSpec) -> None:
        self.model = spec.compile()
        self._data = mujoco.MjData(self.model)
        mujoco.mj_kinematics(self.model, self._data)

    def height(self, x: float, y: float) -> float:
        """Height of the highest geom there, by MuJoCo's ray; -inf where there is none."""
        start, down, geom = (
            np.array([x, y, ABOVE]),
            np.array([0.0, 0.0, -1.0]),
            np.zeros(1, np.int32),
        )
        distance = mujoco.mj_ray(self.model, self._data, start, down, None, 1, -1, geom)
        return ABOVE - distance if distance >= 0.0 else -np.inf

    def heights(self, points: np.ndarray) -> np.ndarray:
        """Heights at points (n, 2)."""
        return np.array([self.height(x, y) for x, y in points])


def grid(seed: int | None = 0, **fields: Any) -> TerrainGeneratorCfg:
    """A small grid."""
    fields = {"size": (6.0, 6.0), "num_rows": 2, "num_cols": 3} | fields
    return TerrainGeneratorCfg(seed=seed, **fields)


def generate(cfg: TerrainGeneratorCfg) -> tuple[TerrainGenerator, Ground]:
    """The generator and what it made."""
    generator, spec = TerrainGenerator(cfg), mujoco.MjSpec()
    generator.compile(spec)
    return generator, Ground(spec)


def tile(
    kind: SubTerrainCfg, difficulty: float = 0.5, seed: int = 0
) -> tuple[TerrainOutput, Ground]:
    """One tile, with its corner at x = y = 0."""
    spec = mujoco.MjSpec()
    spec.worldbody.add_body(name="terrain")
    output = kind.function(difficulty, spec, np.random.default_rng(seed))
    return output, Ground(spec)


def fingerprint(model: mujoco.MjModel) -> list[bytes]:
    """Everything of the ground that matters, bit for bit."""
    fields = ("geom_pos", "geom_size", "geom_quat", "geom_rgba", "hfield_data", "mesh_vert")
    return [getattr(model, field).tobytes() for field in fields] + [model.names]


@functools.cache
def disc(radius: float, count: int = 40) -> np.ndarray:
    """Points all over a disc, (n, 2)."""
    step = np.arange(count)
    distance, angle = radius * np.sqrt((step + 0.5) / count), step * 2.399963
    rim = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
    inside = np.column_stack((distance * np.cos(angle), distance * np.sin(angle)))
    edge = radius * np.column_stack((np.cos(rim), np.sin(rim)))
    # MuJoCo's rays may slip through a height field where they pass exactly between two triangles.
    return np.concatenate(([[0.0, 0.0]], inside, edge)) + (1.7e-5, 2.9e-5)
