"""Where things sit on the drawn circuit board; the same on every board."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.demo.scene import Point


@dataclass(frozen=True)
class Chip:
    """A moulded package with its pins on two sides, or on all four."""

    x: float
    y: float
    w: float
    h: float
    pitch: float
    four_sided: bool


@dataclass(frozen=True)
class Passive:
    """A resistor (dark) or capacitor (tan) between two pads."""

    x: float
    y: float
    across: bool
    tone: float

    def ends(self) -> tuple[Point, Point]:
        a, b = (9.0, 0.0) if self.across else (0.0, 9.0)
        return (self.x - a, self.y - b), (self.x + a, self.y + b)


CHIPS = (Chip(-58, -52, 84, 84, 10.5, True), Chip(84, 46, 46, 84, 12.5, False))
CAN = (92.0, -84.0, 34.0)
PASSIVES = (
    Passive(18, -132, True, 0.62),
    Passive(18, -112, True, 0.62),
    Passive(24, -78, False, 0.13),
    Passive(24, -40, False, 0.13),
    Passive(66, -26, True, 0.70),
    Passive(102, -26, True, 0.13),
    Passive(-128, 42, False, 0.70),
    Passive(-106, 42, False, 0.13),
    Passive(-84, 42, False, 0.13),
    Passive(-52, 36, True, 0.62),
    Passive(-16, 36, True, 0.13),
    Passive(18, 22, False, 0.70),
    Passive(-44, 70, True, 0.13),
    Passive(-8, 70, True, 0.62),
    Passive(-44, 92, True, 0.13),
    Passive(-8, 92, True, 0.13),
    Passive(30, 128, True, 0.70),
    Passive(66, 128, True, 0.13),
)
HEADER = tuple((-140.0 + 24.0 * k, 132.0) for k in range(6))
VIAS: tuple[Point, ...] = (
    (-140, -140), (-120, 10), (-140, 84), (-112, 84), (-84, 84), (20, 56), (22, 100), (48, -4),
    (130, -18), (140, 96), (110, 140), (138, 136), (48, -140), (140, -34), (-20, 14), (2, -6),
)  # fmt: skip
TRACES: tuple[tuple[tuple[Point, ...], float], ...] = (
    (((-140, -140), (-140, -60), (-124, -44), (-124, 10)), 3.0),
    (((-132, -150), (-132, -64), (-116, -48)), 3.0),
    (((-92, 2), (-92, 20), (-106, 34)), 3.0),
    (((-82, 2), (-82, 16), (-84, 33)), 3.0),
    (((-70, 2), (-70, 24), (-61, 36)), 3.0),
    (((-40, 2), (-40, 20), (-25, 36)), 3.0),
    (((-4, -84), (10, -84), (18, -100), (9, -112)), 3.0),
    (((-4, -60), (12, -60), (24, -69)), 3.0),
    (((-4, -30), (24, -31)), 3.0),
    (((-20, 14), (2, 14), (18, 31)), 3.0),
    (((27, -132), (48, -140), (92, -140)), 3.0),
    (((27, -112), (44, -100), (60, -84)), 4.5),
    (((48, -4), (48, -20), (57, -26)), 3.0),
    (((75, -26), (93, -26)), 3.0),
    (((111, -26), (130, -18), (150, 2), (150, 160)), 4.5),
    (((20, 56), (40, 36), (52, 14)), 3.0),
    (((1, 70), (20, 56)), 3.0),
    (((1, 92), (22, 100), (36, 86), (52, 77)), 3.0),
    (((-128, 51), (-128, 70), (-140, 84), (-140, 132)), 3.0),
    (((-106, 51), (-112, 84), (-116, 100), (-116, 132)), 3.0),
    (((-84, 51), (-84, 84), (-92, 104), (-92, 132)), 3.0),
    (((-53, 92), (-68, 108), (-68, 132)), 3.0),
    (((-35, 92), (-30, 110), (-44, 124), (-44, 132)), 3.0),
    (((-20, 132), (0, 112), (21, 128)), 3.0),
    (((39, 128), (57, 128)), 3.0),
    (((75, 128), (110, 140), (138, 136)), 3.0),
    (((116, 65), (130, 80), (140, 96), (140, 160)), 3.0),
    (((-160, 108), (-150, 108), (-140, 118), (-140, 132)), 3.0),
)
LABELS = (
    ("U1", -12, -108, 13.0),
    ("U2", 84, 100, 13.0),
    ("C7", 140, -124, 11.0),
    ("R4", 40, -60, 10.0),
    ("C2", -6, -146, 10.0),
    ("J1", -140, 112, 11.0),
    ("R12", -68, 70, 9.0),
    ("LINE-3 REV B", 96, 152, 11.0),
    ("R8", 0, 52, 9.0),
)


def legs(chip: Chip) -> list[tuple[float, float, bool]]:
    """Middle of every pin, and whether it points across the picture."""
    pins: list[tuple[float, float, bool]] = []
    count = int((chip.h - 6) // chip.pitch)
    for k in range(count):
        along = (k - (count - 1) / 2) * chip.pitch
        for side in (-1, 1):
            pins.append((chip.x + side * (chip.w / 2 + 4), chip.y + along, True))
            if chip.four_sided:
                pins.append((chip.x + along, chip.y + side * (chip.h / 2 + 4), False))
    return pins
