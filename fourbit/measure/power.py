"""Energy that the machine's own counters measured: a processor's RAPL registers, else the drain of a battery.

RAPL (Intel SDM volume 3B, section 16.10; AMD has the same since Zen) counts microjoules for each processor package and
wraps around; Linux shows it under /sys/class/powercap. Since 2020 the files are readable by root only, because their
fine resolution tells secrets of other programs (CVE-2020-8694). A battery's gauge works while nothing is plugged in,
and is coarse: its steps are of several joules and come every few seconds or more.

Both count everything that the machine does meanwhile. Where neither can be read, the reason is the result.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_LEAST_STEPS = 10  # of a battery's gauge that a reading has to span: 10 % resolution
_WATT_HOUR = 3600.0


@dataclass(frozen=True)
class Energy:
    """Energy of an interval. `joules` is None where it cannot be told, and `reason` then says why.

    `source` names the counter; `seconds` is the length of the interval.
    """

    joules: float | None
    seconds: float
    source: str
    reason: str = ""

    @property
    def watts(self) -> float | None:
        """Mean power, None where the energy is."""
        return None if self.joules is None or self.seconds <= 0 else self.joules / self.seconds


class Meter(Protocol):
    """Measures from :meth:`start` to :meth:`stop`; may be started again. `reason` is "" if it can measure at all."""

    source: str
    reason: str

    def start(self) -> None:
        """Begin an interval."""

    def stop(self) -> Energy:
        """End it, and return what it took."""


def find_meter(sys_folder: Path = Path("/sys")) -> Meter:
    """Return the best meter of this machine; one that only has a reason where nothing can be read."""
    rapl, why_not_rapl = _rapl(sys_folder / "class" / "powercap")
    if rapl:
        return rapl
    battery, why_not_battery = _battery(sys_folder / "class" / "power_supply")
    if battery:
        return battery
    if not sys_folder.is_dir():
        return _NoMeter(f"no energy counter is known for {sys.platform}; Linux shows RAPL and batteries under /sys")
    return _NoMeter(f"{why_not_rapl}; {why_not_battery}")


@dataclass
class _Clock:
    """Seconds from start to stop."""

    began: float = 0.0

    def start(self) -> None:
        self.began = time.perf_counter()

    def read(self) -> float:
        return time.perf_counter() - self.began


class _NoMeter:
    source = "none"

    def __init__(self, reason: str) -> None:
        self.reason, self._clock = reason, _Clock()

    def start(self) -> None:
        self._clock.start()

    def stop(self) -> Energy:
        return Energy(None, self._clock.read(), self.source, self.reason)


class _Rapl:
    """Counters in microjoules, one for each package, each with the value at which it wraps around."""

    reason = ""

    def __init__(self, zones: list[tuple[Path, int]]) -> None:
        self._zones, self._clock = zones, _Clock()
        count = len(zones)
        self.source = "RAPL, processor package" if count == 1 else f"RAPL, {count} processor packages"
        self._before = [0] * count

    def start(self) -> None:
        self._before = [_number(path) for path, _ in self._zones]
        self._clock.start()

    def stop(self) -> Energy:
        seconds = self._clock.read()
        # A package of 200 W wraps a counter of 32 bits of 15.3 uJ after 5 minutes: a longer interval may miss a round.
        after = [_number(path) for path, _ in self._zones]
        used = [(b - a) % (top + 1) for a, b, (_, top) in zip(self._before, after, self._zones, strict=True)]
        return Energy(sum(used) / 1e6, seconds, self.source)


def _rapl(folder: Path) -> tuple[_Rapl | None, str]:
    """The package zones of the first driver that has some, or None and the reason."""
    if not folder.is_dir():
        return None, f"no RAPL counters ({folder} does not exist, as in most virtual machines)"
    zones = []
    for zone in sorted(folder.glob("intel-rapl:*")):  # AMD's have this name too
        try:
            if not (zone / "name").read_text().startswith("package"):
                continue
            _number(zone / "energy_uj")
            zones.append((zone / "energy_uj", _number(zone / "max_energy_range_uj")))
        except PermissionError:
            return None, f"{zone / 'energy_uj'} is for root only (`sudo chmod a+r` on it helps until the next boot)"
        except (OSError, ValueError) as error:
            return None, f"{zone} cannot be read ({error})"
    return (_Rapl(zones), "") if zones else (None, f"no processor package among the RAPL counters in {folder}")


class _Battery:
    """A battery's gauge: energy_now in microwatt-hours, or charge_now in microampere-hours at voltage_now."""

    reason = ""

    def __init__(self, folder: Path) -> None:
        self._folder, self._clock = folder, _Clock()
        self.source = f"battery {folder.name}"
        self._before: float | None = None

    def joules_left(self) -> tuple[float, float]:
        """Return the energy left and one step of the gauge, both in joules."""
        if (self._folder / "energy_now").exists():
            return _number(self._folder / "energy_now") * 1e-6 * _WATT_HOUR, 0.01 * _WATT_HOUR
        volts = _number(self._folder / "voltage_now") * 1e-6
        return _number(self._folder / "charge_now") * 1e-6 * volts * _WATT_HOUR, 1e-3 * volts * _WATT_HOUR

    def discharging(self) -> bool:
        return (self._folder / "status").read_text().strip() == "Discharging"

    def start(self) -> None:
        try:
            self._before, _ = self.joules_left()
        except (OSError, ValueError):  # taken out since it was found
            self._before = None
        self._clock.start()

    def stop(self) -> Energy:
        seconds = self._clock.read()
        try:
            left, step = self.joules_left()
            if self._before is None or not self.discharging():
                return Energy(None, seconds, self.source, "the battery did not supply the machine all the time")
        except (OSError, ValueError) as error:
            return Energy(None, seconds, self.source, f"the battery's gauge cannot be read any more ({error})")
        used = self._before - left
        if used < _LEAST_STEPS * step:
            reason = f"too short for the battery's gauge, whose steps are of {step:.0f} J"
            return Energy(None, seconds, self.source, reason)
        return Energy(used, seconds, self.source)


def _battery(folder: Path) -> tuple[_Battery | None, str]:
    for supply in sorted(folder.glob("*")) if folder.is_dir() else ():
        try:
            if (supply / "type").read_text().strip() != "Battery":
                continue
            battery = _Battery(supply)
            battery.joules_left()
            if battery.discharging():
                return battery, ""
            return None, f"battery {supply.name} is not discharging (unplug the machine to measure by it)"
        except (OSError, ValueError) as error:
            return None, f"battery {supply.name} cannot be read ({error})"
    return None, "no battery"


def _number(path: Path) -> int:
    return int(path.read_text())
