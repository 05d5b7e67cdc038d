"""Optional packages are loaded where they are used, and named where they are missing."""

from __future__ import annotations

import sys

import pytest

from mjlab_rec.utils.extras import MissingExtraError, require


def test_installed_packages_are_imported():
    assert require("json.decoder", "video", "A test").JSONDecoder


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(MissingExtraError) as caught:
        require("imageio_ffmpeg", "video", "VideoRecorder")
    assert str(caught.value) == (
        "VideoRecorder needs the package 'imageio_ffmpeg': pip install 'mjlab_rec[video]'"
    )


def test_a_package_with_a_missing_dependency_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere") as caught:
        require("broken_package", "video", "A test")
    assert not isinstance(caught.value, MissingExtraError)
