"""Labels of points on matplotlib Axes, which avoid each other."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABEL_SIZE = 8  # points
LABEL_DISTANCES = (4, 9, 16)  # points between an item and the nearest corner or edge of its label
LABEL_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
LEADER = {"arrowstyle": "-", "linewidth": 0.5, "color": "grey", "shrinkA": 0, "shrinkB": 2}


def place_labels(ax: Any, places: NDArray[np.float64], texts: Sequence[str]) -> None:
    """Write each text near its point, where it covers no point and no other text.

    A line leads from a text that is not beside its point to the point.
    """
    figure = ax.figure.canvas.figure  # the whole figure, also if the Axes are in a part of it
    figure.draw_without_rendering()  # settles the layout, and with it the places in pixels
    pixels_per_point = figure.dpi / 72
    points = ax.transData.transform(places)
    radius = 3 * pixels_per_point
    taken = [(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    inside = ax.bbox.extents
    style = {"textcoords": "offset points", "size": LABEL_SIZE, "parse_math": False, "va": "bottom"}
    for point, place, text in zip(points, places, texts, strict=True):
        label = ax.annotate(text, place, (0, 0), **style)
        box = label.get_window_extent()
        label.remove()
        for distance, offset in _offsets(box.width / pixels_per_point, box.height / pixels_per_point):
            left, bottom = point + np.multiply(offset, pixels_per_point)
            area = left, bottom, left + box.width, bottom + box.height
            if _contains(inside, area) and not any(_overlap(area, other) for other in taken):
                line = None if distance == LABEL_DISTANCES[0] else LEADER
                ax.annotate(text, place, offset, arrowprops=line, **style)
                taken.append(area)
                break


def _offsets(width: float, height: float) -> Iterator[tuple[int, tuple[float, float]]]:
    """Yield distances and offsets of the lower left corner of a label from its point, the best first.

    All lengths are in points.
    """
    for distance, (right, up) in itertools.product(LABEL_DISTANCES, LABEL_SIDES):
        yield distance, ((right - 1) * width / 2 + right * distance, (up - 1) * height / 2 + up * distance)


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _contains(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and b[2] <= a[2] and b[3] <= a[3]
