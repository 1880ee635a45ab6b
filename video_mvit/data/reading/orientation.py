"""How a decoded frame is turned before it is shown: the one reading of display matrices.

A file, or the frames themselves, may say that a player has to turn or mirror what is stored. Of
all matrices only the eight orientations are read, four quarter turns, each mirrored or not.
"""

import math
import struct
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from numpy.typing import NDArray

ONE = 1 << 16  # matrices are in 16.16 fixed point
TOLERANCE = 0.01  # of an entry; FFmpeg's own
NUM_UNKNOWN = 16  # types of side data that FFmpeg may have beyond those of PyAV
# (a, b, c, d) takes a stored pixel (x, y) to (a x + c y, b x + d y), y downwards.
QUARTER_TURNS = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 1, (-1, 0, 0, -1): 2, (0, 1, -1, 0): 3}


class Orientation(NamedTuple):
    """Make a frame upright: turn it anticlockwise, then mirror left and right."""

    quarter_turns: int
    is_mirrored: bool

    @property
    def is_sideways(self) -> bool:
        """Return whether height and width are swapped."""
        return self.quarter_turns % 2 == 1


UPRIGHT = Orientation(0, is_mirrored=False)


class OrientationError(Exception):
    """A frame that is to be shown in another way than turned and mirrored."""


def orientation_of(picture: av.VideoFrame) -> Orientation:
    """Return how a decoded frame becomes upright; raises `OrientationError`."""
    found = {_read_matrix(matrix) for matrix in _display_matrices(picture)}
    if len(found) > 1:
        raise OrientationError("the file and its frames say different orientations")
    return found.pop() if found else UPRIGHT


def turn_upright(pixels: NDArray[Any], orientation: Orientation) -> NDArray[Any]:
    """Turn and mirror a frame or a plane of it: (H, W, ...) -> the same, or (W, H, ...)."""
    if orientation == UPRIGHT:
        return pixels
    turned = np.rot90(pixels, orientation.quarter_turns)
    return turned[:, ::-1] if orientation.is_mirrored else turned


def _display_matrices(picture: av.VideoFrame) -> list[bytes]:
    # PyAV makes no list of side data with a type that it does not know, such as EXIF.
    try:
        listed: Any = picture.side_data
    except ValueError:
        listed = _with_known_types_only(picture).side_data
    return [bytes(each) for each in listed if each.type == Type.DISPLAYMATRIX]


def _with_known_types_only(picture: av.VideoFrame) -> av.VideoFrame:
    """Return the same frame without side data of types that PyAV does not know."""
    graph = Graph()
    last = graph.add_buffer(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        time_base=picture.time_base or Fraction(1),
    )
    first_unknown = len(list(Type))
    for number in range(first_unknown, first_unknown + NUM_UNKNOWN):
        removal = graph.add("sidedata", f"mode=delete:type={number}")
        last.link_to(removal)
        last = removal
    last.link_to(graph.add("buffersink"))
    graph.configure()
    graph.push(picture)
    known = graph.pull()
    assert isinstance(known, av.VideoFrame)
    return known


def _read_matrix(matrix: bytes) -> Orientation:
    a, b, u, c, d, v = (entry / ONE for entry in struct.unpack("=6i", matrix[:24]))
    if not (a or b or c or d):  # left empty by the writer: nothing is said
        return UPRIGHT
    entries = tuple(map(round, (a, b, c, d)))
    is_exact = np.allclose((a, b, c, d, u, v), (*entries, 0, 0), rtol=0, atol=TOLERANCE)
    for is_mirrored in (False, True):
        # Undo the mirroring, which comes last: it changes the sign of the new x.
        rotation = (-entries[0], entries[1], -entries[2], entries[3]) if is_mirrored else entries
        if is_exact and rotation in QUARTER_TURNS:
            return Orientation(QUARTER_TURNS[rotation], is_mirrored)
    if np.allclose((a, b, u, v), (d, -c, 0, 0), rtol=0, atol=TOLERANCE) and (
        abs(math.hypot(a, b) - 1) < TOLERANCE
    ):
        degrees = math.degrees(math.atan2(b, a))
        raise OrientationError(f"it is shown turned by {degrees:.0f} degrees, no quarter turn")
    raise OrientationError(f"it is shown scaled or skewed, by ({a:.3g} {b:.3g}, {c:.3g} {d:.3g})")
