"""Real runs of continued pretraining that cannot learn, or learn the wrong thing, and what the receipt says of them."""

from types import SimpleNamespace

import pytest

from unsloth_course import data, diagnosis, evaluation, models, training
from unsloth_course.core.errors import CourseError

SETTINGS = {"target_modules": [*models.PROJECTIONS, "embed_tokens", "lm_head"], "use_rslora": True}
LENGTH = 128
SMALL = {"steps": 6, "held_out": 8}  # where it does not matter how much is learned; every fifth step is logged


@pytest.fixture(scope="module")
def run_cpt(machine, with_adapter, tmp_path_factory):
    """Goes on pretraining as the lesson does, only shorter: blocks of the domain, two in five of them replay.

    change(texts) may replace the texts of the domain, spoil(blocks) the blocks. Other arguments go to
    `UnslothTrainingArguments`.
    """
    begun = {}  # what so many texts are to a fresh adapter, which changes nothing

    def run(steps=20, change=list, spoil=lambda blocks: blocks, tied=True, held_out=24, **settings):
        model, tokenizer = with_adapter(64, ensure_weight_tying=tied, **SETTINGS)
        texts, test, _ = data.sources.corpus("pocket", train=20 * steps, held_out=held_out, seed=3407)
        general, stories = data.sources.general_text("pocket", train=40 * steps, held_out=held_out, seed=3407)
        domain = data.corpus.blocks(change(texts["text"]), tokenizer, LENGTH).dataset.select(range(round(9.6 * steps)))
        replay = data.corpus.blocks(general["text"], tokenizer, LENGTH).dataset

        def surprise(texts):
            return evaluation.perplexity(model, tokenizer, texts, LENGTH)

        if held_out not in begun:
            begun[held_out] = surprise(test["text"]), surprise(stories["text"])
        before = begun[held_out]
        blocks = spoil(data.corpus.mix(domain, replay, 0.4, seed=3407))
        how = {"learning_rate": 1e-3, "embedding_learning_rate": 5e-4, "steps": steps, "seed": 3407} | settings
        out = tmp_path_factory.mktemp("cpt")
        trainer = training.continued(model, tokenizer, blocks, machine, **how, out=out, watched=True)
        after = surprise(test["text"]), surprise(stories["text"])
        salad = surprise(evaluation.shuffled(test["text"]))
        score = evaluation.perplexity_score(before[0], after[0], (before[1], after[1]), chance=salad)
        return SimpleNamespace(model=model, score=score, receipt=diagnosis.receipt(trainer.watching, score))

    return run


def names(run):
    return {finding.name for finding in run.receipt.findings if finding.level != "note"}


@pytest.fixture(scope="module")
def healthy(run_cpt):
    return run_cpt()


def test_a_healthy_run_is_trained(healthy):
    assert healthy.receipt.verdict == "trained", str(healthy.receipt)
    assert names(healthy) == set()
    assert healthy.receipt.evidence.method == "cpt"
    assert healthy.score.after < 0.02 * healthy.score.before
    # Order matters to it, and by far: that is what sets it apart from the shuffled run below.
    assert healthy.score.chance > 3 * healthy.score.after
    # Every token of a block but the first carries the loss.
    evidence = healthy.receipt.evidence
    assert evidence.trained_tokens == evidence.sampled_rows * (LENGTH - 1)
    # An adapter on seven projections of four layers, and one table of embeddings.
    assert evidence.changed_tensors == evidence.trainable_tensors == 2 * 7 * 4 + 1
    assert models.require_tied(healthy.model)


def test_a_learning_rate_of_0_is_not_trained(run_cpt):
    run = run_cpt(**SMALL, learning_rate=0, embedding_learning_rate=0)
    assert run.receipt.verdict == "not trained"
    assert {"learning rate 0", "weights unchanged", "no held-out effect"} <= names(run)
    assert run.score.before == run.score.after
    assert "held-out texts" in str(run.receipt)


def test_every_label_masked_is_a_sentence(run_cpt):
    """The trainer leaves such rows out: nothing is left to train on, and the run ends before it begins."""

    def masked(blocks):
        return blocks.map(lambda row: {"labels": [-100] * len(row["input_ids"])})

    with pytest.raises(CourseError, match=r"no rows left.*check which tokens are masked"):
        run_cpt(**SMALL, spoil=masked)


def test_shuffled_text_is_not_called_trained(run_cpt, healthy):
    """Its loss falls, and held-out text becomes less surprising: only the order tells."""
    run = run_cpt(change=evaluation.shuffled)
    assert run.score.after < 0.05 * run.score.before
    losses = run.receipt.evidence.losses
    assert losses[-1] < 0.7 * losses[0]
    assert run.receipt.verdict == "suspicious", str(run.receipt)
    assert names(run) == {"order not learned"}
    assert "Text in its own order is no less surprising than its words shuffled" in run.receipt.sentence()
    assert run.score.chance < 1.5 * run.score.after


def test_two_tables_drift_apart_and_are_not_taken_for_one(run_cpt):
    run = run_cpt(**SMALL, tied=False)
    reads, writes = run.model.get_input_embeddings().weight, run.model.get_output_embeddings().weight
    assert not reads.equal(writes)
    with pytest.raises(CourseError, match="should be one tensor, and they are two"):
        models.require_tied(run.model)


def test_an_embedding_rate_of_0_leaves_the_table_as_it_was(run_cpt, load):
    run = run_cpt(**SMALL, embedding_learning_rate=0)
    assert run.model.get_input_embeddings().weight.equal(load()[0].get_input_embeddings().weight)
    evidence = run.receipt.evidence
    assert evidence.changed_tensors == evidence.trainable_tensors - 1
