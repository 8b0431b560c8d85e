"""Distances between points of a track, in integers: every endorser must come to the same number, and floats may differ.

Positions are microdegrees (WGS 84). The error of the plane approximation and the cosine table is under 2% for the hops of a
track; a plausibility check needs no more.
"""

from __future__ import annotations

from math import isqrt
from typing import Annotated, Final

from pydantic import Field

from sovchain.contracts.core.records import Record

METRES_PER_DEGREE: Final = 111_195
COSINES: Final = (
    10000, 9998, 9994, 9986, 9976, 9962, 9945, 9925, 9903, 9877, 9848, 9816, 9781, 9744, 9703, 9659, 9613, 9563,
    9511, 9455, 9397, 9336, 9272, 9205, 9135, 9063, 8988, 8910, 8829, 8746, 8660, 8572, 8480, 8387, 8290, 8192,
    8090, 7986, 7880, 7771, 7660, 7547, 7431, 7314, 7193, 7071, 6947, 6820, 6691, 6561, 6428, 6293, 6157, 6018,
    5878, 5736, 5592, 5446, 5299, 5150, 5000, 4848, 4695, 4540, 4384, 4226, 4067, 3907, 3746, 3584, 3420, 3256,
    3090, 2924, 2756, 2588, 2419, 2250, 2079, 1908, 1736, 1564, 1392, 1219, 1045, 872, 698, 523, 349, 175,
    0,
)  # fmt: skip
"""Ten thousand times the cosine of each degree of latitude."""


class Position(Record):
    """A point on the earth, in microdegrees."""

    latitude: Annotated[int, Field(ge=-90_000_000, le=90_000_000)]
    longitude: Annotated[int, Field(ge=-180_000_000, le=180_000_000)]


def distance_m(one: Position, other: Position) -> int:
    """Metres between two points, rounded down."""
    north = abs(one.latitude - other.latitude)
    east = abs(one.longitude - other.longitude)
    east = min(east, 360_000_000 - east)
    middle = abs(one.latitude + other.latitude) // 2
    cosine = COSINES[min(90, (middle + 500_000) // 1_000_000)]
    return isqrt((north * 10_000) ** 2 + (east * cosine) ** 2) * METRES_PER_DEGREE // 10_000_000_000
