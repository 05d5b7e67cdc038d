"""Configuration of an entity that differs between worlds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import mujoco

from mjlab_rec.entity.config import EntityCfg
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.entity.variants.entity import VariantEntity


def _no_spec_fn() -> mujoco.MjSpec:
    raise RuntimeError("A VariantEntityCfg has no spec_fn; its models are in `variants`.")


@dataclass
class VariantEntityCfg(EntityCfg):
    """An entity that has another model in each world, chosen from several.

    The models must have the same bodies, joints and actuators. Mesh geoms may differ in number
    and in everything else. The other geoms, and joints, sites, cameras and so on, may differ in
    their numbers: sizes, positions, masses, ranges. Which world has which model never changes.

    ``lights``, ``materials``, ``collisions`` and so on are applied to each of the models.
    """

    variants: dict[str, Callable[[], mujoco.MjSpec]] = field(default_factory=dict)
    """The models by name. Each builds a MuJoCo model, as ``EntityCfg.spec_fn`` does."""

    assignment: dict[str, float] | Callable[[int], Sequence[int]] | None = None
    """Which worlds have which model. None: equal shares, in blocks of neighbouring worlds. A
    dictionary: the shares by name, 1 for names that are left out. A function: called with the
    number of worlds, it returns an index into ``variants`` for each."""

    spec_fn: Callable[[], mujoco.MjSpec] = _no_spec_fn
    """Not used; the models are in ``variants``."""

    def __post_init__(self) -> None:
        """Raise ValueError for fields that contradict each other."""
        if self.spec_fn is not _no_spec_fn:
            raise ValueError(
                "VariantEntityCfg.spec_fn cannot be set: give the models in `variants`, a "
                "dictionary from names to functions."
            )
        if isinstance(self.assignment, dict):
            for name in self.assignment:
                if name not in self.variants:
                    raise ValueError(
                        f"VariantEntityCfg.assignment names '{name}', which is not in variants. "
                        f"{nearest(name, list(self.variants))}"
                    )

    def build(self) -> VariantEntity:
        """Build the entity; override this to build one of your own class."""
        from mjlab_rec.entity.variants.entity import VariantEntity

        return VariantEntity(self)
