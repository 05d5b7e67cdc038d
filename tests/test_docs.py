"""The API reference shows what packages offer, fields included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE_S


def test_page_of_a_package_shows_what_it_imports_for_users(tmp_path: Path) -> None:
    pytest.importorskip("pdoc")
    root = Path(__file__).parent.parent
    command = [sys.executable, "scripts/docs.py", "--folder", str(tmp_path)]
    subprocess.run(
        [*command, "--modules", "mjlab_rec.terrains"], check=True, cwd=root, timeout=PATIENCE_S
    )
    page = (tmp_path / "mjlab_rec/terrains.html").read_text()
    assert "TerrainEntityCfg.terrain_type" in page
    assert (tmp_path / "mjlab_rec/terrains/terrain_entity.html").exists()
