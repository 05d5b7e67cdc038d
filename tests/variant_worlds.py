"""Models that worlds choose from in tests, and scenes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np
import torch

from mjlab_rec.entity import EntityCfg, VariantEntityCfg
from mjlab_rec.scene import Scene, SceneCfg
from mjlab_rec.sim import Simulation, SimulationCfg
from mjlab_rec.terrains import TerrainEntityCfg

SHAPES = ("ball", "cone", "brick")
MESH = mujoco.mjtGeom.mjGEOM_MESH


def add_mesh(spec: mujoco.MjSpec, name: str, shape: str, size: float) -> None:
    """Add a mesh; the cone's center of mass is not at its origin, and the brick is not round."""
    mesh = spec.add_mesh(name=name)
    if shape == "ball":
        mesh.make_sphere(subdivision=2)
        mesh.scale[:] = size
    elif shape == "cone":
        mesh.make_cone(nedge=8, radius=0.4)
        mesh.scale[:] = size
    else:
        corners = [(x, y, z) for x in (-1, 1) for y in (-0.6, 0.6) for z in (-0.4, 0.4)]
        mesh.uservert = (np.array(corners) * size).ravel().tolist()


def thing(
    parts: Sequence[tuple[str, float, bool]] = (("ball", 0.1, True),),
    *,
    lid: Sequence[tuple[str, float, bool]] = (),
    knob: float = 0.03,
    free: bool = True,
    color: tuple[float, ...] | None = None,
    reach: float = 0.3,
) -> Callable[[], mujoco.MjSpec]:
    """A body of meshes, with a lid on a hinge that has some more and a ball for a knob.

    Args:
        parts: The body's meshes: shape, size and whether they collide.
        lid: Those of the lid.
        knob: Radius of the knob.
        free: Whether the body floats.
        color: Of the body's material; None for none.
        reach: Distance of the lid.
    """

    def build() -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        if color is not None:
            spec.add_material(name="paint", rgba=color)
        body = spec.worldbody.add_body(name="thing")
        if free:
            body.add_freejoint()
        flap = body.add_body(name="lid", pos=(reach, 0, 0))
        flap.add_joint(name="hinge", axis=(0, 1, 0), damping=[0.01, 0, 0], range=(-1, 1))
        flap.add_geom(name="knob", size=(knob, 0, 0), pos=(0.1, 0, 0))
        flap.add_site(name="tip", pos=(0.1 + knob, 0, 0))
        for where, meshes in ((body, parts), (flap, lid)):
            for i, (shape, size, collides) in enumerate(meshes):
                name = f"{where.name}_{i}_{shape}_{size}"
                add_mesh(spec, name, shape, size)
                where.add_geom(
                    type=MESH,
                    meshname=name,
                    pos=(0.05 * i, 0.03 * i, 0.01),
                    material="paint" if color is not None else "",
                    contype=int(collides),
                    conaffinity=int(collides),
                    group=2 if not collides else 0,
                )
        return spec

    return build


START = EntityCfg.InitialStateCfg(pos=(0.0, 0.0, 0.5), rot=(0.9, 0.1, 0.4, 0.1))


def scene_of(
    num_envs: int, engine: Any = "mjbatch", terrain: bool = True, **entities: EntityCfg
) -> tuple[Scene, Simulation]:
    """A scene of the entities above a floor, at its start."""
    ground = TerrainEntityCfg() if terrain else None
    scene = Scene(SceneCfg(num_envs=num_envs, terrain=ground, entities=entities))
    sim = Simulation(
        num_envs,
        SimulationCfg(engine=engine, nconmax=60, njmax=240),
        spec=scene.spec,
        variant_info=scene.collect_variant_info(),
    )
    scene.initialize(sim.mj_model, sim.model, sim.data)
    if sim.mj_model.nkey:
        sim.data.qpos[:] = torch.from_numpy(sim.mj_model.key_qpos[0]).float()
    return scene, sim


def trajectory(sim: Simulation, steps: int = 100) -> np.ndarray:
    """Positions after each step (steps, num_envs, nq), from a spin."""
    sim.data.qvel[:] = torch.linspace(-1.0, 1.5, sim.mj_model.nv)
    rows = []
    for _ in range(steps):
        sim.step()
        rows.append(sim.data.qpos.numpy().copy())
    return np.stack(rows)


def of_variants(
    variants: dict[str, Any], assignment: Any = None, **fields: Any
) -> VariantEntityCfg:
    fields.setdefault("init_state", START)
    return VariantEntityCfg(variants=variants, assignment=assignment, **fields)
