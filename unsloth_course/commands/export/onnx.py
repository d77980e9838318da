"""ONNX: a whole model written by transformers' own exporter, and run by ONNX Runtime for the round trip.

The file takes a cache of keys and values and gives a longer one, so that an answer costs one step a token.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
ONE_FILE_BYTES = 1_500_000_000  # weights above this lie beside the graph: a protobuf file ends at 2 GB
FILE = "model.onnx"


def require() -> None:
    """Raises CourseError when a package that the export to ONNX needs is not installed."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise CourseError(
            f"The export to ONNX needs {', '.join(missing)}. Run `pip install {' '.join(missing)}` in the environment "
            "of the course, then this again."
        )


def write(source: str, target: str) -> str:
    """Writes the whole model in the folder `source` as ONNX, in 32 bit, with its tokenizer, into the folder `target`.

    Unsloth must not be imported in the process: its fast layers are no graph. Rows and lengths stay free.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, use_safetensors=True).eval()
    file = Path(target) / FILE
    file.parent.mkdir(parents=True)
    ids = torch.arange(16).reshape(2, 8)  # a sample: two rows, five tokens that were read and three new ones
    with torch.no_grad():
        past = model(input_ids=ids[:, :5], use_cache=True).past_key_values
    sample = {
        "input_ids": ids[:, 5:],
        "attention_mask": torch.ones_like(ids),
        "past_key_values": past,
        "use_cache": True,
    }
    large = sum(p.numel() * p.element_size() for p in model.parameters()) > ONE_FILE_BYTES
    OnnxExporter().export(model, sample, OnnxConfig(dynamic=True, output_path=str(file), external_data=large))
    model.config.save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)
    return str(file)


class OnnxModel:
    """A file of `write`, in ONNX Runtime on the CPU."""

    def __init__(self, folder: str | Path):
        import onnxruntime
        from transformers import AutoConfig, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self.longest = AutoConfig.from_pretrained(str(folder)).max_position_embeddings
        self._session = onnxruntime.InferenceSession(str(Path(folder) / FILE), providers=["CPUExecutionProvider"])
        self._past = {i.name: i.shape for i in self._session.get_inputs() if "past_key_values" in i.name}
        self._names = [output.name for output in self._session.get_outputs()]

    def _logits(self, ids: Sequence[int], before: int = 0, past: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Logits at the places of these tokens, and the keys and values of all tokens up to them."""
        import numpy as np

        if past is None:
            past = {name: np.zeros((1, int(s[1]), 0, int(s[3])), np.float32) for name, s in self._past.items()}
        fed = {
            "input_ids": np.array([ids], dtype=np.int64),
            "attention_mask": np.ones((1, before + len(ids)), dtype=np.int64),
        }
        made = dict(zip(self._names, self._session.run(None, fed | past), strict=True))
        return made["logits"][0], {name: made[name.replace("input.", "output.", 1)] for name in self._past}

    def next(self, prompt: list[int], wanted: list[int]) -> list[int]:
        """The likeliest token at each place of a known answer (teacher forcing)."""
        logits, _ = self._logits([*prompt, *wanted[:-1]])
        return logits[len(prompt) - 1 :].argmax(-1).tolist()

    def write(self, prompt: list[int], most: int) -> tuple[list[int], list[float]]:
        """A greedy answer: its tokens, the stop token too, and by how much each one's logit is above the next one's."""
        tokens: list[int] = []
        leads: list[float] = []
        ids, before, past = prompt, 0, None
        while len(tokens) < most and tokens[-1:] != [self.tokenizer.eos_token_id]:
            logits, past = self._logits(ids, before, past)
            second, first = sorted(logits[-1].tolist())[-2:]
            tokens.append(int(logits[-1].argmax()))
            leads.append(first - second)
            before, ids = before + len(ids), tokens[-1:]
        return tokens, leads
