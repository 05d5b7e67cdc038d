from __future__ import annotations

import logging
import subprocess
import sys

import mujoco
import pytest
import torch
from sim_models import CARTPOLE, RICH, load

from mjlab_rec.sim import MujocoCfg, Simulation, SimulationCfg
from mjlab_rec.sim.engine import state_layout

# Spheres that all touch each other, in an arena too small for their contacts.
BALLS = "".join(
    f'<body pos="{0.05 * (i % 3)} {0.05 * (i // 3)} .05"><freejoint/><geom size=".1"/></body>'
    for i in range(9)
)
CROWD = (
    '<mujoco><size memory="{memory}"/><worldbody><geom type="plane" size="5 5 .1"/>'
    + BALLS
    + "</worldbody></mujoco>"
)


def mjbatch_cfg(**kwargs) -> SimulationCfg:
    return SimulationCfg(engine="mjbatch", num_threads=1, **kwargs)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [r for r in caplog.records if r.name == "mjlab_rec.sim.simulation"]
    return [r.getMessage() for r in records if r.levelno >= logging.WARNING]


def test_importing_sim_loads_no_engine():
    code = (
        "import sys, mjlab_rec.sim;"
        "sys.exit(any(m in sys.modules for m in ('warp', 'mujoco_warp', 'mjbatch')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_mjbatch_is_the_engine_on_the_cpu_and_loads_no_warp():
    code = (
        "import sys, mujoco, mjlab_rec.sim as s;"
        "m = mujoco.MjModel.from_xml_string('<mujoco><worldbody><body><freejoint/>"
        '<geom size=".1"/></body></worldbody></mujoco>\');'
        "sim = s.Simulation(2, s.SimulationCfg(), m); sim.step(); sim.forward();"
        "assert sim.engine_name == 'mjbatch', sim.engine_name;"
        "sys.exit('warp' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_warp_is_used_if_mjbatch_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert Simulation(2, SimulationCfg(), load(CARTPOLE)).engine_name == "warp"


@pytest.mark.parametrize("num_envs", [0, -3])
def test_too_few_worlds_are_refused(num_envs):
    with pytest.raises(ValueError, match=f"num_envs must be at least 1, got {num_envs}"):
        Simulation(num_envs, SimulationCfg(), load(CARTPOLE))


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps", "tpu:0"])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(ValueError, match=f"Unknown device '{device}'. Possible: auto, cpu"):
        Simulation(1, SimulationCfg(), load(CARTPOLE), device)


def test_mjbatch_on_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="runs on the CPU only.*'cuda:0'"):
        Simulation(1, mjbatch_cfg(), load(CARTPOLE), "cuda")


def test_an_unknown_engine_is_refused():
    cfg = SimulationCfg(engine="mjbtach")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Unknown engine 'mjbtach'.*Did you mean 'mjbatch'"):
        Simulation(1, cfg, load(CARTPOLE))


def test_a_model_or_a_spec_is_needed():
    with pytest.raises(ValueError, match="either a compiled model or a spec"):
        Simulation(1, SimulationCfg())
    sim = Simulation(1, mjbatch_cfg(), spec=mujoco.MjSpec.from_string(CARTPOLE))
    assert sim.model.nq == 2


def test_mujoco_options_reach_the_model():
    cfg = MujocoCfg(
        timestep=0.01,
        integrator="rk4",
        cone="elliptic",
        solver="cg",
        jacobian="sparse",
        gravity=(0.0, 1.0, 0.0),
        iterations=7,
        disableflags=("contact", "gravity"),
        enableflags=("energy",),
    )
    opt = Simulation(1, mjbatch_cfg(mujoco=cfg), load(RICH)).mj_model.opt
    assert opt.timestep == 0.01
    assert opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    assert opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC
    assert opt.solver == mujoco.mjtSolver.mjSOL_CG
    assert opt.jacobian == mujoco.mjtJacobian.mjJAC_SPARSE
    assert opt.gravity.tolist() == [0, 1, 0]
    assert opt.iterations == 7
    bits = mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_GRAVITY
    assert opt.disableflags == bits
    assert opt.enableflags == mujoco.mjtEnableBit.mjENBL_ENERGY


@pytest.mark.parametrize(
    "options, message",
    [
        ({"integrator": "rk5"}, "Unknown integrator 'rk5' in MujocoCfg. Did you mean 'rk4'"),
        ({"disableflags": ("contacts",)}, "Unknown disableflags 'contacts'.*'contact'"),
        ({"enableflags": ("Energy",)}, "Unknown enableflags 'Energy'.*'energy'"),
    ],
)
def test_unknown_mujoco_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Simulation(1, mjbatch_cfg(mujoco=MujocoCfg(**options)), load(CARTPOLE))


def test_state_layout_names_every_column():
    model = load(RICH)
    layout = state_layout(model)
    assert [field.name for field in layout] == [
        *("time", "qpos", "qvel", "act", "qacc_warmstart", "ctrl", "qfrc_applied"),
        *("xfrc_applied", "eq_active", "mocap_pos", "mocap_quat"),
    ]
    assert layout[0].columns == slice(0, 1)
    assert layout[-1].columns.stop == mujoco.mj_stateSize(
        model, int(mujoco.mjtState.mjSTATE_INTEGRATION)
    )


def test_reading_loses_no_precision():
    def rollout(read: bool) -> torch.Tensor:
        sim = Simulation(2, mjbatch_cfg(), load(RICH))
        for _ in range(50):
            sim.step()
            if read:
                sim.data.qpos[:] = sim.data.qpos.clone()
        return sim.get_state()

    assert torch.equal(rollout(False), rollout(True))


def test_mjbatch_results_do_not_depend_on_the_number_of_threads():
    def rollout(threads: int) -> torch.Tensor:
        sim = Simulation(5, SimulationCfg(engine="mjbatch", num_threads=threads), load(RICH))
        sim.data.qvel[:, 7] = torch.linspace(0, 1, 5)
        sim.step(30)
        return sim.get_state()

    assert torch.equal(rollout(1), rollout(2))


def test_mujoco_prints_nothing_when_worlds_diverge(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    sim = Simulation(4, mjbatch_cfg(), load(RICH))
    sim.data.qpos[:, 0] = torch.nan
    sim.step(3)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert sim.health()[0] == 4


def test_mjbatch_reports_a_full_arena_once(caplog):
    sim = Simulation(2, mjbatch_cfg(), load(CROWD.format(memory="60K")))
    for _ in range(3):
        sim.step()
        assert sim.health().tolist() == [0, 0, 2, 0, 0]
        sim.report_health(sim.health().tolist())
    (message,) = warnings_in(caplog)
    assert "more constraints" in message and "<size memory" in message
    roomy = Simulation(2, mjbatch_cfg(), load(CROWD.format(memory="10M")))
    roomy.step()
    assert roomy.health().tolist() == [0] * 5


def test_mjbatch_names_the_cure_when_memory_runs_out():
    sim = Simulation(2, mjbatch_cfg(), load(CROWD.format(memory="20K")))
    with pytest.raises(RuntimeError, match="(?s)out of memory.*raise <size memory"):
        sim.step()


@pytest.mark.parametrize("setting, kind", [("nconmax", 1), ("njmax", 2)])
def test_warp_reports_an_overflow_once_and_names_the_setting(setting, kind, caplog, capfd):
    model = load(RICH)
    model.body_pos[2, 2] = model.qpos0[2] = 0.5  # the box starts in the air
    sizes = {"nconmax": 8, "njmax": 64, setting: 2}
    sim = Simulation(2, SimulationCfg(engine="warp", **sizes), model)
    sim.step()
    assert sim.health().tolist() == [0] * 5
    sim.data.qpos[:, 2] = 0.09
    for _ in range(3):
        sim.step()
        counts = sim.health().tolist()
        assert [i for i, count in enumerate(counts) if count] == [kind]
        sim.report_health(counts)
    (message,) = warnings_in(caplog)
    assert f"Raise SimulationCfg.{setting}: it is 2 now." in message
    assert "overflow" not in capfd.readouterr().out


def test_warp_says_at_once_when_the_initial_state_does_not_fit():
    with pytest.raises(ValueError, match="Raise SimulationCfg.nconmax .now 1. or .njmax .now 99."):
        cfg = SimulationCfg(engine="warp", nconmax=1, njmax=99)
        Simulation(1, cfg, load(CROWD.format(memory="1M")))


@pytest.mark.parametrize(
    "options, feature",
    [({"solver": "pgs"}, "mjSOL_PGS"), ({"disableflags": ("midphase",)}, "mjDSBL_MIDPHASE")],
)
def test_unsupported_features_of_warp_are_named_with_the_alternative(options, feature):
    cfg = SimulationCfg(engine="warp", mujoco=MujocoCfg(**options))
    with pytest.raises(ValueError, match=f"'warp' cannot simulate.*{feature}.*engine='mjbatch'"):
        Simulation(1, cfg, load(CARTPOLE))


def test_field_that_warp_shares_cannot_be_expanded():
    sim = Simulation(2, SimulationCfg(engine="warp"), load(RICH))
    with pytest.raises(ValueError, match="'site_size' cannot have a value per world on.*'warp'"):
        sim.expand_model_fields(["site_size"])
