"""Small helpers of training runs: GPUs, checkpoints, YAML, tags, torch's backends."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest
import torch

from mjlab_rec.utils.extras import MissingExtraError
from mjlab_rec.utils.gpu import select_gpus
from mjlab_rec.utils.os import dump_yaml, get_checkpoint_path, get_wandb_checkpoint_path
from mjlab_rec.utils.torch import configure_torch_backends
from mjlab_rec.utils.wandb import add_wandb_tags


@pytest.mark.parametrize(
    ("visible", "wanted", "found"),
    [
        ("0,1,2,3", [0, 1], [0, 1]),
        ("1,3,5", [2, 0], [5, 1]),
        (" 2 ,, 4", "all", [2, 4]),
        ("MIG-a,MIG-b", [1], ["MIG-b"]),
        ("", [0], None),
        ("0,1", None, None),
    ],
)
def test_gpus_are_chosen_among_the_visible_ones(monkeypatch, visible, wanted, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert select_gpus(wanted) == (found, len(found or ()))


def test_all_gpus_are_visible_if_nothing_says_otherwise(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert select_gpus("all") == ([0, 1, 2], 3)
    with pytest.raises(IndexError, match=r"gpu_ids \[3\] are out of range: 3 GPUs are visible"):
        select_gpus([0, 3])


def run_folder(parent: Path, name: str, *files: str) -> Path:
    (parent / name).mkdir()
    for file in files:
        (parent / name / file).touch()
    return parent / name


def test_the_last_checkpoint_of_the_last_run_is_found(tmp_path):
    run_folder(tmp_path, "2024-01-02_b", "model_50.pt")
    first = run_folder(tmp_path, "2024-01-01_a", "model_90.pt", "model_200.pt", "events.log")
    last = run_folder(tmp_path, "2024-01-03_c", "model_90.pt", "model_1000.pt", "model_200.pt")
    run_folder(tmp_path, "wandb_checkpoints", "model_9999.pt")
    assert get_checkpoint_path(tmp_path, checkpoint=r"model_.*\.pt") == last / "model_1000.pt"
    assert get_checkpoint_path(tmp_path, ".*_a", "model_9.*") == first / "model_90.pt"
    os.utime(first, (4e9, 4e9))
    newest = get_checkpoint_path(tmp_path, checkpoint="model", sort_alpha=False)
    assert newest == first / "model_200.pt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run_dir": "other"}, "No run in .* matches 'other'. Runs there: one."),
        ({"checkpoint": "policy"}, "No file in .* matches 'policy'. Files there: model_1.pt."),
    ],
)
def test_what_is_not_there_is_an_error_that_lists_what_is(tmp_path, arguments, message):
    run_folder(tmp_path, "one", "model_1.pt")
    with pytest.raises(ValueError, match=message):
        get_checkpoint_path(tmp_path, **arguments)
    with pytest.raises(ValueError, match="does not exist"):
        get_checkpoint_path(tmp_path / "nowhere")


def test_yaml_files_get_a_suffix_and_a_folder(tmp_path):
    yaml = pytest.importorskip("yaml")
    data = {"b": 1, "a": {"x": [1.5, None]}}
    dump_yaml(tmp_path / "params" / "env", data)
    text = (tmp_path / "params" / "env.yaml").read_text()
    assert yaml.safe_load(text) == data and text.startswith("b:")
    dump_yaml(tmp_path / "sorted.yml", data, sort_keys=True)
    assert (tmp_path / "sorted.yml").read_text().startswith("a:")


class Service:
    """Weights & Biases with one run, on this disk."""

    def __init__(self) -> None:
        self.downloads: list[str] = []
        self.run = None

    def Api(self):  # noqa: N802
        names = ["model_9.pt", "model_100.pt", "model_best.pt"]
        return types.SimpleNamespace(
            run=lambda path: types.SimpleNamespace(
                files=lambda pattern: [types.SimpleNamespace(name=name) for name in names],
                file=lambda name: types.SimpleNamespace(
                    download=lambda folder, replace: self.download(Path(folder) / name)
                ),
            )
        )

    def download(self, path: Path) -> None:
        self.downloads.append(path.name)
        path.touch()


def test_checkpoints_are_downloaded_once(tmp_path, monkeypatch):
    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    expected = tmp_path / "wandb_checkpoints" / "run" / "model_100.pt"
    assert get_wandb_checkpoint_path(tmp_path, "me/project/run") == (expected, False)
    assert get_wandb_checkpoint_path(tmp_path, "me/project/run") == (expected, True)
    assert get_wandb_checkpoint_path(tmp_path, "me/project/run", "model_9.pt")[0].exists()
    assert service.downloads == ["model_100.pt", "model_9.pt"]
    with pytest.raises(ValueError, match="no 'model_8.pt'.*model_9.pt"):
        get_wandb_checkpoint_path(tmp_path, "me/project/run", "model_8.pt")


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match="needs the package 'wandb': pip install wandb"):
        get_wandb_checkpoint_path(tmp_path, "me/project/run")


def test_tags_are_added_to_the_run_or_kept_for_it(monkeypatch):
    service = types.ModuleType("wandb")
    service.__spec__ = types.SimpleNamespace(name="wandb")  # type: ignore[assignment]
    service.run = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", service)
    monkeypatch.setenv("WANDB_TAGS", "b")
    add_wandb_tags(["a", "b"])
    assert os.environ["WANDB_TAGS"] == "a,b"
    service.run = types.SimpleNamespace(tags=("x",))  # type: ignore[attr-defined]
    add_wandb_tags(["x", "y"])
    assert service.run.tags == ("x", "y")  # type: ignore[attr-defined]
    add_wandb_tags([])


def test_backends_follow_the_settings(monkeypatch):
    cudnn = torch.backends.cudnn
    for name in ("benchmark", "deterministic"):
        monkeypatch.setattr(cudnn, name, getattr(cudnn, name))
    before = torch.backends.cuda.matmul.fp32_precision, cudnn.fp32_precision
    try:
        configure_torch_backends(allow_tf32=False, deterministic=True)
        assert torch.backends.cuda.matmul.fp32_precision == cudnn.fp32_precision == "ieee"
        assert cudnn.deterministic and not cudnn.benchmark
        configure_torch_backends()
        assert torch.backends.cuda.matmul.fp32_precision == cudnn.fp32_precision == "tf32"
        assert cudnn.benchmark and not cudnn.deterministic
    finally:
        torch.backends.cuda.matmul.fp32_precision, cudnn.fp32_precision = before
