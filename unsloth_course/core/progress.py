"""Where a training run is: a live bar in a terminal, and elsewhere one line of text that leaves no debris in a file."""

import sys
import time
from typing import Any

from unsloth_course.core.callback import Callback


def shown() -> Any:
    """The callback that suits where the output goes: a `Bar` in a terminal, a `Line` in a notebook or a pipe."""
    return Bar() if sys.stdout is not None and sys.stdout.isatty() and _display() is None else Line()


class Bar(Callback):
    """Trainer callback: a live bar in a terminal, with step, loss (of GRPO the reward), pace, memory and time left.

    The pace is in tokens a second where the trainer counts them, else in rows. The memory is that of this process: on a
    GPU what torch holds there, else what is resident.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._began = (0.0, 0)  # time and step
        self._words = {"loss": "", "pace": "", "memory": ""}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        words = [TextColumn("{task.fields[" + name + "]}") for name in self._words]
        self._bar = Progress(TextColumn("training"), BarColumn(), MofNCompleteColumn(), *words, TimeRemainingColumn())
        self._task = self._bar.add_task("", total=state.max_steps, completed=state.global_step, **self._words)
        self._began = (time.monotonic(), state.global_step)
        self._bar.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        name = next((name for name in ("reward", "loss") if name in logs), None)
        if name:
            self._words["loss"] = f"{name} {float(logs[name]):.3f}"
        spent = time.monotonic() - self._began[0]
        done = state.global_step - self._began[1]
        if spent > 0 and done > 0:
            rows = done * args.per_device_train_batch_size * args.gradient_accumulation_steps / spent
            # TRL counts tokens from the first step of the run, a resumed one's earlier steps included.
            tokens = float(logs.get("num_tokens", 0)) * done / state.global_step / spent
            self._words["pace"] = f"{tokens:,.0f} tokens/s" if tokens else f"{rows:,.1f} rows/s"
        self._words["memory"] = f"{_held() / 2**30:.1f} GiB"
        self._show(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._show(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()
        seconds = time.monotonic() - self._began[0]
        print(f"trained for {state.global_step - self._began[1]} steps in {seconds:.0f} s, {self._words['loss']}")

    def close(self) -> None:
        """Takes the bar off the screen; needed where a training ends without its end."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, state: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step, **self._words)


def _held() -> int:
    """Bytes that this process holds."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.memory_reserved()
    import psutil

    return psutil.Process().memory_info().rss


class Line(Callback):
    """Trainer callback: one line with step, loss (of GRPO the reward) and time left, rewritten in place in a notebook.

    In a terminal, where a line cannot be rewritten through a pipe, it prints every tenth of the way.
    """

    def __init__(self) -> None:
        self._started = 0.0
        self._began = 0  # step; a resumed run does not begin at 0
        self._shown = 0.0
        self._loss = ""
        self._handle = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started, self._began = time.monotonic(), state.global_step
        self._handle = _display()
        self._write(f"training: step {self._began} of {state.max_steps}")

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
        left = spent / (state.global_step - self._began) * (state.max_steps - state.global_step)
        self._write(f"training: step {state.global_step} of {state.max_steps}{self._loss}, {left:.0f} s left")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        steps, seconds = state.global_step - self._began, time.monotonic() - self._started
        self._write(f"trained for {steps} steps in {seconds:.0f} s{self._loss}")

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
