"""Where a training run is: a live bar in a terminal, and elsewhere one line of text that leaves no debris in a file."""

import atexit
import sys
import time
from typing import Any

from unsloth_course.core.callback import Callback


def shown() -> Any:
    """The callback that suits where the output goes: a `Bar` in a terminal, a `Line` in a notebook or a pipe."""
    return Bar() if sys.stdout is not None and sys.stdout.isatty() and _display() is None else Line()


class Line(Callback):
    """Trainer callback: one line with step, loss (of GRPO the reward) and time left, rewritten in place in a notebook.

    In a terminal, where a line cannot be rewritten through a pipe, it prints every tenth of the way.
    """

    loss = ""  # what was logged last

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = (time.monotonic(), state.global_step)  # a resumed run does not begin at step 0
        self._handle, self._written = _display(), 0.0
        self._write(f"training: step {state.global_step} of {state.max_steps}")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        # GRPO's loss says nothing about what was learned; it logs a reward beside it.
        name = next((name for name in ("reward", "loss") if name in (logs or {})), None)
        if name:
            self.loss = f"{name} {float(logs[name]):.3f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now, tenth = time.monotonic(), max(1, state.max_steps // 10)
        if state.global_step % tenth if self._handle is None else now - self._written < 0.5:
            return
        self._written = now
        seconds, steps = self._spent(state)
        left = f"{seconds / steps * (state.max_steps - state.global_step):.0f} s left"
        words = (f"training: step {state.global_step} of {state.max_steps}", self.loss, left)
        self._write(", ".join(filter(None, words)))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seconds, steps = self._spent(state)
        self._write(", ".join(filter(None, (f"trained for {steps} steps in {seconds:.0f} s", self.loss))))

    def _spent(self, state: Any) -> tuple[float, int]:
        """Seconds and steps since it began."""
        return time.monotonic() - self._began[0], state.global_step - self._began[1]

    def _write(self, text: str) -> None:
        if self._handle is None:
            print(text, flush=True)
        else:
            from IPython.display import Pretty  # text as it is, without the quotes of a string

            self._handle.update(Pretty(text))


class Bar(Line):
    """Trainer callback: a live bar in a terminal, with step, loss (of GRPO the reward), pace, memory and time left.

    The pace is in tokens a second where the trainer counts them, else in rows. The memory is that of this process: on a
    GPU what torch holds there, else what is resident.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._began, self._handle = (time.monotonic(), state.global_step), None
        said = TextColumn("{task.description}")
        self._bar = Progress(TextColumn("training"), BarColumn(), MofNCompleteColumn(), said, TimeRemainingColumn())
        self._task = self._bar.add_task("", total=state.max_steps, completed=state.global_step)
        self._bar.start()
        atexit.register(self._bar.stop)  # a training that breaks off must not leave a terminal without its cursor

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        super().on_log(args, state, control, logs)
        seconds, steps = self._spent(state)
        pace = ""
        if seconds > 0 and steps > 0:
            rows = steps * args.per_device_train_batch_size * args.gradient_accumulation_steps / seconds
            # TRL counts tokens from the first step of the run, a resumed one's earlier steps included.
            tokens = float((logs or {}).get("num_tokens", 0)) * steps / state.global_step / seconds
            pace = f"{tokens:,.0f} tokens/s" if tokens else f"{rows:,.1f} rows/s"
        words = " ".join(filter(None, (self.loss, pace, f"{_held() / 2**30:.1f} GiB")))
        self._bar.update(self._task, completed=state.global_step, description=words)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar.update(self._task, completed=state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar.stop()
        super().on_train_end(args, state, control)


def _held() -> int:
    """Bytes that this process holds."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.memory_reserved()
    import psutil

    return psutil.Process().memory_info().rss


def _display() -> Any:
    """A handle of the running notebook whose output can be replaced, or None outside a notebook."""
    try:
        from IPython import get_ipython
        from IPython.display import Pretty, display
    except ImportError:
        return None
    shell = get_ipython()
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    return display(Pretty("training: starting"), display_id=True)
