"""The verdict from made numbers, the receipt on the page, and its figures against direct computation.

Real runs that are sick on purpose are in test_sick_runs.py.
"""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from unsloth_course import diagnosis
from unsloth_course.core.errors import CourseError
from unsloth_course.lesson.diagnosis import NOT_TRAINED, SUSPICIOUS, TRAINED, Evidence, Receipt, judge, watching
from unsloth_course.lesson.evaluation import Measure, Retention, Score
from unsloth_course.lesson.evaluation.scores import Changed

NAN = float("nan")
SCORE = Score("exact_match", 200, 0.0, 0.9, (0.85, 0.94), Retention("exact_match", 1.0, 0.98), 0.1, (0.75, 0.85))
WELL = Evidence(
    steps=60,
    updates=60,
    changed_tensors=56,
    trainable_tensors=56,
    trained_tokens=800,
    sampled_rows=256,
    learning_rate=1e-3,
    losses=[6.0, 5.0, 2.0, 1.0, 0.2, 0.1],
    unseen=[7.0, 0.3],
    score=SCORE,
    predicted_bytes=100_000_000,
    measured_bytes=110_000_000,
)


def verdict_and_names(**changes):
    verdict, findings = judge(replace(WELL, **changes))
    return verdict, [finding.name for finding in findings]


def scored(**changes):
    return replace(SCORE, **changes)


@pytest.mark.parametrize(
    ("verdict", "name", "changes"),
    [
        (NOT_TRAINED, "no trained token", {"trained_tokens": 0}),
        (NOT_TRAINED, "no step", {"steps": 0, "updates": 0}),
        (NOT_TRAINED, "no update", {"updates": 0}),
        (NOT_TRAINED, "learning rate 0", {"learning_rate": 0.0}),
        (NOT_TRAINED, "weights unchanged", {"changed_tensors": 0}),
        (NOT_TRAINED, "broken weights", {"finite_weights": False}),
        (NOT_TRAINED, "loss not a number", {"losses": [6.0, NAN, 0.1]}),
        (NOT_TRAINED, "loss not a number", {"losses": [6.0, math.inf, 0.1]}),
        (SUSPICIOUS, "loss did not fall", {"losses": [1.0, 1.0, 1.0]}),
        (SUSPICIOUS, "loss did not fall", {"losses": [1.0, 0.1, 2.0]}),
        (SUSPICIOUS, "unseen loss did not fall", {"unseen": [1.0, 0.2, 1.0]}),
        (SUSPICIOUS, "unseen loss did not fall", {"unseen": [1.0, NAN]}),
        (SUSPICIOUS, "unseen loss did not fall", {"unseen": [1.0, math.inf]}),
        (SUSPICIOUS, "no held-out effect", {"score": scored(after=0.0, interval=(0.0, 0.0))}),
        (SUSPICIOUS, "no held-out effect", {"score": scored(after=0.01, interval=(0.0, 0.02))}),
        (SUSPICIOUS, "no held-out effect", {"score": scored(after=0.0, interval=(-0.1, 0.1))}),
        (SUSPICIOUS, "held-out score worse", {"score": scored(before=0.5, after=0.2, interval=(-0.4, -0.2))}),
        (
            SUSPICIOUS,
            "no better than chance",
            {"score": scored(after=0.09, interval=(0.05, 0.13), above_chance=(-0.03, 0.04))},
        ),
        (SUSPICIOUS, "held-out score worse", {"score": Score("perplexity", 50, 9.0, 12.0, (2.0, 4.0))}),
        (SUSPICIOUS, "no held-out effect", {"score": Score("perplexity", 50, 9.0, 8.9, (-0.5, 0.3))}),
        (SUSPICIOUS, "no held-out effect", {"score": Score("perplexity", 50, 9.0, NAN, (NAN, NAN))}),
        (TRAINED, "skipped steps", {"updates": 57}),
        (TRAINED, "forgetting", {"score": scored(retention=Retention("exact_match", 1.0, 0.9))}),
        (TRAINED, "memory", {"predicted_bytes": 200_000_000}),
        (TRAINED, "memory", {"measured_bytes": 200_000_000}),
        (TRAINED, None, {"losses": []}),
        (TRAINED, None, {"losses": [6.0, 7.0]}),  # too few to compare
        (TRAINED, None, {"losses": [6.0, 9.0, 0.1]}),  # a spike on the way
        (TRAINED, None, {"unseen": []}),
        (TRAINED, None, {"unseen": [5.0]}),
        (TRAINED, None, {"score": None}),
        (TRAINED, None, {"learning_rate": None}),
        (TRAINED, None, {"changed_tensors": 30}),  # LoRA's A does not move in the first step
        (TRAINED, None, {"score": Score("perplexity", 50, 9.0, 4.0, (-6.0, -4.0))}),
        (TRAINED, None, {"score": scored(retention=Retention("exact_match", 1.0, 0.95))}),
        (TRAINED, None, {"score": scored(retention=Retention("exact_match", 0.5, 0.9))}),
        (TRAINED, None, {"score": scored(chance=None, above_chance=None)}),
        (TRAINED, None, {"predicted_bytes": 0}),
        (TRAINED, None, {"measured_bytes": 0}),
    ],
)
def test_what_is_said_of_a_run(verdict, name, changes):
    assert verdict_and_names(**changes) == (verdict, [name] if name else [])


def test_a_fatal_finding_outweighs_the_rest_and_all_are_told():
    verdict, names = verdict_and_names(
        learning_rate=0.0, changed_tensors=0, losses=[7.0, 7.1, 7.2], score=scored(after=0.0, interval=(0.0, 0.0))
    )
    assert verdict == NOT_TRAINED
    assert names == ["learning rate 0", "weights unchanged", "loss did not fall", "no held-out effect"]


numbers = st.floats(allow_nan=True, allow_infinity=True)
counts = st.integers(0, 1000)


@given(
    st.builds(
        Evidence,
        steps=counts,
        updates=counts,
        changed_tensors=counts,
        trainable_tensors=counts,
        trained_tokens=counts,
        sampled_rows=counts,
        learning_rate=st.none() | numbers,
        losses=st.lists(numbers, max_size=9),
        unseen=st.lists(numbers, max_size=4),
        score=st.none()
        | st.builds(
            Score,
            metric=st.sampled_from(["exact_match", "perplexity"]),
            n=counts,
            before=numbers,
            after=numbers,
            interval=st.tuples(numbers, numbers),
            retention=st.none() | st.builds(Retention, st.just("exact_match"), numbers, numbers),
            chance=st.just(0.1),
            above_chance=st.none() | st.tuples(numbers, numbers),
        ),
        finite_weights=st.booleans(),
        predicted_bytes=counts,
        measured_bytes=counts,
    )
)
def test_any_numbers_get_a_verdict_and_a_page(evidence):
    verdict, findings = judge(evidence)
    levels = {finding.level for finding in findings}
    assert verdict == (NOT_TRAINED if "fatal" in levels else SUSPICIOUS if "doubt" in levels else TRAINED)
    assert levels <= {"fatal", "doubt", "note"}
    assert len({finding.name for finding in findings}) == len(findings)
    made = receipt(evidence)
    assert made.sentence() in str(made) and made._repr_html_()
    assert (diagnosis.WHAT_NOW in str(made)) == (verdict != TRAINED)


def receipt(evidence=WELL, **changes):
    verdict, findings = judge(evidence)
    made = Receipt(
        verdict=verdict,
        findings=findings,
        evidence=evidence,
        layer_change={0: 0.031, 1: 0.075},
        answers=None,
        seed=3407,
        data_hash="d25516edb3c2",
        versions={"unsloth": "2026.10.9", "trl": "1.15.0"},
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "This run trained: the weights moved, the loss fell, and held-out questions are answered better."),
        ({"score": None}, "the weights moved and the loss fell."),
        ({"losses": []}, "the weights moved and held-out questions are answered better."),
        ({"losses": [2.0, 3.0], "score": None, "unseen": []}, "This run trained: the weights moved."),
        ({"score": Score("perplexity", 50, 9.0, 4.0, (-6.0, -4.0))}, "and held-out text is predicted better."),
    ],
)
def test_it_claims_nothing_that_was_not_measured(changes, words):
    assert receipt(replace(WELL, **changes)).sentence().endswith(words)


def test_a_sick_run_says_why():
    made = receipt(replace(WELL, changed_tensors=0, updates=57))
    assert made.sentence() == (
        "This run did not train. All 56 trainable tensors have the values that they had before training."
    )
    doubtful = receipt(replace(WELL, losses=[1.0, 1.0, 1.0]))
    assert doubtful.sentence().startswith("This run is suspicious. The training loss did not fall: 1.000")


def test_the_lines_of_the_receipt():
    lines = dict(receipt().rows())
    assert lines == {
        "updates applied": "60 of 60 steps",
        "tensors changed": "56 of 56",
        "weight change by layer": "0: 3.1 %, 1: 7.5 %",
        "loss on seen rows": "6.000 at first, 0.100 at last",
        "loss on unseen rows": "7.000 at first, 0.300 at last",
        "exact match, 200 held-out questions": "0.000 before, 0.900 after (95 % interval +0.850 to +0.940)",
        "untouched skills": "1.000 before, 0.980 after",
        "peak memory": "95.4 MiB predicted, 104.9 MiB measured",
        "seed, data": "3407, d25516edb3c2",
        "versions": "unsloth 2026.10.9, trl 1.15.0",
    }


def test_lines_that_nothing_is_known_of_are_left_out():
    bare = replace(WELL, losses=[], unseen=[], score=None, measured_bytes=0)
    assert [what for what, _ in receipt(bare, layer_change={}).rows()] == [
        "updates applied",
        "tensors changed",
        "seed, data",
        "versions",
    ]
    assert dict(receipt(replace(WELL, predicted_bytes=0)).rows())["peak memory"] == "104.9 MiB measured"


ANSWERS = Changed({"newly right": 1, "still wrong": 7}, [("newly right", "q", "a", "b", "a")])
ATTACK = "<script>alert('x')</script>&<img src=x onerror=alert(1)>"


def test_text_of_the_data_and_of_the_model_is_escaped():
    answers = Changed({"newly right": 1}, [("newly right", ATTACK, ATTACK, ATTACK, ATTACK)])
    repeated = replace(WELL, repeated=(ATTACK, 9, 10))
    page = receipt(repeated, answers=answers, versions={ATTACK: ATTACK})._repr_html_()
    assert "<script" not in page and "<img" not in page
    assert page.count("&lt;script&gt;") == 7


def test_the_page_says_the_verdict_and_every_finding():
    made = receipt(replace(WELL, changed_tensors=0, updates=57), answers=ANSWERS)
    page, text = made._repr_html_(), str(made)
    assert "<b>Not trained.</b>" in page and text.startswith("NOT TRAINED: ")
    for finding in made.findings:
        assert finding.text.replace("'", "&#x27;") in page and finding.text in text
    assert "<td style=" in page and "newly right: 'q': 'b' -> 'a' (expected 'a')" in text
    assert dict(made.rows())["answers"] == "newly right 1, still wrong 7" and "newly right 1, still wrong 7" in page
    assert repr(made) == text
    assert "<style" not in page and "class=" not in page and "http" not in page, "it needs no style sheet"


def test_the_part_of_the_results_file():
    made = receipt(replace(WELL, updates=57))
    assert made.to_dict() == {
        "verdict": "trained",
        "findings": [{"level": "note", "name": "skipped steps", "text": made.findings[0].text}],
    }


def measured(**own):
    """A score of the LoRA lesson: held-out answers became likelier, and exact match rose."""
    judge = Measure("answer_perplexity", 6.5, 5.5, (-1.2, -0.8), 200, True, 180)
    others = (Measure("told_apart", 0.7, 1.0, (0.1, 0.4), 24), Measure("stops", 0.1, 1.0, (0.8, 0.95), 80))
    return replace(
        SCORE, **({"n": 80, "before": 0.05, "after": 0.3, "interval": (0.15, 0.35)} | own), measures=(judge, *others)
    )


def with_measure(score, name, **changes):
    changed = tuple(replace(one, **changes) if one.name == name else one for one in score.measures)
    return replace(score, measures=changed)


def likelihood(**changes):
    return with_measure(measured(), "answer_perplexity", **changes)


FORM_ONLY = measured(after=0.06, interval=(-0.05, 0.07), above_chance=(-0.05, 0.02))


@pytest.mark.parametrize(
    ("score", "verdict", "name"),
    [
        (measured(), TRAINED, None),
        (FORM_ONLY, TRAINED, "form only"),
        (likelihood(interval=(-0.2, 0.1)), SUSPICIOUS, "no held-out effect"),
        (likelihood(after=6.45, interval=(-0.06, -0.04)), SUSPICIOUS, "no held-out effect"),
        (likelihood(after=7.0, interval=(0.2, 0.7)), SUSPICIOUS, "held-out score worse"),
        (measured(before=0.3, after=0.1, interval=(-0.3, -0.1)), SUSPICIOUS, "held-out score worse"),
        (measured(above_chance=(-0.05, 0.1)), SUSPICIOUS, "no better than chance"),
        (with_measure(measured(), "told_apart", after=0.54), SUSPICIOUS, "no better than chance"),
        (with_measure(FORM_ONLY, "told_apart", after=0.54), SUSPICIOUS, "no better than chance"),
    ],
)
def test_the_verdict_follows_the_likelihood_and_facts_are_told_apart_from_form(score, verdict, name):
    found, findings = judge(replace(WELL, score=score))
    assert (found, name) == (verdict, findings[0].name if findings else None)


def test_an_exact_match_that_was_high_before_is_no_lack_of_facts():
    assert judge(replace(WELL, score=measured(before=0.98, after=0.99, interval=(-0.01, 0.03)))) == (TRAINED, [])


def test_a_receipt_has_a_line_for_each_measure_the_one_that_judges_first():
    made = receipt(replace(WELL, score=measured()))
    lines = [(what, value) for what, value in made.rows() if "95 % interval" in value]
    assert [what for what, _ in lines] == [
        "answer perplexity, 200 held-out answers (judges)",
        "exact match, 80 held-out questions",
        "told apart, n = 24",
        "stops, n = 80",
    ]
    assert lines[0][1].endswith("(95 % interval -1.200 to -0.800); 180 of 200 became likelier")
    assert made.sentence().endswith("and held-out answers became likelier.")
    assert "The form was learned, and the facts were not" in str(receipt(replace(WELL, score=FORM_ONLY)))


def test_a_receipt_of_few_questions_says_what_they_cannot_show():
    few = dict(receipt(replace(WELL, score=scored(n=25))).rows())["few rows"]
    assert few == "n = 25 can only show changes of 20 points or more."
    assert "few rows" not in dict(receipt().rows())


def test_one_answer_to_most_questions_is_suspicious():
    verdict, findings = judge(replace(WELL, repeated=("black", 25, 25)))
    assert (verdict, [finding.name for finding in findings]) == (SUSPICIOUS, ["one answer"])
    assert findings[0].text.startswith("One answer was given to 25 of 25 questions: 'black'.")


ROWS = [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, {"input_ids": [4], "labels": [4]}]


def test_the_same_rows_have_the_same_name():
    name = diagnosis.data_hash(Dataset.from_list(ROWS))
    assert name == diagnosis.data_hash(ROWS) == diagnosis.data_hash([dict(reversed(row.items())) for row in ROWS])
    assert len(name) == 12 and set(name) <= set("0123456789abcdef")
    assert name == "5f1bc867f514"  # so that two versions of the course give it the same name


def test_other_rows_have_another_name():
    changed = copy.deepcopy(ROWS)
    changed[1]["labels"] = [-100]
    names = [diagnosis.data_hash(rows) for rows in (ROWS, changed, ROWS[::-1], ROWS[:1], [])]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("text", ["\ud800", "\x00", "é" * 1000, "<|im_end|>"])
def test_any_text_has_a_name(text):
    assert diagnosis.data_hash([{"text": text}]) != diagnosis.data_hash([{"text": "a"}])


def direct_change(model, layer):
    """The LoRA change of one layer, through peft's own delta weights."""
    moved = whole = 0.0
    for name, module in model.named_modules():
        if f"layers.{layer}." in name and hasattr(module, "get_delta_weight"):
            moved += float((module.get_delta_weight("default").detach() ** 2).sum())
            whole += float((module.base_layer.weight**2).sum())
    return math.sqrt(moved / whole)


def test_the_change_by_layer_of_an_adapter_is_that_of_its_product(healthy):
    change = healthy.receipt.layer_change
    assert list(change) == list(range(healthy.model.config.num_hidden_layers))
    for layer, share in change.items():
        assert share == pytest.approx(direct_change(healthy.model, layer), rel=1e-3)
        assert 0.005 < share < 0.5


def test_an_adapter_scale_counts(with_adapter):
    import torch

    model, _ = with_adapter(rank=4, lora_alpha=12)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.01)
    after = {name: p.detach() for name, p in model.named_parameters() if name in before}
    for layer, share in watching._layer_change(model, before, after).items():
        assert share == pytest.approx(direct_change(model, layer), rel=1e-4)


def test_the_change_by_layer_of_all_weights(load):
    import torch

    model, _ = load(full_finetuning=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.5)
        model.model.embed_tokens.weight.mul_(2)  # belongs to no layer
    after = {name: p.detach() for name, p in model.named_parameters()}
    squares = {name: float((tensor**2).sum()) for name, tensor in before.items() if ".layers.1." in name}
    moved = 0.25 * squares["model.layers.1.mlp.up_proj.weight"]
    change = watching._layer_change(model, before, after)
    assert change[1] == pytest.approx(math.sqrt(moved / sum(squares.values())), rel=1e-4)
    assert {layer: share for layer, share in change.items() if layer != 1} == dict.fromkeys((0, 2, 3), 0.0)


def test_updates_are_counted_by_the_parameter_that_had_most():
    def optimizer(*states):
        return SimpleNamespace(state=dict(enumerate(states)))

    assert watching._updates(optimizer({"step": 3.0}, {"step": 5.0}, {})) == 5
    assert watching._updates(optimizer({"momentum_buffer": 1})) is None  # SGD does not count
    assert watching._updates(optimizer()) is None
    assert watching._updates(None) is None


def rows_with_labels(labels):
    """A trainer of nothing, whose collator gives the labels of each row as a batch of one."""
    import torch

    def collate(rows):
        assert "other" not in rows[0], "the training loop feeds no text to the collator"
        return {name: torch.tensor([rows[0][name]]) for name in ("input_ids", "labels")}

    columns = {"input_ids": labels, "labels": labels, "other": ["x"] * len(labels)}
    return SimpleNamespace(train_dataset=Dataset.from_dict(columns), data_collator=collate, args=SimpleNamespace())


def test_labels_are_counted_as_the_loss_counts_them():
    """The first token of a row is predicted from nothing, so its label does not count."""
    assert watching._trained_tokens(rows_with_labels([[-100, 5, 6], [7, -100, -100], [7, 8, -100]]), "sft") == (3, 3)


def test_rows_from_everywhere_are_looked_at():
    """The first thousand rows of a data set may be too long and the rest well."""
    labels = [[-100, -100]] * 1000 + [[-100, 5]] * 1000
    trained, looked_at = watching._trained_tokens(rows_with_labels(labels), "sft")
    assert looked_at == watching.SAMPLED_ROWS and trained == looked_at // 2


def test_a_trainer_without_rows_is_a_sentence():
    """TRL leaves out rows in which nothing is trained, and then fails with a sentence about samplers."""
    with pytest.raises(CourseError, match=r"no rows left.*Raise max_length"):
        diagnosis.Watch(SimpleNamespace(train_dataset=Dataset.from_dict({"labels": []})))


LN_2 = math.log(2)
PREFERENCE = Score("preference_rate", 200, 0.1, 0.95, (0.8, 0.9), correctness=Retention("correct", 0.98, 0.97))
DPO = replace(WELL, method="dpo", losses=[LN_2, 0.6, 0.4, 0.3, 0.2, 0.1], unseen=[], score=PREFERENCE)
GRPO = replace(
    WELL,
    method="grpo",
    losses=[0.0] * 6,
    unseen=[],
    rewards=[0.5, 0.6, 0.8, 0.9, 1.1, 1.2],
    spreadless=[0.0, 0.2, 0.1, 0.3, 0.6, 1.0],
    clipped=[0.1, 0.0, 0.0, 0.0, 0.0, 0.0],
    score=Score("accuracy", 200, 0.5, 0.98, (0.4, 0.55)),
)
CPT = replace(
    WELL,
    method="cpt",
    score=Score(
        "perplexity", 100, 600.0, 2.0, (-700.0, -500.0), Retention("perplexity", 1.5, 1.6), 90.0, (-110.0, -70.0)
    ),
)


@pytest.mark.parametrize("well", [WELL, DPO, GRPO, CPT], ids=lambda e: e.method)
def test_a_run_of_each_method_without_a_fault_is_trained(well):
    assert judge(well) == (TRAINED, [])


@pytest.mark.parametrize(
    "losses",
    [
        [LN_2] * 6,
        [0.6933, 0.6931, 0.6932],
        [0.694, 0.692, 0.690, 0.689, 0.689, 0.689],
        [LN_2],  # logged once or twice, as in a short run with the default of logging_steps
        [0.6931, 0.6929],
    ],
)
def test_a_dpo_loss_that_stays_at_ln_2_is_not_trained(losses):
    verdict, findings = judge(replace(DPO, losses=losses))
    assert verdict == NOT_TRAINED
    assert "loss stays at ln 2" in [finding.name for finding in findings]


def test_another_loss_near_ln_2_is_not_taken_for_dpo():
    assert "loss stays at ln 2" not in verdict_and_names(losses=[LN_2] * 6)[1]
    assert judge(replace(DPO, losses=[1.0, 0.8, 0.72, 0.71, 0.70, 0.70]))[0] == TRAINED


@pytest.mark.parametrize("losses", [[LN_2, 0.9, 1.4, 2.0, 3.0, 4.0], [LN_2, 2.0], [LN_2, math.nan], []])
def test_a_dpo_loss_that_left_ln_2_for_the_worse_did_not_stay_there(losses):
    assert "loss stays at ln 2" not in [finding.name for finding in judge(replace(DPO, losses=losses))[1]]


def test_preference_accuracy_judges_and_tells_swapped_pairs():
    def dpo(after, interval, *others):
        accuracy = Measure("preference_accuracy", 0.5, after, interval, 200, judges=True)
        return judge(replace(DPO, score=replace(PREFERENCE, measures=(accuracy, *others))))

    assert dpo(0.9, (0.35, 0.43)) == (TRAINED, [])
    assert [f.name for f in dpo(0.55, (-0.02, 0.12))[1]] == ["no held-out effect"]
    verdict, (worse,) = dpo(0.1, (-0.43, -0.35))
    assert verdict == SUSPICIOUS and "chosen and rejected are probably swapped" in worse.text
    verdict, (dearer,) = dpo(0.9, (0.35, 0.43), Measure("chosen_perplexity", 10.0, 12.0, (1.0, 3.0), 200))
    assert verdict == TRAINED and dearer.text.startswith("The chosen answers became 20 % more surprising")


def test_a_gain_from_guessing_is_called_so():
    def grpo(before, after):
        judged = Measure("accuracy", 0.5, 0.98, (0.4, 0.55), 200, judges=True)
        steps = Measure("worked", before, after, (-0.2, 0.2), 40)
        return judge(replace(GRPO, score=replace(GRPO.score, measures=(judged, steps))))

    assert grpo(0.14, 0.04) == (TRAINED, [])
    verdict, (found,) = grpo(0.14, 0.0)
    assert (verdict, found.name) == (SUSPICIOUS, "guessing")
    assert "14 % of the tries showed steps before, 0 % after" in found.text


def test_the_reward_is_told_as_it_is_judged():
    lines = dict(receipt(replace(GRPO, spreads=[0.4, 0.2, 0.3, 0.3, 0.1, 0.1])).rows())
    assert lines["reward"] == "0.550 in the first third, 1.150 in the last"
    assert lines["spread within groups"] == "0.300 in the first third, 0.100 in the last"
    assert dict(receipt(replace(GRPO, rewards=[0.5, 0.7])).rows())["reward"] == "0.500 at first, 0.700 at last"


def test_a_constant_reward_is_not_trained():
    verdict, findings = judge(replace(GRPO, rewards=[1.0] * 6, spreadless=[1.0] * 6))
    assert verdict == NOT_TRAINED
    assert {f.name for f in findings} == {"no spread in rewards", "reward did not rise"}


def test_equal_rewards_have_no_spread_whatever_rounding_makes_of_them():
    """As TRL logs eight rewards of 1.2, which are no exact numbers in binary: it finds no group without spread."""
    log = [
        {"frac_reward_zero_std": 0.0, "reward_std": 1.3e-7},
        {"frac_reward_zero_std": 0.25, "reward_std": 0.5},
        {"frac_reward_zero_std": 1.0, "reward_std": 0.3},  # alike in each group, and not between them
        {"frac_reward_zero_std": 0.5},
        {"loss": 1.0},
    ]
    assert watching._spreadless(log) == [1.0, 0.25, 1.0, 0.5]


def of_score(evidence, **changes):
    return replace(evidence, score=replace(evidence.score, **changes))


CHAT = Measure("chat_perplexity", 6.0, 6.6, (0.4, 0.8), 60)
DOMAIN = Measure("perplexity", 600.0, 2.0, (-700.0, -500.0), 100, judges=True)


@pytest.mark.parametrize(
    ("evidence", "verdict", "name", "words"),
    [
        (of_score(DPO, after=0.0, interval=(-0.15, -0.05)), SUSPICIOUS, "held-out score worse", "probably swapped"),
        (of_score(DPO, correctness=Retention("correct", 0.98, 0.92)), SUSPICIOUS, "correctness fell", "98.0 % right"),
        (of_score(DPO, correctness=Retention("correct", 0.98, 0.93)), TRAINED, None, ""),
        (replace(GRPO, losses=[0.1, 0.2, 0.3]), TRAINED, None, ""),  # it lies about 0 whatever is learned
        (replace(GRPO, rewards=[0.9, 0.5, 0.4]), SUSPICIOUS, "reward did not rise", "0.900 in the first third"),
        (replace(GRPO, clipped=[0.9, 0.8, 0.7]), SUSPICIOUS, "completions cut off", "80 % of the completions"),
        (of_score(CPT, chance=1.9, above_chance=(-0.1, 0.3)), SUSPICIOUS, "order not learned", "2.000 against 1.900"),
        (of_score(CPT, measures=(DOMAIN, CHAT)), TRAINED, "chat perplexity rose", "Answers in chat became 10 % more"),
        (of_score(CPT, retention=Retention("perplexity", 1.5, 3.0)), TRAINED, "forgetting", "100 % more surprising"),
    ],
)
def test_what_is_said_of_a_method(evidence, verdict, name, words):
    found, findings = judge(evidence)
    assert (found, [finding.name for finding in findings]) == (verdict, [name] if name else [])
    assert all(words in finding.text for finding in findings)
