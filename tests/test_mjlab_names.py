"""Code written for mjlab finds its imports once they are renamed, or is told what to use."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import mjlab_rec

# Module -> names that mjlab's tasks, robots, scripts and tests import from it.
NAMES = {
    "": "MJLAB_SRC_PATH",
    "envs.types": "VecEnvObs VecEnvStepReturn",
    "envs.mdp.dr.actuator": "effort_limits pd_gains",
    "envs.mdp.dr.body": "body_com_offset body_ipos body_mass body_pos body_quat pseudo_inertia",
    "envs.mdp.dr.camera": "cam_fovy cam_intrinsic cam_pos cam_quat",
    "envs.mdp.dr.geom": "geom_friction geom_matid geom_pos geom_quat geom_rgba geom_size",
    "envs.mdp.dr.joint": "dof_armature dof_damping dof_frictionloss encoder_bias jnt_range"
    " jnt_stiffness joint_armature joint_damping joint_default_pos joint_friction joint_limits"
    " joint_stiffness qpos0",
    "envs.mdp.dr.light": "light_ambient light_attenuation light_cutoff light_diffuse light_dir"
    " light_exponent light_pos light_specular",
    "envs.mdp.dr.material": "mat_emission mat_rgba mat_shininess mat_specular mat_texid"
    " mat_texrepeat",
    "envs.mdp.dr.pair": "pair_friction",
    "envs.mdp.dr.site": "site_pos site_quat",
    "envs.mdp.dr.tendon": "tendon_armature tendon_damping tendon_friction tendon_frictionloss"
    " tendon_stiffness",
    "managers": "ActionTerm CommandTerm CurriculumTermCfg EventTermCfg ManagerTermBase"
    " MetricsTermCfg ObservationGroupCfg RecorderTerm RewardTermCfg SceneEntityCfg",
    "registry": "list_tasks load_env_cfg load_rl_cfg load_runner_cls register_mjlab_task",
    "sim.sim": "MujocoCfg Simulation SimulationCfg",
    "utils.gpu": "select_gpus",
    "utils.lab_api.string": "resolve_matching_names string_to_callable",
    "utils.lab_api.tasks.importer": "import_packages",
    "utils.os": "dump_yaml get_checkpoint_path get_wandb_checkpoint_path",
    "utils.string": "filter_exp resolve_expr resolve_field",
    "utils.torch": "configure_torch_backends",
    "utils.wandb": "add_wandb_tags",
}


@pytest.mark.parametrize("module", NAMES)
def test_names_are_where_mjlab_has_them(module: str) -> None:
    found = importlib.import_module(f"mjlab_rec.{module}".rstrip("."))
    missing = [name for name in NAMES[module].split() if not hasattr(found, name)]
    assert not missing


def test_modules_of_randomizations_hold_the_same_functions_as_the_package() -> None:
    from mjlab_rec.envs.mdp import dr

    for module, names in NAMES.items():
        if module.startswith("envs.mdp.dr."):
            found = importlib.import_module(f"mjlab_rec.{module}")
            assert all(getattr(found, name) is getattr(dr, name) for name in names.split())


def test_the_path_of_the_package_is_its_folder() -> None:
    assert mjlab_rec.MJLAB_SRC_PATH == Path(mjlab_rec.__file__).parent


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("from mjlab_rec.asset_zoo.robots import x", "EntityCfg.*Menagerie"),
        ("import mjlab_rec.tasks.velocity.mdp", "registry.*is mjlab_rec.registry.*copy the folder"),
        ("from mjlab_rec.tasks.registry import list_tasks", "is mjlab_rec.registry"),
        ("from mjlab_rec.scripts.train import TrainConfig", "commands of mjlab-rec"),
        ("from mjlab_rec.utils.wrappers import VideoRecorder", "VideoRecorderCfg"),
        ("from mjlab_rec.viewer import NativeMujocoViewer", "make_viewer.'native', env"),
        ("from mjlab_rec.viewer import OffscreenRenderer", "env.render"),
        ("from mjlab_rec.viewer.base import BaseViewer", "viewer.playback.Viewer"),
        ("from mjlab_rec.viewer.viser import ViserPlayViewer", "make_viewer.'web', env"),
        ("import mjlab_rec.viewer.offscreen_renderer", "env.render.*make_renderer"),
        ("from mjlab_rec.utils.spaces import Box", "gymnasium.spaces"),
        ("from mjlab_rec.utils.logging import print_info", "logging.getLogger"),
    ],
)
def test_what_is_missing_says_what_there_is_instead(statement: str, message: str) -> None:
    with pytest.raises(ImportError, match=message):
        exec(statement)


def test_other_names_are_missing_as_usual() -> None:
    viewer = importlib.import_module("mjlab_rec.viewer")
    assert not hasattr(viewer, "Nothing")
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec("from mjlab_rec.viewer import Nothing")


def test_resolve_field_and_filter_exp() -> None:
    from mjlab_rec.utils.string import filter_exp, resolve_field

    names = ("left_hip", "right_hip", "knee")
    assert resolve_field(2.0, names) == (2.0, 2.0, 2.0)
    assert resolve_field({".*_hip": 1.0}, names, 0.5) == (1.0, 1.0, 0.5)
    assert filter_exp(("left.*", "knee"), names) == ("left_hip", "knee")
