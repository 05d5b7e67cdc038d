"""Small models that the simulation tests share."""

from __future__ import annotations

import mujoco

CARTPOLE = """
<mujoco>
  <option><flag contact="disable"/></option>
  <worldbody>
    <body name="cart" pos="0 0 1">
      <joint name="slider" type="slide" axis="1 0 0" range="-1.8 1.8" damping="5e-4"/>
      <geom type="box" size=".2 .15 .1" mass="1"/>
      <body name="pole">
        <joint name="hinge" axis="0 1 0" damping="2e-6"/>
        <geom type="capsule" fromto="0 0 0 0 0 1" size=".045" mass=".1"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="slider" gear="10" ctrllimited="true" ctrlrange="-1 1"/></actuator>
</mujoco>
"""

# A free box that lands on a plane next to an arm, with some of everything else.
RICH = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 .1"/>
    <body name="target" mocap="true" pos="0 0 2">
      <geom size=".05" contype="0" conaffinity="0"/>
    </body>
    <body name="box" pos="0 0 .13">
      <freejoint/>
      <geom name="box" type="box" size=".1 .1 .1" mass="1"/>
      <site name="top" pos="0 0 .1"/>
    </body>
    <body name="arm" pos="1 0 1">
      <joint name="shoulder" axis="0 1 0" damping=".1" armature=".01"/>
      <geom type="capsule" fromto="0 0 0 0 0 -.3" size=".03" mass=".5"/>
      <body name="hand" pos="0 0 -.3">
        <joint name="elbow" axis="0 1 0" damping=".1"/>
        <geom type="capsule" fromto="0 0 0 0 0 -.2" size=".02" mass=".2"/>
        <site name="tip" pos="0 0 -.2"/>
      </body>
    </body>
  </worldbody>
  <equality><joint joint1="shoulder" joint2="elbow" polycoef="0 .5 0 0 0"/></equality>
  <tendon>
    <fixed name="cord" stiffness="1" damping=".1">
      <joint joint="shoulder" coef="1"/><joint joint="elbow" coef="-1"/>
    </fixed>
  </tendon>
  <actuator>
    <general name="slow" joint="shoulder" dyntype="filter" dynprm=".05" gainprm="2"/>
    <position name="servo" joint="elbow" kp="3"/>
    <motor name="pull" tendon="cord"/>
  </actuator>
  <sensor>
    <framepos objtype="site" objname="top"/>
    <accelerometer site="top"/>
    <jointpos joint="elbow"/>
    <tendonpos tendon="cord"/>
  </sensor>
</mujoco>
"""


def load(xml: str) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(xml)
