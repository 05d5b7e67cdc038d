"""Text in pictures: legible, in its corner, and never outside the picture."""

from __future__ import annotations

import numpy as np
import pytest

from mjlab_rec.utils import bitmap_text
from mjlab_rec.utils.bitmap_text import draw_label, draw_text

PRINTABLE = "".join(map(chr, range(32, 127)))


def picture(height: int, width: int, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def lit(image: np.ndarray) -> np.ndarray:
    """Which pixels belong to letters."""
    return (image == 255).all(axis=-1)


def cells(text: str) -> np.ndarray:
    """A line of text as drawn at scale 1 into a large enough picture: 8 rows."""
    image = draw_text(picture(20, 6 * len(text) + 10), [text], scale=1)
    return lit(image)[2:10, 2:]


def test_a_letter_looks_like_itself():
    rows = ["".join("#" if cell else "." for cell in row[:5]) for row in cells("F")]
    assert rows == ["#####", "#....", "#....", "####.", "#....", "#....", "#....", "....."]


def test_every_printable_character_has_a_different_shape():
    shapes = {character: cells(character).tobytes() for character in PRINTABLE}
    assert len(set(shapes.values())) == len(PRINTABLE)
    assert not cells(" ").any()
    assert all(cells(character).any() for character in PRINTABLE if character != " ")


def test_characters_beyond_ascii_become_a_box():
    box = cells("\x7f")
    assert box.any()
    for character in "µ°\n\t\x00é😀":
        np.testing.assert_array_equal(cells(character), box)
    assert box.tobytes() not in {cells(character).tobytes() for character in PRINTABLE}


def test_letters_stand_side_by_side_with_a_gap():
    both = cells("HI")
    np.testing.assert_array_equal(both[:, :5], cells("H")[:, :5])
    np.testing.assert_array_equal(both[:, 6:11], cells("I")[:, :5])
    assert not both[:, 5].any()


def test_lines_stand_below_each_other():
    image = draw_text(picture(40, 40), ["A", "", "B"], scale=1)
    np.testing.assert_array_equal(lit(image)[2:10, 2:7], cells("A")[:, :5])
    np.testing.assert_array_equal(lit(image)[20:28, 2:7], cells("B")[:, :5])
    assert not lit(image)[10:20].any()
    np.testing.assert_array_equal(draw_text(picture(40, 40), "A\n\nB", scale=1), image)


def test_scale_multiplies_the_size_of_letters():
    small, large = (
        lit(draw_text(picture(100, 100), ["Rg"], scale=scale))[2 * scale :, 2 * scale :]
        for scale in (1, 3)
    )
    np.testing.assert_array_equal(large[:24, :36], small[:8, :12].repeat(3, 0).repeat(3, 1))


@pytest.mark.parametrize(("height", "scale"), [(84, 1), (240, 1), (480, 2), (720, 3), (1080, 4)])
def test_scale_fits_the_height_of_the_picture(height, scale):
    fitted = draw_text(picture(height, 300), ["step 12"])
    np.testing.assert_array_equal(fitted, draw_text(picture(height, 300), ["step 12"], scale=scale))


LONG = ["step 1234", "time 24.68 s", "return -1.235e+04", "twist " + "-0.25 " * 12, "a" * 90]


def covered(image: np.ndarray) -> float:
    """Share of a picture of 128 that text and its box cover."""
    return (image != 128).any(axis=-1).mean()


@pytest.mark.parametrize("height", [120, 240, 360, 480, 720, 1080, 2160])
@pytest.mark.parametrize("shape", [4 / 3, 16 / 9, 1 / 2])
def test_text_is_as_large_as_it_should_be_and_covers_a_fifth_at_most(height, shape):
    width = round(height * shape)
    rows = lit(draw_text(picture(height, width), ["W"])).any(axis=1).sum()  # 7 cells high
    assert rows >= 7 and 1 / 45 < rows / height < 1 / 16
    for lines in (["W"], LONG[:3], LONG, LONG * 4):
        assert covered(draw_text(picture(height, width), lines)) <= 0.2
    if shape > 1:
        few = draw_text(picture(height, width), LONG[:2])
        scale = rows // 7
        np.testing.assert_array_equal(
            few, draw_text(picture(height, width), LONG[:2], scale=scale), "nothing is cut"
        )


def test_long_lines_are_cut_between_values_and_the_last_lines_left_out():
    image = draw_text(picture(240, 320), ["twist -0.25 1.75 12.345 -0.55 0.15 " + "9.99 " * 30])
    whole = draw_text(picture(240, 320), "twist -0.25 1.75 12.345 -0.55 0.15 9.99 9.99 9.99...")
    assert covered(whole) < 0.2
    np.testing.assert_array_equal(image, whole)
    many = [f"a longer line {n}" for n in range(20)]
    smaller = draw_text(picture(480, 640), many)
    np.testing.assert_array_equal(smaller, draw_text(picture(480, 640), many, scale=1))
    many = [f"line {n}" for n in range(40)]
    image = draw_text(picture(120, 160), many)
    fitting = [
        n for n in range(1, 40) if (image == draw_text(picture(120, 160), many[:n], scale=1)).all()
    ]
    assert len(fitting) == 1 and 5 <= fitting[0] <= 12


@pytest.mark.parametrize(("height", "scale"), [(60, 1), (240, 1), (480, 2), (1080, 4)])
def test_label_is_in_the_lower_right_corner(height, scale):
    image = picture(height, 200)
    draw_label(image, "42")
    high, wide = 12 * scale, 15 * scale
    corner = image[-high:, -wide:]
    np.testing.assert_array_equal(corner, draw_text(picture(high, wide), "42", scale=scale))
    corner[:] = 128
    assert (image == 128).all()


@pytest.mark.parametrize(("height", "width"), [(48, 64), (100, 12)])
def test_label_that_would_cover_too_much_is_left_out(height, width):
    image = picture(height, width)
    draw_label(image, "12")
    assert (image == 128).all()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_text_stands_out_from_any_picture(value):
    image = draw_text(picture(30, 30, value), ["X"], scale=1)
    around = image[:12, :9][~lit(image)[:12, :9]]
    assert around.max() <= 85 < 255
    assert lit(image)[2:10, 2:7].sum() == cells("X").sum()


def test_the_rest_of_the_picture_stays():
    image = draw_text(picture(60, 60), ["ab", "c"], scale=1)
    assert (image[21:] == 128).all() and (image[:, 16:] == 128).all()
    assert (image[:21, :16] != 128).all()


@pytest.mark.parametrize("size", [(5, 5), (1, 1), (10, 200), (200, 10)])
def test_text_that_does_not_fit_is_cut_off(size):
    large = draw_text(picture(300, 900), ["a long line of text", "and more"] * 4, scale=2)
    small = draw_text(picture(*size), ["a long line of text", "and more"] * 4, scale=2)
    np.testing.assert_array_equal(small, large[: size[0], : size[1]])


def test_grey_pictures_and_views_are_written_into():
    grey = draw_text(np.zeros((20, 20), dtype=np.uint8), ["E"], scale=1)
    np.testing.assert_array_equal(grey[2:10, 2:7] == 255, cells("E")[:, :5])
    upside_down = picture(20, 20)
    view = upside_down[::-1]
    assert draw_text(view, ["E"], scale=1) is view
    assert lit(upside_down[::-1])[2:10, 2:7].any()


@pytest.mark.parametrize("lines", [[], ""])
def test_no_lines_leave_the_picture_as_it_is(lines):
    assert (draw_text(picture(9, 9), lines) == 128).all()


def test_letters_are_made_once():
    bitmap_text._glyph.cache_clear()
    for _ in range(5):
        draw_text(picture(40, 40), ["aaab"], scale=1)
    assert bitmap_text._glyph.cache_info().misses == 2
