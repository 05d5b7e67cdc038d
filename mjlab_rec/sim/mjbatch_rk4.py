"""A step of MuJoCo's RK4 integrator, with its four evaluations of the forces one by one."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np

# How far each evaluation is from the step's beginning, and its weight in the result.
_STAGES = ((0.0, 1 / 6), (0.5, 1 / 3), (0.5, 1 / 3), (1.0, 1 / 6))
_KNOWN_STATE = {"time", "qpos", "qvel", "qacc_warmstart", "ctrl", "qfrc_applied", "xfrc_applied"}
_KNOWN_STATE |= {"eq_active", "mocap_pos", "mocap_quat", "userdata"}
_LARGEST = 1e10  # MuJoCo's mjMAXVAL, beyond which a state counts as diverged.
_TINY = 1e-15  # mjMINVAL
_X = np.array([[1.0], [0.0], [0.0]])

SENSED = frozenset({"sensordata", "cacc", "cfrc_int", "cfrc_ext"})
"""Data fields that MuJoCo's own RK4 computes in the first evaluation only."""


class Rk4Step:
    """Steps all worlds as MuJoCo does, but computes sensors in the last evaluation, too.

    MuJoCo leaves sensors, and what it computes for them, from the first of the four evaluations of
    a step, and everything else from the last. With this step all of it is from the last one, as it
    is in MuJoCo-Warp. It costs one more forward pass than MuJoCo's step.

    Args:
        model: The model.
        state: The worlds' states, one row each, which the step changes in place.
        columns: The columns of each field in the state.
        qacc: Accelerations, in double precision, which `forward` fills.
        forward: Runs mj_forward in all worlds.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        state: np.ndarray,
        columns: dict[str, slice],
        qacc: np.ndarray,
        forward: Callable[[], None],
    ) -> None:
        self._model = model
        self._state = state
        self._qacc = qacc
        self._forward = forward
        self._time = state[:, columns["time"]]
        self._pos = state[:, columns["qpos"]]
        self._vel = state[:, columns["qvel"]]
        self._warmstart = state[:, columns["qacc_warmstart"]]
        self._plain, self._quats = _joint_columns(model)

    @staticmethod
    def suits(model: mujoco.MjModel, columns: dict[str, slice]) -> bool:
        """Whether the model uses RK4, has sensors, and nothing in its state is unknown here."""
        rk4 = model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
        return bool(rk4 and model.nsensor and model.nv and _KNOWN_STATE.issuperset(columns))

    def step(self, derived: list[np.ndarray]) -> np.ndarray:
        """Take one step.

        Args:
            derived: The arrays of derived fields, which keep the values of the last evaluation.

        Returns:
            Which worlds diverged, (num_envs,). MuJoCo would have noticed it in its own step.
        """
        dt = self._model.opt.timestep
        self._forward()  # Applies pending writes, so only now the state is the one to start from.
        time, pos, vel = self._time.copy(), self._pos.copy(), self._vel.copy()
        speed, force = vel, self._qacc.copy()
        mean_speed, mean_force = speed * _STAGES[0][1], force * _STAGES[0][1]
        for at, weight in _STAGES[1:]:
            self._time[:] = time + dt * at
            self._move(pos, speed * at, dt)
            self._vel[:] = vel + dt * (force * at)
            self._forward()
            speed, force = self._vel.copy(), self._qacc.copy()
            mean_speed += speed * weight
            mean_force += force * weight
        kept = [array.copy() for array in derived]
        self._time[:] = time + dt
        self._move(pos, mean_speed, dt)
        self._vel[:] = vel + dt * mean_force
        self._warmstart[:] = force
        # Only a call of the engine brings the bound fields of the state up to date.
        self._forward()
        for array, values in zip(derived, kept, strict=True):
            np.copyto(array, values)
        largest = np.maximum(np.abs(self._pos).max(axis=1), np.abs(self._vel).max(axis=1))
        return np.logical_not(largest < _LARGEST)  # NaN counts.

    def _move(self, pos: np.ndarray, speed: np.ndarray, dt: float) -> None:
        """Set positions to where a speed leads from `pos` in the given time."""
        q, v = self._plain
        self._pos[:, q] = pos[:, q] + dt * speed[:, v]
        for q_adr, v_adr in self._quats:
            turned = _turn(pos[:, q_adr : q_adr + 4], speed[:, v_adr : v_adr + 3], dt)
            self._pos[:, q_adr : q_adr + 4] = turned


def _joint_columns(
    model: mujoco.MjModel,
) -> tuple[tuple[np.ndarray, np.ndarray], list[tuple[int, int]]]:
    """Columns of qpos and qvel that add up, and the first columns of each quaternion."""
    q: list[int] = []
    v: list[int] = []
    quats: list[tuple[int, int]] = []
    free, ball = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
    starts = zip(model.jnt_qposadr.tolist(), model.jnt_dofadr.tolist(), strict=True)
    for kind, (q_adr, v_adr) in zip(model.jnt_type.tolist(), starts, strict=True):
        length = {free: 3, ball: 0}.get(kind, 1)
        if kind in (free, ball):
            quats.append((q_adr + length, v_adr + length))
        q += range(q_adr, q_adr + length)
        v += range(v_adr, v_adr + length)
    return (np.array(q, dtype=int), np.array(v, dtype=int)), quats


def _turn(quat: np.ndarray, speed: np.ndarray, dt: float) -> np.ndarray:
    """Turn quaternions (n, 4) at an angular velocity in their own axes (n, 3) for some time.

    The operations are MuJoCo's, in its order, so that they round alike.
    """
    x, y, z = speed.T
    rate = np.sqrt(x * x + y * y + z * z)
    half = dt * rate * 0.5
    axis = speed.T * (1.0 / np.maximum(rate, _TINY))
    axis[:, rate < _TINY] = _X
    a, (b, c, d) = np.cos(half), axis * np.sin(half)
    w, x, y, z = quat.T
    length = np.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = np.where(np.abs(length - 1.0) > _TINY, quat.T * (1.0 / length), quat.T)
    turned = [
        w * a - x * b - y * c - z * d,
        w * b + x * a + y * d - z * c,
        w * c - x * d + y * a + z * b,
        w * d + x * c - y * b + z * a,
    ]
    return np.stack(turned, axis=1)
