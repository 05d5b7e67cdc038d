"""What must be the same in all workers and restarts is compared by content: agents, functions."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from collect_tasks import a_plan

from mjlab_rec.collecting.agent_files import AgentFiles
from mjlab_rec.collecting.plan import PlanError
from mjlab_rec.collecting.sources import source_hashes
from mjlab_rec.commands import collect as command
from mjlab_rec.rl.policies import policy_maker

SIZE = {"episodes": 2, "num_envs": 1, "per_env": 1}


class Theirs:
    """Functions in modules of the user, whose source can be changed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch
        monkeypatch.syspath_prepend(folder)

    def write(self, module: str, source: str) -> Any:
        """As at the next start."""
        (self._folder / f"{module}.py").write_text(source)
        self._monkeypatch.delitem(sys.modules, module, raising=False)
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            return policy_maker(f"{module}:made")
        finally:
            sys.dont_write_bytecode = before


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Theirs:
    return Theirs(tmp_path, monkeypatch)


def test_the_files_of_all_functions_of_a_cfg_are_hashed(theirs):
    made = theirs.write("rewards_of_mine", "def made(env): return 1")
    cfgs = [
        {"rewards": {"a": SimpleNamespace()}, "made": made},
        {"partial": functools.partial(max, made)},
        [(made, 3)],
    ]
    first = [source_hashes(cfg)["rewards_of_mine"] for cfg in cfgs]
    assert len(set(first)) == 1
    assert set(source_hashes(cfgs)) == {"rewards_of_mine"}  # Neither builtins nor packages.
    made = theirs.write("rewards_of_mine", "def made(env): return 2")
    assert source_hashes(made)["rewards_of_mine"] != first[0]


def test_objects_and_methods_are_found_by_their_class(theirs):
    source = "class A:\n  def __call__(self, env): return env\n  def b(self): pass\nmade = A()"
    made = theirs.write("objects_of_mine", source)
    assert set(source_hashes(made)) == set(source_hashes(made.b)) == {"objects_of_mine"}


def test_a_function_whose_file_changed_is_refused_by_its_module():
    before = a_plan(**SIZE, sources={"my.rewards": "1", "my.events": "2"})
    after = a_plan(**SIZE, sources={"my.rewards": "1", "my.events": "3"})
    with pytest.raises(PlanError, match=r"The file of the module my\.events, .* has changed"):
        after.check_same(before, "x")


def test_the_source_of_the_task_is_in_the_plan():
    plan = command.work_from(
        "--task collect-me --task-module collect_tasks --agent zero --record hdf5 --record.path x"
        " --device cpu".split()
    ).plan
    assert {"collect_tasks", "tasks.cartpole.mdp"} <= set(plan.sources)
    assert not any(module.startswith("mjlab_rec") for module in plan.sources)


def test_an_agent_is_known_by_its_content(tmp_path, theirs):
    def hash_of(name: str, path: Path | None = None) -> str:
        maker = None if path else policy_maker(name)
        return AgentFiles.read(name, maker, path).hash

    hashes = [hash_of("zero"), hash_of("random")]
    for source in ("def made(env): return 1", "def made(env): return 2", "made = [].append"):
        theirs.write("agents_of_mine", source)
        hashes.append(hash_of("agents_of_mine:made"))
    for content in (b"1", b"2"):
        (tmp_path / "model.pt").write_bytes(content)
        hashes.append(hash_of("", tmp_path / "model.pt"))
    assert len(set(hashes)) == len(hashes)
    (tmp_path / "copy.pt").write_bytes(b"2")
    assert hash_of("", tmp_path / "copy.pt") == hashes[-1]


def test_another_agent_is_refused_by_its_name():
    before = a_plan(**SIZE, agent="run/model_1.pt", policy_hash="1")
    with pytest.raises(PlanError, match=r"another agent: run/model_1\.pt there, best now"):
        a_plan(**SIZE, agent="best", policy_hash="2").check_same(before, "x")
    with pytest.raises(PlanError, match=r"content of the agent run/model_1\.pt has changed"):
        a_plan(**SIZE, agent="run/model_1.pt", policy_hash="2").check_same(before, "x")
    a_plan(**SIZE, agent="best", policy_hash="1").check_same(before, "x")


def test_an_agent_stays_as_it_was_read(tmp_path):
    """Such as model_best.pt, which a training may replace meanwhile."""
    path = tmp_path / "model_best.pt"
    path.write_bytes(b"1")
    (tmp_path / "agent.json").write_bytes(b"{}")
    agent = AgentFiles.read("best", None, path)
    path.write_bytes(b"2")
    with agent.unpacked() as copy:
        assert Path(copy).name == "model_best.pt" and Path(copy).read_bytes() == b"1"
        assert (Path(copy).parent / "agent.json").read_bytes() == b"{}"
    assert not Path(copy).exists() and agent.name == str(path)
    with AgentFiles.read("zero", policy_maker("zero"), None).unpacked() as name:
        assert name == "zero"


def test_the_weights_next_to_an_onnx_file_belong_to_it(tmp_path):
    path = tmp_path / "a.onnx"
    for name in ("a.onnx", "a.onnx.data", "a.onnx_data", "b.onnx.data"):
        (tmp_path / name).write_bytes(name.encode())
    first = AgentFiles.read("", None, path)
    with first.unpacked() as copy:
        names = sorted(file.name for file in Path(copy).parent.iterdir())
        assert names == ["a.onnx", "a.onnx.data", "a.onnx_data"]
    (tmp_path / "a.onnx.data").write_bytes(b"other")
    assert AgentFiles.read("", None, path).hash != first.hash


def test_a_moving_agent_is_not_resolved_again_by_processes(tmp_path, monkeypatch):
    """The plan of a process is compared with that of the first one."""
    words = "--task cartpole-balance --record hdf5 --record.path x --device cpu --agent latest"
    given: list[str] = []

    def work_from(words: Any, place: Any, agent: str) -> Any:
        given.append(agent)
        return SimpleNamespace(plan=a_plan(**SIZE, policy_hash="2"))

    monkeypatch.setattr(command, "work_from", work_from)
    from mjlab_rec.collecting.ranks import Place

    planned = a_plan(**SIZE, policy_hash="1")
    with pytest.raises(PlanError, match="has changed since 'x' was begun"):
        command._of_process(words.split(), Place(), 2, "/tmp/model_1.pt", planned, "x", 1)
    assert given == ["/tmp/model_1.pt"]
