"""Edit a robot's model in its config: geoms, lights, cameras, textures, materials and meshes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import mujoco

from mjlab_rec.utils.spec_config_geoms import CollisionCfg as CollisionCfg
from mjlab_rec.utils.spec_config_geoms import GeomCfg as GeomCfg
from mjlab_rec.utils.spec_config_geoms import (
    NoMatchError,
    check_values,
    match_names,
    resolve_values,
)
from mjlab_rec.utils.spec_config_geoms import SpecCfg as SpecCfg
from mjlab_rec.utils.spec_config_geoms import (
    warn_overlapping_geom_edits as warn_overlapping_geom_edits,
)
from mjlab_rec.utils.string import nearest

logger = logging.getLogger(__name__)

_TEXTURES = {
    "2d": mujoco.mjtTexture.mjTEXTURE_2D,
    "cube": mujoco.mjtTexture.mjTEXTURE_CUBE,
    "skybox": mujoco.mjtTexture.mjTEXTURE_SKYBOX,
}
_PATTERNS = {
    "none": mujoco.mjtBuiltin.mjBUILTIN_NONE,
    "checker": mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
    "gradient": mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
    "flat": mujoco.mjtBuiltin.mjBUILTIN_FLAT,
}
_MARKS = {
    "none": mujoco.mjtMark.mjMARK_NONE,
    "edge": mujoco.mjtMark.mjMARK_EDGE,
    "cross": mujoco.mjtMark.mjMARK_CROSS,
    "random": mujoco.mjtMark.mjMARK_RANDOM,
}
_LIGHTS = {
    "spot": mujoco.mjtLightType.mjLIGHT_SPOT,
    "directional": mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
}
_MODES = {
    "fixed": mujoco.mjtCamLight.mjCAMLIGHT_FIXED,
    "track": mujoco.mjtCamLight.mjCAMLIGHT_TRACK,
    "trackcom": mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM,
    "targetbody": mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY,
    "targetbodycom": mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODYCOM,
}

Mode = Literal["fixed", "track", "trackcom", "targetbody", "targetbodycom"]
Vec3 = tuple[float, float, float]


@dataclass
class TextureCfg(SpecCfg):
    """Adds a texture, drawn by MuJoCo or read from image files."""

    name: str
    """Name, for materials to refer to."""

    type: Literal["2d", "cube", "skybox"]
    """A flat image, six faces around an object, or six faces of the sky."""

    builtin: Literal["checker", "gradient", "flat", "none"] = "none"
    """Pattern that MuJoCo draws; it overrides files."""

    rgb1: Vec3 | None = None
    """First color of the pattern; None is MuJoCo's default."""

    rgb2: Vec3 | None = None
    """Second color of the pattern; None is MuJoCo's default."""

    width: int | None = None
    """Width of the pattern in pixels."""

    height: int | None = None
    """Height of the pattern in pixels; follows from the width where there are six faces."""

    mark: Literal["edge", "cross", "random", "none"] = "none"
    """Marks drawn on top of the pattern."""

    markrgb: Vec3 = (0.0, 0.0, 0.0)
    """Color of the marks."""

    random: float = 0.01
    """Fraction of pixels with a mark, for random marks."""

    file: str | None = None
    """Image file, an absolute path; the model's own texture folder is searched for a relative one
    only if the entity has a free joint."""

    cubefiles: tuple[str, ...] | None = None
    """Image files of the six faces: right, left, up, down, front, back."""

    gridsize: tuple[int, int] | None = None
    """Rows and columns, if the image file holds several faces."""

    gridlayout: str | None = None
    """Position of the faces in the grid, row by row: letters R, L, U, D, F, B and dots."""

    nchannel: int = 3
    """Number of color channels."""

    hflip: bool = False
    """Whether images are mirrored left to right."""

    vflip: bool = False
    """Whether images are mirrored top to bottom."""

    def validate(self) -> None:
        """Raise ValueError if there is nothing to draw, or no size to draw it in."""
        title = f"TextureCfg '{self.name}'"
        # The six faces are square, so the height follows.
        needed = ("width", "height") if self.type == "2d" else ("width",)
        for field in ("width", "height"):
            size = getattr(self, field)
            if size is not None and size <= 0:
                raise ValueError(f"{title}: {field} must be positive, got {size}.")
            if size is None and self.builtin != "none" and field in needed:
                raise ValueError(
                    f"{title}: the pattern '{self.builtin}' needs a {field} in pixels."
                )
        if self.builtin == "none" and self.file is None and self.cubefiles is None:
            raise ValueError(f"{title} is empty. Give it a builtin pattern, a file or cubefiles.")
        if self.cubefiles is not None and len(self.cubefiles) != 6:
            raise ValueError(f"{title}: cubefiles must be six files, got {len(self.cubefiles)}.")

    def edit_spec(self, spec: mujoco.MjSpec) -> None:
        """Add the texture."""
        title = f"TextureCfg '{self.name}'"
        kind = _choose(_TEXTURES, self.type, f"{title}: type")
        builtin = _choose(_PATTERNS, self.builtin, f"{title}: builtin")
        mark = _choose(_MARKS, self.mark, f"{title}: mark")
        self.validate()
        _check_new(self.name, spec.textures, title)
        spec.add_texture(
            name=self.name,
            type=kind,
            builtin=builtin,
            mark=mark,
            rgb1=self.rgb1,
            rgb2=self.rgb2,
            markrgb=self.markrgb,
            random=self.random,
            width=self.width,
            height=self.height,
            nchannel=self.nchannel,
            file=self.file,
            cubefiles=self.cubefiles,
            gridsize=self.gridsize,
            gridlayout=self.gridlayout,
            hflip=self.hflip,
            vflip=self.vflip,
        )


@dataclass
class MaterialCfg(SpecCfg):
    """Adds a material, and assigns it to geoms."""

    name: str
    """Name, for geoms to refer to."""

    rgba: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """Color, which multiplies that of a texture."""

    texuniform: bool = False
    """Whether the texture repeats per meter rather than per geom."""

    texrepeat: tuple[float, float] = (1.0, 1.0)
    """How often the texture repeats in each direction."""

    reflectance: float = 0.0
    """Reflectance, 0 to 1."""

    texture: str | None = None
    """Name of the texture, from the XML or a TextureCfg."""

    geom_names_expr: tuple[str, ...] | None = None
    """Regular expressions for the beginnings of names of geoms that get it; None means none."""

    def validate(self) -> None:
        """Raise ValueError if the texture's repetition is not positive."""
        if min(self.texrepeat) <= 0:
            raise ValueError(
                f"MaterialCfg '{self.name}': texrepeat must be positive, got {self.texrepeat}."
            )

    def edit_spec(self, spec: mujoco.MjSpec) -> None:
        """Add the material, and assign it to geoms."""
        self.validate()
        title = f"MaterialCfg '{self.name}'"
        _check_new(self.name, spec.materials, title)
        textures = [texture.name for texture in spec.textures]
        if self.texture is not None and self.texture not in textures:
            raise ValueError(
                f"{title}: the model has no texture '{self.texture}'. "
                f"{nearest(self.texture, textures)} Add one to `textures`, or remove the "
                "material's texture or the whole material."
            )
        material = spec.add_material(
            name=self.name,
            rgba=self.rgba,
            texuniform=self.texuniform,
            texrepeat=self.texrepeat,
            reflectance=self.reflectance,
        )
        if self.texture is not None:
            material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = self.texture
        self._assign(spec.geoms, title)

    def _assign(self, geoms: list[mujoco.MjsGeom], title: str) -> None:
        names = [geom.name for geom in geoms]
        for expr in self.geom_names_expr or ():
            try:
                chosen = match_names(expr, names, f"{title}: geom_names_expr")
            except NoMatchError as error:
                # One config may serve several models; a color that is missing is easily seen.
                logger.warning("%s This pattern is skipped.", error)
                continue
            for i in chosen:
                geoms[i].material = self.name


@dataclass
class MeshCfg(SpecCfg):
    """Changes meshes of the model, for all geoms that use them."""

    mesh_names_expr: tuple[str, ...]
    """Regular expressions for the beginnings of mesh names; these are not the geoms' names."""

    maxhullvert: int | dict[str, int] | None = None
    """Most vertices of the convex hull that collides, above 3, or -1 for no limit: fewer are faster
    and coarser. One number, or one per regular expression; None leaves meshes as they are."""

    def validate(self) -> None:
        """Raise ValueError if a hull would have too few vertices to enclose a volume."""
        if self.maxhullvert is not None:
            check_values(
                self.maxhullvert,
                lambda v: isinstance(v, Integral) and (v == -1 or int(v) > 3),
                "MeshCfg.maxhullvert",
                "-1 for no limit, or a whole number above 3",
            )

    def edit_spec(self, spec: mujoco.MjSpec) -> None:
        """Change the matching meshes."""
        self.validate()
        meshes = spec.meshes
        names = [mesh.name for mesh in meshes]
        chosen = match_names(self.mesh_names_expr, names, "MeshCfg.mesh_names_expr")
        limits = resolve_values(self.maxhullvert, names, "MeshCfg.maxhullvert")
        for i in chosen:
            if i in limits:
                meshes[i].maxhullvert = limits[i]


@dataclass
class LightCfg(SpecCfg):
    """Adds a light."""

    name: str | None = None
    """Name; None for a light without one."""

    body: str = "world"
    """Body that it is fixed to."""

    mode: Mode = "fixed"
    """How it follows its body, or turns towards the target."""

    target: str | None = None
    """Body that the modes `targetbody` and `targetbodycom` turn it to."""

    type: Literal["spot", "directional"] = "spot"
    """Type of light, such as a cone from a point or parallel light."""

    castshadow: bool = True
    """Whether it casts shadows."""

    pos: Vec3 = (0.0, 0.0, 0.0)
    """Position on the body, in meters."""

    dir: Vec3 = (0.0, 0.0, -1.0)
    """Direction of the light."""

    cutoff: float = 45.0
    """Angle between the axis and the edge of a spot, in degrees."""

    exponent: float = 10.0
    """How much a spot fades towards its edge."""

    diffuse: Vec3 | None = None
    """Diffuse color; None is MuJoCo's default."""

    specular: Vec3 | None = None
    """Color of highlights; None is MuJoCo's default."""

    ambient: Vec3 | None = None
    """Color that it adds everywhere; None is MuJoCo's default."""

    active: bool = True
    """Whether it is on."""

    attenuation: Vec3 = (1.0, 0.0, 0.0)
    """Constant, linear and quadratic attenuation with distance."""

    def edit_spec(self, spec: mujoco.MjSpec) -> None:
        """Add the light."""
        title = f"LightCfg '{self.name or ''}'"
        kind = _choose(_LIGHTS, self.type, f"{title}: type")
        mode = _mode(self.mode, self.target, spec, title)
        if self.name is not None:
            _check_new(self.name, spec.lights, title)
        light = _body(self.body, spec, f"{title}: body").add_light(
            mode=mode,
            type=kind,
            castshadow=self.castshadow,
            pos=self.pos,
            dir=self.dir,
            cutoff=self.cutoff,
            exponent=self.exponent,
            diffuse=self.diffuse,
            specular=self.specular,
            ambient=self.ambient,
            active=self.active,
            attenuation=self.attenuation,
        )
        if self.name is not None:
            light.name = self.name
        if self.target is not None:
            light.targetbody = self.target


@dataclass
class CameraCfg(SpecCfg):
    """Adds a camera."""

    name: str
    """Name."""

    body: str = "world"
    """Body that it is fixed to."""

    mode: Mode = "fixed"
    """How it follows its body, or turns towards the target."""

    target: str | None = None
    """Body that the modes `targetbody` and `targetbodycom` turn it to."""

    fovy: float = 45.0
    """Vertical field of view, in degrees."""

    pos: Vec3 = (0.0, 0.0, 0.0)
    """Position on the body, in meters."""

    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """Orientation on the body, a quaternion (w, x, y, z)."""

    def edit_spec(self, spec: mujoco.MjSpec) -> None:
        """Add the camera."""
        title = f"CameraCfg '{self.name}'"
        mode = _mode(self.mode, self.target, spec, title)
        _check_new(self.name, spec.cameras, title)
        camera = _body(self.body, spec, f"{title}: body").add_camera(
            name=self.name, mode=mode, fovy=self.fovy, pos=self.pos, quat=self.quat
        )
        if self.target is not None:
            camera.targetbody = self.target


def _choose(known: dict[str, Any], given: str, what: str) -> Any:
    if given not in known:
        raise ValueError(f"{what} is unknown: '{given}'. {nearest(given, list(known))}")
    return known[given]


def _body(name: str, spec: mujoco.MjSpec, what: str) -> mujoco.MjsBody:
    body = spec.body(name)
    if body is None:
        known = [body.name for body in spec.bodies if body.name]
        raise ValueError(f"{what} is unknown: '{name}'. {nearest(name, known)}")
    return body


def _mode(name: str, target: str | None, spec: mujoco.MjSpec, title: str) -> mujoco.mjtCamLight:
    mode = _choose(_MODES, name, f"{title}: mode")
    if target is not None:
        _body(target, spec, f"{title}: target")
    elif name.startswith("target"):
        raise ValueError(f"{title}: mode '{name}' needs a target, the name of a body.")
    return mode


def _check_new(name: str, elements: list[Any], title: str) -> None:
    if any(element.name == name for element in elements):
        raise ValueError(f"{title}: the model already has one of that name. Choose another.")
