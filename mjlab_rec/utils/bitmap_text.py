"""Text drawn into images with a small built-in font, using only numpy."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

# The printable ASCII characters in order, 16 per row, 5 x 8 cells each; the last one replaces all
# others.
_FONT = """
..... ..#.. .#.#. .#.#. ..#.. ##... .##.. ..#.. ...#. .#... ..... ..... ..... ..... ..... ....#
..... ..#.. .#.#. .#.#. .#### ##..# #..#. ..#.. ..#.. ..#.. ..#.. ..#.. ..... ..... ..... ....#
..... ..#.. .#.#. ##### #.#.. ...#. #.#.. ..#.. .#... ...#. #.#.# ..#.. ..... ..... ..... ...#.
..... ..#.. ..... .#.#. .###. ..#.. .#... ..... .#... ...#. .###. ##### ..... .###. ..... ..#..
..... ..#.. ..... ##### ..#.# .#... #.#.# ..... .#... ...#. #.#.# ..#.. ..... ..... ..... .#...
..... ..... ..... .#.#. ####. #..## #..#. ..... ..#.. ..#.. ..#.. ..#.. ..##. ..... ..##. #....
..... ..#.. ..... .#.#. ..#.. ...## .##.# ..... ...#. .#... ..... ..... ...#. ..... ..##. #....
..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..#.. ..... ..... .....

.###. ..#.. .###. ####. ...#. ##### ..##. ##### .###. .###. ..... ..... ...#. ..... .#... .###.
#...# .##.. #...# ....# ..##. #.... .#... ....# #...# #...# ..##. ..##. ..#.. ..... ..#.. #...#
#..## #.#.. ....# ....# .#.#. ####. #.... ...#. #...# #...# ..##. ..##. .#... ##### ...#. ....#
#.#.# ..#.. ..##. .###. #..#. ....# ####. ...#. .###. .#### ..... ..... #.... ..... ....# ...#.
##..# ..#.. .#... ....# ##### ....# #...# ..#.. #...# ....# ..##. ..... .#... ##### ...#. ..#..
#...# ..#.. #.... ....# ...#. #...# #...# ..#.. #...# ...#. ..##. ..##. ..#.. ..... ..#.. .....
.###. ##### ##### ####. ...#. .###. .###. ..#.. .###. .##.. ..... ...#. ...#. ..... .#... ..#..
..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..#.. ..... ..... ..... .....

.###. .###. ####. .###. ###.. ##### ##### .###. #...# .###. ..### #...# #.... #...# #...# .###.
#...# #...# #...# #...# #..#. #.... #.... #...# #...# ..#.. ...#. #..#. #.... ##.## ##..# #...#
#.### #...# #...# #.... #...# #.... #.... #.... #...# ..#.. ...#. #.#.. #.... #.#.# ##..# #...#
#.#.# ##### ####. #.... #...# ####. ####. #.### ##### ..#.. ...#. ##... #.... #.#.# #.#.# #...#
#.### #...# #...# #.... #...# #.... #.... #...# #...# ..#.. ...#. #.#.. #.... #...# #..## #...#
#.... #...# #...# #...# #..#. #.... #.... #...# #...# ..#.. #..#. #..#. #.... #...# #..## #...#
.#### #...# ####. .###. ###.. ##### #.... .###. #...# .###. .##.. #...# ##### #...# #...# .###.
..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... .....

####. .###. ####. .#### ##### #...# #...# #...# #...# #...# ##### .###. #.... .###. ..#.. .....
#...# #...# #...# #.... ..#.. #...# #...# #...# #...# #...# ....# .#... #.... ...#. .#.#. .....
#...# #...# #...# #.... ..#.. #...# #...# #...# .#.#. .#.#. ...#. .#... .#... ...#. #...# .....
####. #...# ####. .###. ..#.. #...# #...# #.#.# ..#.. ..#.. ..#.. .#... ..#.. ...#. ..... .....
#.... #.#.# #.#.. ....# ..#.. #...# .#.#. #.#.# .#.#. ..#.. .#... .#... ...#. ...#. ..... .....
#.... #..#. #..#. ....# ..#.. #...# .#.#. ##.## #...# ..#.. #.... .#... ....# ...#. ..... .....
#.... .##.# #...# ####. ..#.. .###. ..#.. #...# #...# ..#.. ##### .###. ....# .###. ..... .....
..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... #####

.#... ..... #.... ..... ....# ..... ..##. ..... #.... ..#.. ...#. #.... .##.. ..... ..... .....
..#.. ..... #.... ..... ....# ..... .#... ..... #.... ..... ..... #.... ..#.. ..... ..... .....
...#. .###. ####. .#### .#### .###. ####. .#### ####. .##.. ..##. #..#. ..#.. ##.#. ####. .###.
..... ....# #...# #.... #...# #...# .#... #...# #...# ..#.. ...#. #.#.. ..#.. #.#.# #...# #...#
..... .#### #...# #.... #...# ##### .#... #...# #...# ..#.. ...#. ##... ..#.. #.#.# #...# #...#
..... #...# #...# #.... #...# #.... .#... .#### #...# ..#.. ...#. #.#.. ..#.. #.#.# #...# #...#
..... .#### ####. .#### .#### .###. .#... ....# #...# .###. #..#. #..#. .###. #.#.# #...# .###.
..... ..... ..... ..... ..... ..... ..... .###. ..... ..... .##.. ..... ..... ..... ..... .....

..... ..... ..... ..... .#... ..... ..... ..... ..... ..... ..... ...## ..#.. ##... ..... #####
..... ..... ..... ..... .#... ..... ..... ..... ..... ..... ..... ..#.. ..#.. ..#.. ..... #...#
####. .#### #.##. .#### ####. #...# #...# #...# #...# #...# ##### ..#.. ..#.. ..#.. .#... #...#
#...# #...# ##... #.... .#... #...# #...# #.#.# .#.#. #...# ...#. .#... ..#.. ...#. #.#.# #...#
#...# #...# #.... .###. .#... #...# .#.#. #.#.# ..#.. #...# ..#.. ..#.. ..#.. ..#.. ...#. #...#
####. .#### #.... ....# .#... #...# .#.#. #.#.# .#.#. .#### .#... ..#.. ..#.. ..#.. ..... #...#
#.... ....# #.... ####. ..##. .#### ..#.. .#.#. #...# ....# ##### ...## ..#.. ##... ..... #####
#.... ....# ..... ..... ..... ..... ..... ..... ..... .###. ..... ..... ..... ..... ..... .....
"""
_PER_ROW = 16
_WIDTH, _HEIGHT = 5, 8
_MARGIN = 2  # Cells around the text.
_FIRST, _OTHER = 32, 127
_SMALL_PICTURE = 240  # pixels high: letters of one pixel per cell; at twice that, of two
_MOST = 0.2  # The largest share of a picture that text covers.
_FEW = 16  # Each line keeps at least this many characters; the last lines are dropped instead.
_TEXT = 255
_SHADE = 3  # The image under the text is darkened by this factor.


def draw_text(
    image: np.ndarray, lines: Sequence[str] | str, *, scale: int | None = None
) -> np.ndarray:
    """Write lines into the upper left corner of an image, light on a darkened box.

    Characters beyond ASCII become a box.

    Args:
        image: uint8 (height, width, 3) or (height, width), changed in place.
        lines: The lines, or one string with line breaks.
        scale: Pixels per cell of a letter, which has 5 x 8 cells; what does not fit into the image
            is cut off. None fits the image's size, and shortens the text to a fifth of it.

    Returns:
        The image.
    """
    if isinstance(lines, str):
        lines = lines.splitlines()
    if scale is None:
        lines, scale = _fitted(lines, *image.shape[:2])
    if not lines:
        return image
    words = [_line(line, scale) for line in lines]
    margin = _MARGIN * scale
    pitch = (_HEIGHT + 1) * scale
    width = max(word.shape[1] for word in words) + 2 * margin
    box = image[: _box_height(len(words)) * scale, :width]
    np.floor_divide(box, _SHADE, out=box)
    for row, word in enumerate(words):
        top = margin + row * pitch
        place = image[top : top + word.shape[0], margin : margin + word.shape[1]]
        place[word[: place.shape[0], : place.shape[1]]] = _TEXT
    return image


def draw_label(image: np.ndarray, label: str) -> None:
    """Write a few characters into the lower right corner, unless they would be too large there."""
    scale = letter_scale(len(image))
    high = _box_height(1) * scale
    wide = ((_WIDTH + 1) * len(label) + 2 * _MARGIN - 1) * scale
    if high <= _MOST * image.shape[0] and wide <= image.shape[1]:
        draw_text(image[-high:, -wide:], label, scale=scale)


def letter_scale(height: int) -> int:
    """Return how many pixels a cell of a letter has in a picture of this height."""
    return max(1, round(height / _SMALL_PICTURE))


def _fitted(lines: Sequence[str], height: int, width: int) -> tuple[list[str], int]:
    """Return lines and a scale that fit: smaller, then cut, then fewer."""
    lines, scale = list(lines), letter_scale(height)
    longest = max(map(len, lines), default=0)
    while lines:
        high = _box_height(len(lines)) * scale
        wide = min(width, _MOST * height * width / high)
        room = int(wide / scale - 2 * _MARGIN) // (_WIDTH + 1)
        if room >= min(longest, _FEW):
            return [_cut(line, room) for line in lines], scale
        if scale > 1:
            scale -= 1
        else:
            lines.pop()
    return [], scale


def _cut(line: str, room: int) -> str:
    """Cut a line to this many characters, between words, because half a number is a wrong one."""
    if len(line) <= room:
        return line
    whole = line[: room - 2].rsplit(" ", 1)[0] if " " in line[: room - 3] else line[: room - 3]
    return f"{whole}..."


def _box_height(count: int) -> int:
    """Return the cells of the box behind some lines, from top to bottom."""
    return (_HEIGHT + 1) * count + 2 * _MARGIN - 1


def _line(text: str, scale: int) -> np.ndarray:
    """Return which pixels of a line are lit: bool (height, width)."""
    if not text:
        return np.zeros((_HEIGHT * scale, 0), dtype=bool)
    return np.concatenate([_glyph(character, scale) for character in text], axis=1)


@functools.lru_cache(maxsize=1024)
def _glyph(character: str, scale: int) -> np.ndarray:
    """Return a character with the gap to the next one, enlarged: bool (height, width)."""
    code = ord(character)
    number = (code if _FIRST <= code < _OTHER else _OTHER) - _FIRST
    block, column = divmod(number, _PER_ROW)
    left = column * (_WIDTH + 1)
    rows = [row for row in _FONT.splitlines() if row][block * _HEIGHT : (block + 1) * _HEIGHT]
    cells = [[cell == "#" for cell in f"{row} "[left : left + _WIDTH + 1]] for row in rows]
    return np.array(cells).repeat(scale, axis=0).repeat(scale, axis=1)
