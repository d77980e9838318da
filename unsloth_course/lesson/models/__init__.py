"""Loading, counting, asking and saving models.

The two calls that a lesson is about, `FastLanguageModel.from_pretrained` and `get_peft_model`, stay in the notebooks.
"""

from typing import TYPE_CHECKING

from unsloth_course.core import lazy

if TYPE_CHECKING:
    from unsloth_course.lesson.models.adapters import (
        adapter_scaled,
        adapter_state,
        disk_bytes,
        load_adapter,
        restore_adapter,
        save_adapter,
    )
    from unsloth_course.lesson.models.asking import (
        answer,
        answering,
        chat_ids,
        chat_prompt,
        complete,
        in_chat_form,
        require_room,
        stream,
        stream_after,
        until_end,
    )
    from unsloth_course.lesson.models.counting import (
        PROJECTIONS,
        Count,
        allow_adapters,
        count,
        folder,
        require_cpt,
        require_full,
        require_lora,
        require_tied,
    )

__getattr__, __dir__, __all__ = lazy.names(__name__, __file__)
