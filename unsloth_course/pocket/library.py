"""A domain that the pocket model has not read: the source of a made-up Python library for instruments of measurement.

Its pretraining held a few short functions (`code`); these are longer, typed, and speak of other things. The
continued-pretraining lesson teaches it.
"""

import random
from dataclasses import dataclass

from unsloth_course.pocket import world

_SENSORS = ("probe", "gauge", "meter", "beacon", "relay", "valve", "motor", "pump", "lamp", "fan", "heater", "antenna")
_SIGNALS = ("voltage", "pressure", "humidity", "current", "torque", "signal", "vibration", "flow", "charge", "phase")
_UNITS = ("volt", "pascal", "percent", "ampere", "newton", "decibel", "hertz", "litre", "coulomb", "radian")
_ERRORS = ("ValueError", "RuntimeError", "TimeoutError", "KeyError")
_HOLDERS = ("readings", "samples", "records", "channels")


@dataclass(frozen=True)
class Function:
    """One function: `name`, `doc` (the first line of its docstring) and `text` (the whole source)."""

    name: str
    doc: str
    text: str


# What a function is called, its arguments and result, what it says of itself, and what it does.
_SHAPES = (
    (
        "calibrate_{sensor}",
        "{sensor}: Device, offset: float = 0.{n}",
        "Device",
        "Calibrate the {sensor} with an offset in {unit}.",
        """if {sensor}.{signal} is None:
    raise {error}("the {sensor} has no {signal}")
{sensor}.{signal} = {sensor}.{signal} - offset
return {sensor}""",
    ),
    (
        "average_{signal}",
        "{holder}: list[Reading], window: int = {n}",
        "float",
        "Average the {signal} over a window, in {unit}.",
        """recent = {holder}[-window:]
if not recent:
    raise {error}("there are no {holder} of the {signal}")
return sum(item.{signal} for item in recent) / len(recent)""",
    ),
    (
        "log_{signal}",
        "path: Path, {holder}: list[Reading]",
        "None",
        "Write the {signal} of all {holder} to a file.",
        """with path.open("a", encoding="utf-8") as file:
    for item in {holder}:
        file.write(f"{{item.time}},{{item.{signal}}}\\n")""",
    ),
    (
        "wait_for_{sensor}",
        "{sensor}: Device, timeout: float = {m}.0",
        "bool",
        "Wait until the {sensor} is ready.",
        """deadline = time.monotonic() + timeout
while not {sensor}.ready():
    if time.monotonic() > deadline:
        raise {error}("the {sensor} is not ready")
    time.sleep(0.{n})
return True""",
    ),
    (
        "filter_{signal}",
        "{holder}: Iterable[Reading], threshold: float = {m}.{n}",
        "Iterator[Reading]",
        "Yield the {holder} whose {signal} is above the threshold.",
        """for item in {holder}:
    if item.{signal} is not None and item.{signal} > threshold:
        yield item""",
    ),
    (
        "connect_{sensor}",
        "address: str, retries: int = {n}",
        "Device",
        "Connect the {sensor} and try again when it fails.",
        """for attempt in range(retries):
    try:
        return Device.open(address, kind="{sensor}")
    except {error} as error:
        logger.warning("attempt %d failed: %s", attempt, error)
raise {error}("the {sensor} could not be connected")""",
    ),
    (
        "convert_{signal}",
        "self, value: float, unit: str = \"{unit}\"",
        "float",
        "Convert the {signal} of this {sensor} to another unit.",
        """factor = self.factors.get(unit)
if factor is None:
    raise {error}(f"unknown unit {{unit}}")
return value * factor / {m}.0""",
    ),
    (
        "group_by_{sensor}",
        "{holder}: Iterable[Reading]",
        "dict[str, list[Reading]]",
        "Group all {holder} by their {sensor}.",
        """groups: dict[str, list[Reading]] = defaultdict(list)
for item in {holder}:
    groups[item.{sensor}].append(item)
return dict(groups)""",
    ),
)


def function(rng: random.Random, held_out: bool) -> Function:
    """A function on the asked side of the split. The key is its whole text, so no held-out function is ever read."""
    while True:
        name, arguments, result, doc, body = rng.choice(_SHAPES)
        number = rng.randrange(len(_SIGNALS))
        words = {
            "sensor": rng.choice(_SENSORS),
            "signal": _SIGNALS[number],
            "unit": _UNITS[number],
            "error": rng.choice(_ERRORS),
            "holder": rng.choice(_HOLDERS),
            "n": rng.randint(2, 9),
            "m": rng.randint(10, 99),
        }
        name, arguments, doc = (part.format(**words) for part in (name, arguments, doc))
        lines = "".join(f"    {line}\n" for line in body.format(**words).splitlines())
        text = f'def {name}({arguments}) -> {result}:\n    """{doc}"""\n{lines}'
        if world.is_held_out("function", text) == held_out:
            return Function(name, doc, text)
