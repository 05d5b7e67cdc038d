# type: ignore
"""Where a ray meets a geom: warp functions for each of MuJoCo's shapes, with mj_ray's meaning.

Each takes a ray in the geom's own frame and returns the distance to the nearest surface, in units
of the ray's direction and negative without a hit, and the outward normal there. As in mj_ray a
plane is hit from the front only, and everything else also from inside. One difference: a height
field is solid, while in mj_ray a ray that starts inside meets its lowest level, z = 0, on the way.
"""

import mujoco
import warp as wp

wp.set_module_options({"enable_backward": False})

_GEOM = mujoco.mjtGeom
PLANE = wp.constant(int(_GEOM.mjGEOM_PLANE))
HFIELD = wp.constant(int(_GEOM.mjGEOM_HFIELD))
SPHERE = wp.constant(int(_GEOM.mjGEOM_SPHERE))
CAPSULE = wp.constant(int(_GEOM.mjGEOM_CAPSULE))
ELLIPSOID = wp.constant(int(_GEOM.mjGEOM_ELLIPSOID))
CYLINDER = wp.constant(int(_GEOM.mjGEOM_CYLINDER))
BOX = wp.constant(int(_GEOM.mjGEOM_BOX))
MESH = wp.constant(int(_GEOM.mjGEOM_MESH))
SDF = wp.constant(int(_GEOM.mjGEOM_SDF))

NO_HIT = wp.constant(-1.0)
TINY = wp.constant(1.0e-15)
FAR = wp.constant(1.0e10)
# Neighbouring cells of a height field overlap by this share, or rays would slip between them.
_OVERLAP = wp.constant(1.0e-5)


@wp.func
def _nearest(x: float, y: float) -> float:
    """The smaller of two distances of which negative ones do not count."""
    if x < 0.0 or (y >= 0.0 and y < x):
        return y
    return x


@wp.func
def _roots(a: float, b: float, c: float):
    """The roots of a x^2 + 2 b x + c, ascending; both negative if there are none."""
    det = b * b - a * c
    if det < 0.0 or a < TINY:
        return NO_HIT, NO_HIT
    # The numerically stable form: b and the root never cancel.
    q = -(b + wp.where(b < 0.0, -1.0, 1.0) * wp.sqrt(det))
    x = q / a
    y = wp.where(q == 0.0, x, c / q)
    return wp.min(x, y), wp.max(x, y)


@wp.func
def _plane(size: wp.vec3, p: wp.vec3, v: wp.vec3):
    up = wp.vec3(0.0, 0.0, 1.0)
    if v[2] > -TINY:
        return NO_HIT, up
    x = -p[2] / v[2]
    at = p + x * v
    beyond_x = size[0] > 0.0 and wp.abs(at[0]) > size[0]
    beyond_y = size[1] > 0.0 and wp.abs(at[1]) > size[1]
    if x < 0.0 or beyond_x or beyond_y:
        return NO_HIT, up
    return x, up


@wp.func
def _sphere(radius: float, p: wp.vec3, v: wp.vec3):
    near, far = _roots(wp.dot(v, v), wp.dot(v, p), wp.dot(p, p) - radius * radius)
    x = _nearest(near, far)
    return x, wp.normalize(p + x * v)


@wp.func
def _ellipsoid(size: wp.vec3, p: wp.vec3, v: wp.vec3):
    # In the space where it is a unit sphere.
    ps = wp.cw_div(p, size)
    vs = wp.cw_div(v, size)
    near, far = _roots(wp.dot(vs, vs), wp.dot(vs, ps), wp.dot(ps, ps) - 1.0)
    x = _nearest(near, far)
    return x, wp.normalize(wp.cw_div(ps + x * vs, size))


@wp.func
def _side(radius: float, half: float, p: wp.vec3, v: wp.vec3) -> float:
    """Nearest hit with the round side of a cylinder along z."""
    a = v[0] * v[0] + v[1] * v[1]
    b = v[0] * p[0] + v[1] * p[1]
    c = p[0] * p[0] + p[1] * p[1] - radius * radius
    near, far = _roots(a, b, c)
    if wp.abs(p[2] + near * v[2]) > half:
        near = NO_HIT
    if wp.abs(p[2] + far * v[2]) > half:
        far = NO_HIT
    return _nearest(near, far)


@wp.func
def _cylinder(size: wp.vec3, p: wp.vec3, v: wp.vec3):
    x = _side(size[0], size[1], p, v)
    at = p + x * v
    normal = wp.normalize(wp.vec3(at[0], at[1], 0.0))
    if wp.abs(v[2]) > TINY:
        for end in range(2):
            z = wp.where(end == 0, -size[1], size[1])
            y = (z - p[2]) / v[2]
            at = p + y * v
            inside = at[0] * at[0] + at[1] * at[1] <= size[0] * size[0]
            if y >= 0.0 and inside and (x < 0.0 or y < x):
                x = y
                normal = wp.vec3(0.0, 0.0, wp.where(end == 0, -1.0, 1.0))
    return x, normal


@wp.func
def _capsule(size: wp.vec3, p: wp.vec3, v: wp.vec3):
    x = _side(size[0], size[1], p, v)
    for end in range(2):
        sign = wp.where(end == 0, -1.0, 1.0)
        q = p - wp.vec3(0.0, 0.0, sign * size[1])
        near, far = _roots(wp.dot(v, v), wp.dot(v, q), wp.dot(q, q) - size[0] * size[0])
        if sign * (q[2] + near * v[2]) < 0.0:
            near = NO_HIT
        if sign * (q[2] + far * v[2]) < 0.0:
            far = NO_HIT
        x = _nearest(x, _nearest(near, far))
    at = p + x * v
    axis = wp.clamp(at[2], -size[1], size[1])
    return x, wp.normalize(at - wp.vec3(0.0, 0.0, axis))


@wp.func
def box_hit(size: wp.vec3, p: wp.vec3, v: wp.vec3, slack: float):
    """Nearest hit with a box, whose faces reach `slack` beyond their edges."""
    near = float(-FAR)
    far = float(FAR)
    # With the slack, to decide whether the ray meets the box at all.
    enter = float(-FAR)
    leave = float(FAR)
    near_axis = int(0)
    far_axis = int(0)
    for i in range(3):
        if wp.abs(v[i]) > TINY:
            inverse = 1.0 / v[i]
            middle = -p[i] * inverse
            half = size[i] * wp.abs(inverse)
            more = slack * wp.abs(inverse)
            if middle - half > near:
                near = middle - half
                near_axis = i
            if middle + half < far:
                far = middle + half
                far_axis = i
            enter = wp.max(enter, middle - half - more)
            leave = wp.min(leave, middle + half + more)
        elif wp.abs(p[i]) > size[i] + slack:
            leave = -FAR
    normal = wp.vec3(0.0, 0.0, 0.0)
    if enter > leave:
        return NO_HIT, normal
    if near >= 0.0:
        normal[near_axis] = wp.where(v[near_axis] > 0.0, -1.0, 1.0)
        return near, normal
    if far >= 0.0:
        normal[far_axis] = wp.where(v[far_axis] > 0.0, 1.0, -1.0)
        return far, normal
    return NO_HIT, normal


@wp.func
def shape_hit(kind: int, size: wp.vec3, p: wp.vec3, v: wp.vec3, slack: float):
    """Hit with a shape that is given by its size alone."""
    if kind == BOX:
        x, normal = box_hit(size, p, v, slack)
        return x, normal
    if kind == PLANE:
        x, normal = _plane(size, p, v)
        return x, normal
    if kind == SPHERE:
        x, normal = _sphere(size[0], p, v)
        return x, normal
    if kind == CAPSULE:
        x, normal = _capsule(size, p, v)
        return x, normal
    if kind == CYLINDER:
        x, normal = _cylinder(size, p, v)
        return x, normal
    if kind == ELLIPSOID:
        x, normal = _ellipsoid(size, p, v)
        return x, normal
    return NO_HIT, wp.vec3(0.0, 0.0, 0.0)


@wp.func
def mesh_hit(mesh: wp.uint64, p: wp.vec3, v: wp.vec3, limit: float):
    """Hit with the triangles of a mesh, within a distance."""
    hit = wp.mesh_query_ray(mesh, p, v, limit)
    if hit.result:
        return hit.t, wp.normalize(hit.normal)
    return NO_HIT, wp.vec3(0.0, 0.0, 0.0)


@wp.func
def _triangle(
    slope: wp.vec2, height: float, upper: bool, p: wp.vec3, v: wp.vec3, cell: wp.vec2
) -> float:
    """Hit with half a cell of a height field, in units of cells; `upper` is the half with y > x."""
    u = p[0] - cell[0]
    w = p[1] - cell[1]
    speed = v[2] - slope[0] * v[0] - slope[1] * v[1]
    if wp.abs(speed) < TINY:
        return NO_HIT
    x = -(p[2] - height - slope[0] * u - slope[1] * w) / speed
    if x < 0.0:
        return NO_HIT
    u += x * v[0]
    w += x * v[1]
    low = wp.where(upper, u, w)
    high = wp.where(upper, w, u)
    if low < -_OVERLAP or high > 1.0 + _OVERLAP or low > high + _OVERLAP:
        return NO_HIT
    return x


@wp.func
def _hfield_walls(
    size: wp.vec4,
    rows: int,
    columns: int,
    heights: wp.array(dtype=float),
    start: int,
    p: wp.vec3,
    v: wp.vec3,
):
    """Hit with the bottom of a height field, or with the four walls under its edges."""
    x = float(NO_HIT)
    normal = wp.vec3(0.0, 0.0, 0.0)
    if wp.abs(v[2]) > TINY:
        y = (-size[3] - p[2]) / v[2]
        in_x = wp.abs(p[0] + y * v[0]) <= size[0]
        if y >= 0.0 and in_x and wp.abs(p[1] + y * v[1]) <= size[1]:
            x = y
            normal = wp.vec3(0.0, 0.0, -1.0)
    for i in range(2):
        if wp.abs(v[i]) > TINY:
            j = 1 - i
            along = wp.where(i == 0, rows, columns)
            step = wp.where(i == 0, columns, 1)  # from one height along the wall to the next
            across = wp.where(i == 0, columns - 1, (rows - 1) * columns)  # to the other wall
            for end in range(2):
                sign = wp.where(end == 0, -1.0, 1.0)
                y = (sign * size[i] - p[i]) / v[i]
                if y >= 0.0 and (x < 0.0 or y < x):
                    at = (p[j] + y * v[j] + size[j]) / (2.0 * size[j]) * float(along - 1)
                    z = p[2] + y * v[2]
                    if at >= 0.0 and at <= float(along - 1) and z >= -size[3]:
                        k = wp.min(int(at), along - 2)
                        first = start + end * across + k * step
                        part = at - float(k)
                        edge = heights[first] * (1.0 - part) + heights[first + step] * part
                        if z < edge * size[2]:
                            x = y
                            normal = wp.vec3(0.0, 0.0, 0.0)
                            normal[i] = sign
    return x, normal


@wp.func
def hfield_hit(
    size: wp.vec4,
    rows: int,
    columns: int,
    heights: wp.array(dtype=float),
    start: int,
    p: wp.vec3,
    v: wp.vec3,
    limit: float,
):
    """Hit with a height field: its surface, its walls and the box below, within a distance."""
    x, normal = _hfield_walls(size, rows, columns, heights, start, p, v)

    # Cross the cells that the ray passes, with x and y in units of cells from the first corner.
    dx = 2.0 * size[0] / float(columns - 1)
    dy = 2.0 * size[1] / float(rows - 1)
    q = wp.vec3((p[0] + size[0]) / dx, (p[1] + size[1]) / dy, p[2])
    d = wp.vec3(v[0] / dx, v[1] / dy, v[2])
    begin, end = span(wp.vec2(q[0], q[1]), wp.vec2(d[0], d[1]), columns - 1, rows - 1, limit)
    # Only where it is between the lowest and the highest possible point.
    margin = 1.0e-4 * size[2]
    if wp.abs(v[2]) > TINY:
        at_0 = (-margin - p[2]) / v[2]
        at_1 = (size[2] + margin - p[2]) / v[2]
        begin = wp.max(begin, wp.min(at_0, at_1))
        end = wp.min(end, wp.max(at_0, at_1))
    elif p[2] < -margin or p[2] > size[2] + margin:
        return x, normal
    if x >= 0.0:
        end = wp.min(end, x)
    if begin > end:
        return x, normal
    column = wp.clamp(int(wp.floor(q[0] + begin * d[0])), 0, columns - 2)
    row = wp.clamp(int(wp.floor(q[1] + begin * d[1])), 0, rows - 2)
    at = float(begin)
    while at <= end:
        corner = start + row * columns + column
        h00 = heights[corner] * size[2]
        h10 = heights[corner + 1] * size[2]
        h01 = heights[corner + columns] * size[2]
        h11 = heights[corner + columns + 1] * size[2]
        cell = wp.vec2(float(column), float(row))
        lower = wp.vec2(h10 - h00, h11 - h10)
        upper = wp.vec2(h11 - h01, h01 - h00)
        y = _triangle(lower, h00, False, q, d, cell)
        if y >= 0.0 and (x < 0.0 or y < x):
            x = y
            normal = wp.normalize(wp.vec3(-lower[0] / dx, -lower[1] / dy, 1.0))
        y = _triangle(upper, h00, True, q, d, cell)
        if y >= 0.0 and (x < 0.0 or y < x):
            x = y
            normal = wp.normalize(wp.vec3(-upper[0] / dx, -upper[1] / dy, 1.0))
        if x >= 0.0:
            end = wp.min(end, x)
        at, column, row = next_cell(wp.vec2(q[0], q[1]), wp.vec2(d[0], d[1]), column, row)
        if column < 0 or row < 0 or column > columns - 2 or row > rows - 2:
            break
    return x, normal


@wp.func
def span(p: wp.vec2, v: wp.vec2, columns: int, rows: int, limit: float):
    """The distances between which a ray is over a grid of unit cells; the first is larger if it
    never is.
    """
    begin = float(0.0)
    end = float(limit)
    for i in range(2):
        size = wp.where(i == 0, float(columns), float(rows))
        pad = 1.0e-6 * size
        if wp.abs(v[i]) > TINY:
            first = (-pad - p[i]) / v[i]
            second = (size + pad - p[i]) / v[i]
            begin = wp.max(begin, wp.min(first, second))
            end = wp.min(end, wp.max(first, second))
        elif p[i] < -pad or p[i] > size + pad:
            end = -1.0
    return begin, end


@wp.func
def next_cell(p: wp.vec2, v: wp.vec2, column: int, row: int):
    """The distance at which a ray leaves a unit cell of a grid, and the cell it enters there."""
    leave_x = float(FAR)
    leave_y = float(FAR)
    if wp.abs(v[0]) > TINY:
        leave_x = (float(column + wp.where(v[0] > 0.0, 1, 0)) - p[0]) / v[0]
    if wp.abs(v[1]) > TINY:
        leave_y = (float(row + wp.where(v[1] > 0.0, 1, 0)) - p[1]) / v[1]
    if leave_x < leave_y:
        return leave_x, column + wp.where(v[0] > 0.0, 1, -1), row
    return leave_y, column, row + wp.where(v[1] > 0.0, 1, -1)
