"""A machine that has the tested packages, as facts."""

from unsloth_course.commands.doctor import Facts
from unsloth_course.setup.pins import tested, versions_of

PINS = tested()
TESTED = versions_of((*PINS.all, *PINS.no_deps))
LIMITS = {
    "torch": "<2.15.0,>=2.4.0",
    "transformers": "!=5.0.0,<=5.17.0,>=4.52.4",
    "trl": "!=0.19.0,<=1.15.0,>=0.18.2",
    "datasets": "!=4.0.*,!=4.1.0,<5.0.0,>=3.4.1",
    "peft": ">=0.18.0",
    "unsloth-zoo": ">=2026.10.9",
}
HEALTHY = Facts(pins=PINS, installed=TESTED, limits=LIMITS, hub_cache="/home/me/.cache/huggingface/hub")
