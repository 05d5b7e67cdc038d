# type: ignore
"""The kernel that aims rays, finds what they hit, and writes the results."""

# Without postponed annotations: warp reads the types of arguments and local variables.
import warp as wp

from mjlab_rec.sim.ray_scene import RayScene
from mjlab_rec.sim.ray_shapes import (
    BOX,
    HFIELD,
    MESH,
    NO_HIT,
    SDF,
    hfield_hit,
    mesh_hit,
    next_cell,
    shape_hit,
    span,
)

wp.set_module_options({"enable_backward": False})

_SITE = wp.constant(1)
_GEOM = wp.constant(2)
_YAW = wp.constant(1)
_WORLD = wp.constant(2)
# Below this horizontal length of its x axis, a frame's heading is taken from its y axis.
_STEEP = wp.constant(0.1)
# Faces of boxes reach this share of their coordinates beyond their edges: about as far as rounding
# goes, or rays would slip between boxes that touch.
_SLACK = wp.constant(1.5e-7)


@wp.func
def _is_visible(scene: wp.array(dtype=RayScene), geom: int, world: int) -> bool:
    material = scene[0].material[wp.min(world, scene[0].material.shape[0] - 1), geom]
    if material < 0:
        return scene[0].color[wp.min(world, scene[0].color.shape[0] - 1), geom][3] != 0.0
    return (
        scene[0].material_color[wp.min(world, scene[0].material_color.shape[0] - 1), material][3]
        != 0.0
    )


@wp.func
def _passes(radius: float, away: wp.vec3, direction: wp.vec3) -> bool:
    """Whether a ray misses a sphere, given its start as seen from the centre."""
    along = wp.dot(away, direction)
    outside = wp.dot(away, away) - radius * radius
    return outside > 0.0 and (along > 0.0 or along * along < outside)


@wp.func
def _geom_hit(
    scene: wp.array(dtype=RayScene),
    geom: int,
    world: int,
    groups: int,
    excluded: int,
    start: wp.vec3,
    direction: wp.vec3,
    limit: float,
):
    """Hit with a geom within a distance, and its normal in the world."""
    none = wp.vec3(0.0, 0.0, 0.0)
    is_fixed = scene[0].is_fixed[geom] != 0
    pos = wp.vec3()
    if is_fixed:
        pos = scene[0].fixed_pos[geom]
    else:
        pos = scene[0].pos[world, geom]
    away = start - pos
    # Most geoms are far from the ray.
    if _passes(scene[0].radius[geom], away, direction):
        return NO_HIT, none
    if ((groups >> scene[0].group[geom]) & 1) == 0 or scene[0].body[geom] == excluded:
        return NO_HIT, none
    kind = scene[0].kind[geom]
    data_id = int(-1)
    if kind == MESH or kind == SDF or kind == HFIELD:
        data_id = scene[0].data_id[wp.min(world, scene[0].data_id.shape[0] - 1), geom]
        if data_id < 0:
            return NO_HIT, none
        if kind != HFIELD and _passes(scene[0].mesh_radius[data_id], away, direction):
            return NO_HIT, none
    mat = wp.mat33()
    if is_fixed:
        mat = scene[0].fixed_mat[geom]
    else:
        mat = scene[0].mat[world, geom]
    turn = wp.transpose(mat)
    p = turn @ away
    v = turn @ direction
    x = float(NO_HIT)
    normal = wp.vec3(0.0, 0.0, 0.0)
    if kind == HFIELD:
        x, normal = hfield_hit(
            scene[0].hfield_size[data_id],
            scene[0].hfield_rows[data_id],
            scene[0].hfield_columns[data_id],
            scene[0].hfield_data,
            scene[0].hfield_start[data_id],
            p,
            v,
            limit,
        )
    elif kind == MESH or kind == SDF:
        x, normal = mesh_hit(scene[0].mesh[data_id], p, v, limit)
    else:
        size = scene[0].size[wp.min(world, scene[0].size.shape[0] - 1), geom]
        slack = float(0.0)
        if kind == BOX:
            slack = _SLACK * (wp.norm_l1(start) + wp.norm_l1(pos) + wp.norm_l1(size))
        x, normal = shape_hit(kind, size, p, v, slack)
    if x < 0.0 or x > limit or not _is_visible(scene, geom, world):
        return NO_HIT, none
    return x, mat @ normal


@wp.func
def _heading(mat: wp.mat33) -> wp.mat33:
    """The turn about the vertical axis that a rotation contains."""
    x = mat[0, 0]
    y = mat[1, 0]
    length = wp.sqrt(x * x + y * y)
    if length < _STEEP:
        # The y axis points left: turn it to the right.
        x = mat[1, 1]
        y = -mat[0, 1]
        length = wp.max(wp.sqrt(x * x + y * y), 1.0e-6)
    c = x / length
    s = y / length
    return wp.mat33(c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0)


@wp.kernel
def cast_rays(
    first_world: int,
    worlds: wp.array(dtype=wp.bool),
    frame_type: wp.array(dtype=int),
    frame_id: wp.array(dtype=int),
    excluded_body: wp.array(dtype=int),
    offsets: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    alignment: int,
    max_distance: float,
    groups: int,
    planes: wp.array(dtype=int),
    moving: wp.array(dtype=int),
    moving_radius: wp.array(dtype=float),
    xpos: wp.array2d(dtype=wp.vec3),
    xmat: wp.array2d(dtype=wp.mat33),
    site_xpos: wp.array2d(dtype=wp.vec3),
    site_xmat: wp.array2d(dtype=wp.mat33),
    geom_xpos: wp.array2d(dtype=wp.vec3),
    geom_xmat: wp.array2d(dtype=wp.mat33),
    scene: wp.array(dtype=RayScene),
    # All results in one array, one after the other.
    out: wp.array(dtype=float),
):
    """Cast one ray of one world; the thread of a frame's first ray also writes its pose."""
    slice_world, ray = wp.tid()
    world = first_world + slice_world
    if not worlds[world]:
        return
    num_worlds = worlds.shape[0]
    num_frames = frame_id.shape[0]
    frame = ray // offsets.shape[0]
    index = ray % offsets.shape[0]

    kind = frame_type[frame]
    carrier = frame_id[frame]
    pos = wp.vec3(0.0, 0.0, 0.0)
    mat = wp.mat33(0.0)
    if kind == _SITE:
        pos = site_xpos[world, carrier]
        mat = site_xmat[world, carrier]
    elif kind == _GEOM:
        pos = geom_xpos[world, carrier]
        mat = geom_xmat[world, carrier]
    else:
        pos = xpos[world, carrier]
        mat = xmat[world, carrier]
    turn = mat
    if alignment == _YAW:
        turn = _heading(mat)
    elif alignment == _WORLD:
        turn = wp.identity(n=3, dtype=float)
    start = pos + turn @ offsets[index]
    direction = turn @ directions[index]

    best = float(max_distance)
    normal = wp.vec3(0.0, 0.0, 0.0)
    is_hit = bool(False)
    excluded = excluded_body[frame]
    for i in range(planes.shape[0]):
        x, n = _geom_hit(scene, planes[i], world, groups, excluded, start, direction, best)
        if x >= 0.0 and (x < best or not is_hit):
            best = x
            normal = n
            is_hit = True
    for i in range(moving.shape[0]):
        geom = moving[i]
        # Most are far from the ray, so this is decided here, before everything else is read.
        if not _passes(moving_radius[i], start - geom_xpos[world, geom], direction):
            x, n = _geom_hit(scene, geom, world, groups, excluded, start, direction, best)
            if x >= 0.0 and (x < best or not is_hit):
                best = x
                normal = n
                is_hit = True

    # Cross the cells of the map, in units of cells.
    p = wp.cw_div(wp.vec2(start[0], start[1]) - scene[0].corner, scene[0].cell)
    v = wp.cw_div(wp.vec2(direction[0], direction[1]), scene[0].cell)
    at, end = span(p, v, scene[0].columns, scene[0].rows, best)
    column = wp.clamp(int(wp.floor(p[0] + at * v[0])), 0, scene[0].columns - 1)
    row = wp.clamp(int(wp.floor(p[1] + at * v[1])), 0, scene[0].rows - 1)
    while at <= end:
        cell = row * scene[0].columns + column
        for i in range(scene[0].cell_start[cell], scene[0].cell_start[cell + 1]):
            geom = scene[0].cell_geoms[i]
            # Most are above or below all that is left of the ray.
            last = start[2] + best * direction[2]
            heights = scene[0].cell_heights[i]
            if heights[0] <= wp.max(start[2], last) and heights[1] >= wp.min(start[2], last):
                x, n = _geom_hit(scene, geom, world, groups, excluded, start, direction, best)
                if x >= 0.0 and (x < best or not is_hit):
                    best = x
                    normal = n
                    is_hit = True
        end = wp.min(end, best)
        at, column, row = next_cell(p, v, column, row)
        if column < 0 or row < 0 or column >= scene[0].columns or row >= scene[0].rows:
            break

    num_rays = num_frames * offsets.shape[0]
    place = world * num_rays + ray
    total = num_worlds * num_rays
    hit = start
    if is_hit:
        hit = start + best * direction
    out[place] = wp.where(is_hit, best, NO_HIT)
    for i in range(3):
        out[total + 3 * place + i] = normal[i]
        out[4 * total + 3 * place + i] = hit[i]
    if index == 0:
        total = 7 * total
        place = world * num_frames + frame
        # Warp's quaternions are (x, y, z, w).
        quat = wp.quat_from_matrix(mat)
        sign = wp.where(quat[3] < 0.0, -1.0, 1.0)
        for i in range(3):
            out[total + 3 * place + i] = pos[i]
        total += 3 * num_worlds * num_frames + 4 * place
        out[total] = sign * quat[3]
        for i in range(3):
            out[total + 1 + i] = sign * quat[i]
