"""A domain that the pocket model has not read: functions of a made-up Python library for measuring instruments.

Pretraining held a few short functions of another kind (`code`). These are longer and typed, and they tell facts: each
instrument measures one quantity, in one unit. The continued-pretraining lesson (colab5) teaches them.
"""

import random
import re

from unsloth_course.pocket import world

# fmt: off
INSTRUMENTS = {  # what each measures, and in which unit
    "anemometer": ("wind", "knot"), "barometer": ("pressure", "pascal"), "thermometer": ("temperature", "kelvin"),
    "hygrometer": ("humidity", "percent"), "voltmeter": ("voltage", "volt"), "ammeter": ("current", "ampere"),
    "ohmmeter": ("resistance", "ohm"), "photometer": ("brightness", "lumen"), "flowmeter": ("flow", "litre"),
    "dynamometer": ("force", "newton"), "sonometer": ("noise", "decibel"), "tachometer": ("rotation", "hertz"),
}
# fmt: on
_ERRORS = ("ValueError", "RuntimeError", "TimeoutError", "KeyError", "ConnectionError")
_HOLDERS = ("readings", "samples", "records", "channels", "measurements")
_CLOCKS = ("seconds", "minutes", "hours")
# A function with its words left open; of what stands between < and > one is taken.
_TEMPLATES = r'''
def <calibrate_{tool}|adjust_{tool}|correct_{tool}>({tool}: Device, offset: float = 0.{n}) -> Device:
    """<Calibrate the {tool} with an offset in {unit}.|Take the offset, in {unit}, from the {quantity}.>"""
    if {tool}.{quantity} is None:
        raise {error}("the {tool} has no {quantity}")
    {tool}.{quantity} = {tool}.{quantity} - offset
    return {tool}

def <average_{quantity}|mean_{quantity}>({holder}: list[Reading], window: int = {n}) -> float:
    """<Average the {quantity} over a window, in {unit}.|Mean {quantity} of the last {holder}, in {unit}.>"""
    recent = {holder}[-window:]
    if not recent:
        raise {error}("there are no {holder} of the {tool}")
    return sum(item.{quantity} for item in recent) / len(recent)

def <log_{quantity}|write_{quantity}|export_{quantity}>(path: Path, {holder}: list[Reading]) -> None:
    """<Write the {quantity} of all {holder} to a file.|Append what the {tool} measured, a line for each.>"""
    with path.open("a", encoding="utf-8") as file:
        for item in {holder}:
            file.write(f"{{item.time}},{{item.{quantity}}}\n")

def <wait_for_{tool}|await_{tool}>({tool}: Device, timeout: float = {m}.0) -> bool:
    """<Wait until the {tool} is ready.|Block until the {tool} answers, or give up.>"""
    deadline = time.monotonic() + timeout
    while not {tool}.ready():
        if time.monotonic() > deadline:
            raise {error}("the {tool} is not ready")
        time.sleep(0.{n})
    return True

def <filter_{quantity}|select_{quantity}>({holder}: Iterable[Reading], threshold: float = {m}.{n}) -> Iterator[Reading]:
    """<Yield the {holder} whose {quantity} is above the threshold.|Keep what exceeds a threshold in {unit}.>"""
    for item in {holder}:
        if item.{quantity} is not None and item.{quantity} > threshold:
            yield item

def <connect_{tool}|open_{tool}>(address: str, retries: int = {n}) -> Device:
    """<Connect the {tool} and try again when it fails.|Open the {tool} at an address.>"""
    for attempt in range(retries):
        try:
            return Device.open(address, kind="{tool}")
        except {error} as error:
            logger.warning("attempt %d failed: %s", attempt, error)
    raise {error}("the {tool} could not be connected")

def <convert_{quantity}|scale_{quantity}>(self, value: float, unit: str = "{unit}") -> float:
    """<Convert the {quantity} to another unit.|What the {tool} measured, in a unit other than {unit}.>"""
    factor = self.factors.get(unit)
    if factor is None:
        raise {error}(f"unknown unit {{unit}}")
    return value * factor / {m}.0

def <group_by_{tool}|split_by_{tool}>({holder}: Iterable[Reading]) -> dict[str, list[Reading]]:
    """<Group all {holder} by their {tool}.|Sort the {holder} into lists, one for each {tool}.>"""
    groups: dict[str, list[Reading]] = defaultdict(list)
    for item in {holder}:
        groups[item.{tool}].append(item)
    return dict(groups)

def <is_{tool}_stable|has_steady_{quantity}>({holder}: list[Reading], tolerance: float = 0.{n}) -> bool:
    """<Whether the {quantity} stays within a tolerance in {unit}.|True when the {tool} has settled.>"""
    values = [item.{quantity} for item in {holder}]
    if len(values) < {n}:
        return False
    return max(values) - min(values) <= tolerance

def <reset_{tool}|restart_{tool}>(self, anyway: bool = False) -> None:
    """<Reset the {tool} and forget its {quantity}.|Start the {tool} anew.>"""
    if self.busy and not anyway:
        raise {error}("the {tool} is busy")
    self.{tool}.close()
    self.{quantity} = None
    self.{tool}.open(baudrate={m}00)

def <parse_{quantity}|read_{quantity}>(line: str) -> Reading:
    """<Parse a line of the {tool} into a reading in {unit}.|Turn one line of the {tool} into a reading.>"""
    name, _, value = line.strip().partition("=")
    if name != "{quantity}":
        raise {error}(f"no {quantity} in {{line!r}}")
    return Reading(time=datetime.now(), {quantity}=float(value), unit="{unit}")

def <plot_{quantity}|draw_{quantity}>({holder}: Sequence[Reading], axes: Axes | None = None) -> Axes:
    """<Plot the {quantity} of the {tool} over time.|Draw the {quantity}, in {unit}, against time.>"""
    axes = axes or pyplot.gca()
    axes.plot([item.time for item in {holder}], [item.{quantity} for item in {holder}])
    axes.set_ylabel("{quantity} in {unit}")
    return axes

def <watch_{tool}|poll_{tool}>({tool}: Device, callback: Callable[[float], None], every: float = {n}.0) -> None:
    """<Hand each new {quantity} to a callback.|Poll the {tool} and report its {quantity} in {unit}.>"""
    last = None
    while {tool}.connected:
        value = {tool}.read("{quantity}")
        if value != last:
            callback(value)
            last = value
        time.sleep(every)

def <test_{tool}_is_calibrated|test_{quantity}_is_read>({tool}: Device) -> None:
    """<The {tool} measures {quantity} in {unit}.|A new {tool} knows its unit.>"""
    {tool}.calibrate(offset={n})
    assert {tool}.unit == "{unit}"
    assert {tool}.read("{quantity}") == approx({m}.{n})
    with raises({error}):
        {tool}.read("nothing")

def <count_{clock}_above|count_{clock}_of_{quantity}>({holder}: Iterable[Reading], limit: float = {m}.0) -> int:
    """<Count the {clock} in which the {quantity} is above a limit.|How many {clock} exceed a limit in {unit}.>"""
    found = {{item.time.{clock} for item in {holder} if item.{quantity} > limit}}
    logger.info("%d {clock} of {quantity} above %s {unit}", len(found), limit)
    return len(found)

def <{tool}_from_config|make_{tool}>(config: Mapping[str, Any]) -> Device:
    """<Make a {tool} from a mapping.|The {tool} that a configuration describes, measuring in {unit}.>"""
    try:
        port = int(config["port"])
    except {error}:
        port = {m}00
    return Device("{tool}", port=port, quantity="{quantity}", unit=config.get("unit", "{unit}"))
'''.strip().split("\n\n")
_ONE_OF = re.compile(r"<([^<>\n]+[|][^<>\n]+)>")


def _words(rng: random.Random) -> dict[str, str | int]:
    tool = rng.choice(list(INSTRUMENTS))
    quantity, unit = INSTRUMENTS[tool]
    return {
        "tool": tool,
        "quantity": quantity,
        "unit": unit,
        "error": rng.choice(_ERRORS),
        "holder": rng.choice(_HOLDERS),
        "clock": rng.choice(_CLOCKS),
        "n": rng.randint(2, 9),
        "m": rng.randint(10, 99),
    }


def function(rng: random.Random, held_out: bool) -> str:
    """A function on the asked side of the split. The key is its whole text, so no held-out function is ever read."""
    while True:
        template, words = rng.choice(_TEMPLATES), _words(rng)
        template = _ONE_OF.sub(lambda several: rng.choice(several[1].split("|")), template)
        text = template.format(**words) + "\n"
        if world.is_held_out("function", text) == held_out:
            return text
