"""The numbers that a recipe picks where an option leaves them open."""

import pytest

from unsloth_course import profile
from unsloth_course.finetune import Options, recipes

CARD = profile.Machine(
    cuda_name="NVIDIA L4",
    cuda_bytes=22 * 1024**3,
    bfloat16=True,
    cores=8,
    memory_bytes=32 * 1024**3,
    apple_silicon=False,
)


def rate(method, name="gpu", model="pocket", **options):
    machine = profile.decide(CARD, name, model, "pocket")
    return recipes.Recipe(Options(method=method, data="pocket", **options), machine).learning_rate


def test_all_weights_in_bfloat16_take_a_larger_step():
    assert rate("full") == 2 * rate("full", "cpu") == 2e-4


@pytest.mark.parametrize("method", ["lora", "dpo", "grpo", "cpt"])
def test_an_adapter_is_float32_and_takes_the_same_everywhere(method):
    assert rate(method) == rate(method, "cpu")


def test_what_is_asked_for_goes_first():
    assert rate("full", learning_rate=3e-5) == 3e-5


class Asked:
    """A task of an earlier stage that notes which model it was asked of."""

    def measure(self, model, tokenizer):
        return f"score of {model}"


def test_a_resumed_warm_up_measures_the_model_as_it_was_handed_on(tmp_path, monkeypatch):
    options = Options(method="dpo", data="pocket", out=tmp_path, resume=True)
    recipe = recipes.Recipe(options, profile.decide(CARD, "cpu", "pocket", "pocket"))
    monkeypatch.setattr(recipes.Recipe, "load", lambda self, folder: (folder, None))
    monkeypatch.setattr(recipes.Recipe, "supervise", lambda *_: pytest.fail("it was warmed up before"))
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "config.json").write_text("{}")
    start = str(tmp_path / "start")
    assert recipe.warmed_up("handed on", None, []) == (start, [])
    assert recipe.warmed_up("handed on", None, [Asked()]) == (start, ["score of handed on"])
