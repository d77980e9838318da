"""The token X-ray: which tokens of a row are trained, masked, special or cut off."""

from typing import TYPE_CHECKING

from unsloth_course.core import lazy

if TYPE_CHECKING:
    from unsloth_course.lesson.xray.looking import look
    from unsloth_course.lesson.xray.showing import XRay
    from unsloth_course.lesson.xray.tokens import Token

__getattr__, __dir__, __all__ = lazy.names(__name__, __file__)
