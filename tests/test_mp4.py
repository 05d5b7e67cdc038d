"""Mp4 files: every picture once, at the right speed; and failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from colour_world import HEIGHT, WIDTH, decode, read
from waiting import PATIENCE_S

from mjlab_rec.data import DataError, mp4
from mjlab_rec.data.mp4 import Mp4Writer, find_ffmpeg, frame_rate
from mjlab_rec.utils.extras import MissingExtraError

ROOT = Path(__file__).parent.parent


def picture(number: int) -> np.ndarray:
    """A picture that encodes its number."""
    cells = (number >> np.arange(16) & 1).reshape(4, 4).astype(np.uint8) * 255
    bright = np.kron(cells, np.ones((HEIGHT // 4, WIDTH // 4), np.uint8))
    return np.repeat(bright[..., None], 3, axis=2)


def write(path: Path, count: int, ffmpeg: str, rate: Fraction = Fraction(50), **options) -> Path:
    writer = Mp4Writer(path, WIDTH, HEIGHT, rate, ffmpeg, **options)
    for number in range(count):
        writer.write(picture(number))
    writer.close()
    return writer.path


def numbers(path: Path, ffmpeg: str) -> list[int]:
    return [code + (episode << 8) for _, episode, code in map(read, decode(path, ffmpeg).images)]


@pytest.mark.parametrize("length", range(1, 41))
def test_every_picture_is_in_the_file_once_and_in_order(tmp_path, ffmpeg, length):
    rates = [Fraction(50), Fraction(200, 3), Fraction(30000, 1001)]
    rate = rates[length % 3]
    video = decode(write(tmp_path / "a.mp4", length, ffmpeg, rate), ffmpeg)
    assert [step for _, _, step in map(read, video.images)] == list(range(length))
    assert video.rate == rate
    assert video.seconds == pytest.approx(length / rate, abs=0.011)


@pytest.mark.parametrize("rate", [1, 7, 25, 60, 1000, Fraction(100, 3), Fraction(10000, 123)])
@pytest.mark.parametrize("length", [1, 2, 3, 8, 29, 40])
def test_frame_rates_are_exact_for_many_durations(tmp_path, ffmpeg, rate, length):
    video = decode(write(tmp_path / "a.mp4", length, ffmpeg, Fraction(rate)), ffmpeg)
    assert (len(video.images), video.rate) == (length, rate)


def test_long_files_keep_every_picture(tmp_path, ffmpeg):
    path = write(tmp_path / "a.mp4", 700, ffmpeg)  # More than two of the encoder's key frames.
    assert numbers(path, ffmpeg) == list(range(700))


@pytest.mark.parametrize(
    ("frame_s", "speed", "rate"),
    [
        (0.02, 1.0, 50),
        (0.005 * 4, 1.0, 50),
        (0.015, 1.0, Fraction(200, 3)),
        (1 / 60, 1.0, 60),
        (0.0123, 1.0, Fraction(10000, 123)),
        (0.02, 0.5, 25),
        (0.02, 3.0, 150),
        (0.002, 0.1, 50),
    ],
)
def test_frame_rate_is_the_decimal_fraction(frame_s, speed, rate):
    assert frame_rate(frame_s, speed) == rate


@pytest.mark.parametrize(("width", "height"), [(63, 48), (64, 47), (33, 31), (2, 2)])
def test_odd_sizes_get_a_black_edge_and_are_not_resized(tmp_path, ffmpeg, width, height):
    image = np.full((height, width, 3), 200, np.uint8)
    image[:, : width // 2] = 50
    writer = Mp4Writer(tmp_path / "a.mp4", width, height, Fraction(50), ffmpeg, crf=0)
    writer.write(image)
    writer.close()
    (shown,) = decode(writer.path, ffmpeg).images
    assert shown.shape == (height + height % 2, width + width % 2, 3)
    if width > 2:  # Colours are stored for two columns at once; these are grey.
        np.testing.assert_allclose(shown[:height, :width].astype(int), image, atol=6)
        assert (shown[height:] < 20).all() and (shown[:, width:] < 20).all()


def test_colours_come_back(tmp_path, ffmpeg):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 128, 0), (255, 255, 255), (0, 0, 0)]
    for i, colour in enumerate(colours):
        writer = Mp4Writer(tmp_path / f"{i}.mp4", 64, 48, Fraction(50), ffmpeg)
        writer.write(np.full((48, 64, 3), colour, np.uint8))
        writer.close()
        (shown,) = decode(writer.path, ffmpeg).images
        np.testing.assert_allclose(shown[24, 32].astype(int), colour, atol=8)


def test_a_view_of_another_array_is_written_correctly(tmp_path, ffmpeg):
    writer = Mp4Writer(tmp_path / "a.mp4", WIDTH, HEIGHT, Fraction(50), ffmpeg)
    writer.write(np.stack([picture(9)[::-1, ::-1]] * 3)[1, ::-1, ::-1])
    writer.close()
    assert numbers(writer.path, ffmpeg) == [9]


def test_a_partial_write_to_the_pipe_is_continued(tmp_path, ffmpeg):
    class Narrow:
        """A pipe whose writes are interrupted by signals."""

        def __init__(self, pipe):
            self._pipe = pipe

        def __getattr__(self, name):
            return getattr(self._pipe, name)

        def write(self, data):
            return self._pipe.write(data[:1000])

    writer = Mp4Writer(tmp_path / "a.mp4", WIDTH, HEIGHT, Fraction(50), ffmpeg)
    writer._pipe = Narrow(writer._pipe)
    for number in range(3):
        writer.write(picture(number))
    writer.close()
    assert numbers(writer.path, ffmpeg) == [0, 1, 2]


def test_pictures_of_another_size_are_refused(tmp_path, ffmpeg):
    writer = Mp4Writer(tmp_path / "a.mp4", WIDTH, HEIGHT, Fraction(50), ffmpeg)
    for wrong in (picture(0)[:-1], picture(0).astype(float), picture(0)[..., 0]):
        with pytest.raises(DataError, match=r"shape \(48, 64, 3\) and dtype uint8"):
            writer.write(wrong)
    writer.write(picture(1))
    writer.close()
    writer.close()
    assert numbers(writer.path, ffmpeg) == [1]


def test_existing_files_are_kept_unless_if_exists_says_otherwise(tmp_path, ffmpeg):
    path = write(tmp_path / "new" / "a.mp4", 3, ffmpeg)
    with pytest.raises(DataError, match="already exists"):
        write(path, 1, ffmpeg)
    second = write(path, 5, ffmpeg, if_exists="number")
    assert second.name == "a_1.mp4"
    assert (len(numbers(path, ffmpeg)), len(numbers(second, ffmpeg))) == (3, 5)
    write(path, 7, ffmpeg, if_exists="overwrite")
    assert len(numbers(path, ffmpeg)) == 7
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.mp4", "a_1.mp4"]


def test_a_file_being_written_is_locked(tmp_path, ffmpeg):
    writer = Mp4Writer(tmp_path / "a.mp4", WIDTH, HEIGHT, Fraction(50), ffmpeg)
    with pytest.raises(DataError, match="is being written"):
        write(tmp_path / "a.mp4", 1, ffmpeg, if_exists="overwrite")
    writer.write(picture(0))
    writer.close()
    assert numbers(writer.path, ffmpeg) == [0]


@pytest.mark.parametrize("name", ["a b.mp4", "a:b.mp4", "-y.mp4", "%d.mp4", "ü'\".mp4"])
def test_unusual_file_names_work(tmp_path, ffmpeg, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert numbers(write(Path(name), 2, ffmpeg), ffmpeg) == [0, 1]
    assert [p.name for p in tmp_path.iterdir()] == [name]


def script(tmp_path: Path, text: str) -> str:
    """A fake ffmpeg program."""
    path = tmp_path / "fake"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo oh; echo no >&2; echo 'disk full' >&2; exit 3", "code 3 .*: no / disk full"),
        ("exec 0<&-; sleep 0.1; echo late >&2; exit 2", "code 2 .*: late"),
        ("cat > /dev/null; echo 'at the end' >&2; exit 1", "after 40 pictures: at the end"),
        ("yes 'a long message' | head -n 100000 >&2; exit 1", "a long message / a long message"),
        ("kill -KILL $$", "was ended by SIGKILL .*gave no reason"),
    ],
)
def test_a_failing_encoder_is_one_clear_error(tmp_path, text, message):
    with pytest.raises(DataError, match=rf"Cannot write '.*a.mp4': ffmpeg .*{message}"):
        write(tmp_path / "a.mp4", 40, script(tmp_path, text))
    assert not (tmp_path / ".a.mp4.lock").exists()


def test_a_real_encoder_that_cannot_write_says_so(tmp_path, ffmpeg, monkeypatch):
    command = mp4._command
    monkeypatch.setattr(
        mp4, "_command", lambda *args: [w.replace("libx264", "libx999") for w in command(*args)]
    )
    with pytest.raises(DataError, match="ffmpeg ended with code .*Unknown encoder 'libx999'"):
        write(tmp_path / "a.mp4", 40, ffmpeg)


def test_a_full_disk_is_reported(tmp_path, ffmpeg):
    code = f"""
        import resource, sys
        sys.dont_write_bytecode = True  # Python would leave cut files in __pycache__.
        from test_mp4 import *
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        noise = np.random.default_rng(0).integers(0, 255, (200, 48, 64, 3)).astype(np.uint8)
        writer = Mp4Writer({str(tmp_path / "a.mp4")!r}, 64, 48, Fraction(50), {ffmpeg!r})
        try:
            for image in noise:
                writer.write(image)
            writer.close()
        except DataError as error:
            print("said:", error)
    """
    assert "said: Cannot write" in run(code).stdout


def run(code: str) -> subprocess.CompletedProcess:
    """Run a script with the tests' modules."""
    places = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_a_missing_program_is_reported(tmp_path):
    with pytest.raises(DataError, match="Cannot start ffmpeg, '/no/such': No such file"):
        Mp4Writer(tmp_path / "a.mp4", 64, 48, Fraction(50), "/no/such")
    assert not any(tmp_path.iterdir())


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(MissingExtraError, match=r"^VideoRecorder needs .*mjlab_rec\[video\]'$"):
        find_ffmpeg("VideoRecorder")


def test_a_kill_leaves_a_file_with_all_pictures_written(tmp_path, ffmpeg):
    ran = run(f"""
        from test_mp4 import *
        writer = Mp4Writer({str(tmp_path / "a.mp4")!r}, WIDTH, HEIGHT, Fraction(50), {ffmpeg!r})
        for number in range(60):
            writer.write(picture(number))
        writer._pipe.write(picture(60)[:10].tobytes())  # Killed in the middle of a picture.
        print(writer._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    wait_for_end(int(ran.stdout))
    assert numbers(tmp_path / "a.mp4", ffmpeg) == list(range(60))


def test_a_kill_of_the_encoder_leaves_a_playable_file(tmp_path, ffmpeg):
    if not mp4._writes_fragments(ffmpeg):
        pytest.skip("needs ffmpeg 7.1")
    writer = Mp4Writer(tmp_path / "a.mp4", WIDTH, HEIGHT, Fraction(50), ffmpeg)
    for number in range(300):
        writer.write(picture(number))
    while writer.nbytes < 5000:  # Until it has written several seconds.
        writer.write(picture(300))
    writer._process.kill()
    with pytest.raises(DataError, match="was ended by SIGKILL"):
        writer.close()
    shown = numbers(writer.path, ffmpeg)
    assert shown[:100] == list(range(100))
    assert shown == sorted(shown)  # Some of the last ones may be missing.


@pytest.mark.parametrize(
    ("said", "new"),
    [
        ("ffmpeg version 7.0.2-static https://", False),
        ("ffmpeg version 5.1.6-0+deb12u1", False),
        ("ffmpeg version n7.1-3-g12", True),
        ("ffmpeg version 10.0", True),
        ("ffmpeg version N-118 git", False),
    ],
)
def test_old_encoders_get_no_unknown_options(tmp_path, said, new):
    program = script(tmp_path, f"echo '{said}'")
    assert mp4._writes_fragments(program) == new
    command = mp4._command(program, Path("a.mp4"), 2, 2, Fraction(1), 23)
    assert any("hybrid" in word for word in command) == new


def wait_for_end(pid: int) -> None:
    """Wait until a process that is not our child ends."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    ended, _, _ = select.select([descriptor], [], [], PATIENCE_S)
    os.close(descriptor)
    assert ended, "the encoder is still there"


def test_a_ctrl_c_does_not_reach_the_encoder(tmp_path, ffmpeg):
    ran = run(f"""
        from test_mp4 import *
        os.setpgrp()  # As if from a terminal, but without the test in the group.
        writer = Mp4Writer({str(tmp_path / "a.mp4")!r}, WIDTH, HEIGHT, Fraction(50), {ffmpeg!r})
        signal.signal(signal.SIGINT, lambda *_: None)
        for number in range(40):
            writer.write(picture(number))
            if number == 20:
                os.killpg(0, signal.SIGINT)
        writer.close()
    """)
    assert ran.returncode == 0, ran.stderr
    assert numbers(tmp_path / "a.mp4", ffmpeg) == list(range(40))


def test_a_forked_child_does_not_keep_the_file_from_being_finished(tmp_path, ffmpeg):
    ran = run(f"""
        import gc
        from test_mp4 import *
        writer = Mp4Writer({str(tmp_path / "a.mp4")!r}, WIDTH, HEIGHT, Fraction(50), {ffmpeg!r})
        writer.write(picture(0))
        hold, release = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(release)
            os.read(hold, 1)  # Runs until the parent ends it.
            os._exit(0)
        writer.write(picture(1))
        writer.close()
        os.close(release)
        assert os.waitpid(child, 0)[1] == 0
        print("done")
    """)
    assert ran.stdout.strip() == "done", ran.stderr
    assert numbers(tmp_path / "a.mp4", ffmpeg) == [0, 1]
