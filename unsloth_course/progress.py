"""One line of text that shows where a training run is, in place of a bar that leaves debris in a saved notebook."""

import time
from typing import Any


class Line:
    """Trainer callback: one line with step, loss (of GRPO the reward) and time left, rewritten in place in a notebook.

    In a terminal, where a line cannot be rewritten through a pipe, it prints every tenth of the way.
    """

    def __new__(cls) -> "Line":
        # transformers must be imported after unsloth, so the base class joins when the first line is made.
        from transformers import TrainerCallback

        return object.__new__(type("Line", (cls, TrainerCallback), {}))

    def __init__(self) -> None:
        self._started = 0.0
        self._shown = 0.0
        self._loss = ""
        self._handle = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.monotonic()
        self._handle = _display()
        self._write(f"training: step 0 of {state.max_steps}")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        # GRPO's loss says nothing about what was learned; it logs a reward beside it.
        shown = next((name for name in ("reward", "loss") if logs and name in logs), None)
        if shown:
            self._loss = f", {shown} {float(logs[shown]):.3f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.monotonic()
        tenth = max(1, state.max_steps // 10)
        too_soon = state.global_step % tenth != 0 if self._handle is None else now - self._shown < 0.5
        if too_soon:
            return
        self._shown = now
        spent = now - self._started
        left = spent / state.global_step * (state.max_steps - state.global_step)
        self._write(f"training: step {state.global_step} of {state.max_steps}{self._loss}, {left:.0f} s left")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._write(f"trained for {state.global_step} steps in {time.monotonic() - self._started:.0f} s{self._loss}")

    def _write(self, text: str) -> None:
        if self._handle is None:
            print(text, flush=True)
        else:
            self._handle.update(_Text(text))


class _Text:
    """Text that a notebook shows as it is, without the quotes of a string."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _display() -> Any:
    """A handle of the running notebook whose output can be replaced, or None outside a notebook."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return None
    shell = get_ipython()
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    return display(_Text("training: starting"), display_id=True)
