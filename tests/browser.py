"""A real browser for tests of web pages: Debian's Chromium, headless, driven by playwright."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import PATIENCE_S

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    # WebGL without a graphics card.
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The browser, started once."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"needs {CHROMIUM} (apt install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Opens a page by its address. Errors in the page's scripts fail the test."""
    if not os.environ.get("MJLAB_REC_SCREENSHOTS"):
        fewer_lights(monkeypatch)
    errors: list[str] = []
    # Small and coarse, because a processor draws it, except where the pictures are wanted; without
    # animations, because they change screenshots.
    context = browser.new_context(
        viewport={"width": 960, "height": 700},
        device_scale_factor=1.0 if os.environ.get("MJLAB_REC_SCREENSHOTS") else 0.5,
        reduced_motion="reduce",
    )
    context.set_default_timeout(1000.0 * PATIENCE_S)

    def visit(url: str) -> Any:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield visit
    context.close()
    assert not errors


def fewer_lights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 3D views do without shadows and a lit sky, which are most of the work to draw them."""
    with contextlib.suppress(ImportError):
        from viser import SceneApi

        sky, lights = SceneApi.configure_environment_map, SceneApi.configure_default_lights

        def plain(scene: SceneApi, *args: Any, **options: Any) -> None:
            sky(scene, hdri=None)
            lights(scene, cast_shadow=False)

        monkeypatch.setattr(SceneApi, "configure_environment_map", plain)


@pytest.fixture
def screenshot(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Takes a picture of a page or of a part of it, keeps it as a PNG, and returns its pixels.

    It lies in the test's own folder, and also in the one that MJLAB_REC_SCREENSHOTS names.
    """

    def screenshot(page: Any, name: str, **options: Any) -> np.ndarray:
        path = tmp_path / f"{name}.png"
        page.screenshot(path=path, **options)
        if folder := os.environ.get("MJLAB_REC_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
        return read_png(path)

    return screenshot


@pytest.fixture
def keep_screenshot(screenshot: Any) -> Callable[..., None]:
    """Takes a picture for people to look at, if MJLAB_REC_SCREENSHOTS names a folder for it."""

    def keep_screenshot(page: Any, name: str) -> None:
        if os.environ.get("MJLAB_REC_SCREENSHOTS"):
            screenshot(page, name)

    return keep_screenshot


def read_png(path: Path) -> np.ndarray:
    """The pixels of a PNG file, (height, width, 3)."""
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    with image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))
