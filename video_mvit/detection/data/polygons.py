"""Polygons against a rectangle: the parts of each that lie inside, as polygons of their own.

A half-plane cuts the outline into chains of points. Along the cutting line, the ends of chains
delimit by turns what lies outside and inside of the polygon, so that neighbours in pairs are joined
(the even-odd rule). A polygon that falls into parts gives one polygon for each, without seams.
"""

import numpy as np
from numpy.typing import NDArray

from video_mvit.detection.instances import Polygons

Points = NDArray[np.float64]  # (N, 2)
MIN_AREA = 1e-6  # pixels; what only touches the rectangle has less


def clip_polygons(polygons: Polygons, width: float, height: float) -> Polygons:
    """Intersect polygons with [0, width] x [0, height]; those that lie inside stay as they are."""
    return [part for polygon in polygons for part in _clip(polygon, width, height)]


def _clip(polygon: NDArray[np.float64], width: float, height: float) -> Polygons:
    points = polygon.reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    if (low >= 0).all() and (high <= (width, height)).all():
        return [polygon]
    if (low >= (width, height)).any() or (high <= 0).any():
        return []
    parts = [points]
    for axis, bound, sign in ((0, 0.0, 1.0), (1, 0.0, 1.0), (0, width, -1.0), (1, height, -1.0)):
        parts = [inside for part in parts for inside in _cut(part, axis, bound, sign)]
    return [part.ravel() for part in parts]


def _cut(points: Points, axis: int, bound: float, sign: float) -> list[Points]:
    """Keep what lies at `sign * (points[axis] - bound) >= 0`."""
    depth = sign * (points[:, axis] - bound)
    inside = depth >= 0
    if inside.all():
        return [points]
    if not inside.any():
        return []
    # Turn the outline so that it begins outside; then a chain never spans its end.
    turn = int(np.argmin(inside))
    points, depth, inside = (
        np.roll(points, -turn, axis=0),
        np.roll(depth, -turn),
        np.roll(inside, -turn),
    )
    steps = np.diff(inside.astype(np.int8), append=inside[:1].astype(np.int8))
    entries, exits = np.flatnonzero(steps > 0), np.flatnonzero(steps < 0)  # edges, by first point
    crossings = _cross(points, depth, np.stack([entries, exits], axis=1).ravel())
    crossings[:, axis] = bound
    chains = [
        np.concatenate(
            [crossings[2 * i : 2 * i + 1], points[a + 1 : b + 1], crossings[[2 * i + 1]]]
        )
        for i, (a, b) in enumerate(zip(entries, exits, strict=True))
    ]
    joined = _join(chains, np.argsort(crossings[:, 1 - axis], kind="stable"))
    return [part for part in joined if _area(part) > MIN_AREA]


def _cross(points: Points, depth: NDArray[np.float64], edges: NDArray[np.int64]) -> Points:
    """Return where edges, given by their first points, cross the line of depth 0."""
    after = (edges + 1) % len(points)
    share = depth[edges] / (depth[edges] - depth[after])
    return points[edges] + share[:, None] * (points[after] - points[edges])


def _join(chains: list[Points], order: NDArray[np.int64]) -> list[Points]:
    """Join the ends of chains, 2i and 2i + 1, in pairs of neighbours: -> closed polygons."""
    partner = np.empty_like(order)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    polygons, left = [], set(range(len(chains)))
    while left:
        start = end = 2 * left.pop()
        parts = []
        while True:
            # Walk a chain from this end to its other one, and on to the neighbour of that.
            chain = chains[end // 2]
            parts.append(chain[::-1] if end % 2 else chain)
            left.discard(end // 2)
            end = int(partner[end ^ 1])
            if end == start:
                break
        polygons.append(np.concatenate(parts))
    return polygons


def _area(points: Points) -> float:
    x, y = (points - points[0]).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
