from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import pytest

from llm_blender.data import read_rows, vote_records
from llm_blender.errors import CheckpointError, InputError, NotFoundError, WorkError
from llm_blender.history import History
from llm_blender.rankers.pair_ranker import PairRanker, PairRankerConfig
from llm_blender.ranking import EvidenceWeights, Interval, Weights
from llm_blender.store import Store
from llm_blender.training import votes as module
from llm_blender.types import Candidate, Example, LabelledPair

NAMES = ["sky", "sea", "sun", "moon", "tree", "bird", "air", "water"]


def voted(number: int = 64) -> list[Example]:
    """Make rows with a vote for the good candidate, which is alternately a and b."""
    rows = []
    for i, (one, other) in enumerate(itertools.islice(itertools.product(NAMES, NAMES), number)):
        texts = [f"the {one} is good", f"the {other} is bad"][:: 1 if i % 2 else -1]
        pair = LabelledPair(0, 1, "a" if i % 2 else "b")
        rows.append(Example(f"why {one} {other}", candidates=tuple(map(Candidate, texts)), pairs=(pair,)))
    return rows


# A tiny ranker needs a high learning rate.
FAST = {**module.SETTINGS, "learning_rate": 1e-3, "keep_init": 0.0}


class TestReading:
    def test_rows_without_what_decides_nothing(self, tmp_path):
        pairs = [
            {"a": 0, "b": 1, "label": "tie"},
            {"a": 0, "b": 2, "label": "a"},
            {"a": 1, "b": 2, "label": "b"},
        ]
        rows = [
            {"instruction": "Why?", "input": "Say.", "candidates": ["A", "B", " A"], "pairs": pairs},
            {"instruction": "How?", "candidates": ["A", "B"], "pairs": pairs[:1]},
            {"instruction": "Who?", "candidates": ["A", "B"]},
        ]
        path = tmp_path / "votes.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (row,) = module.read_votes(path)
        assert (row.prompt, row.pairs) == ("Why?\nSay.", (LabelledPair(1, 2, "b"),))

    def test_the_store_of_the_service(self, tmp_path):
        report = {"candidates": [{"text": "A.", "model": "a"}, {"text": "B.", "model": "b"}]}
        with Store(tmp_path / "any.name") as store:
            history = History(store)
            for owner in ("ann", "bob"):
                history.keep(owner, [{"role": "user", "content": "Why?"}], "A.", report, owner=owner)
            history.vote("bob", 1)
        (row,) = module.read_votes(tmp_path / "any.name")
        assert (row.instruction, row.id, row.pairs) == ("Why?", "bob", (LabelledPair(0, 1, "b", "human"),))

    def test_blind_votes_alone(self, tmp_path):
        report = {"candidates": [{"text": f"{name}.", "model": name} for name in "abc"]}
        with Store(tmp_path / "blend.db") as store:
            history = History(store)
            for id in ("seen", "some", "bad"):
                history.keep(id, [{"role": "user", "content": f"Why {id}?"}], "A.", report)
            history.vote("seen", 0)
            history.vote("some", 1, [0], blind=True)
            history.vote("some", 1, [2])
            history.vote("bad", bad=True, blind=True)
            lines = [json.dumps(row) + "\n" for row in vote_records(kept.example for kept in history.voted())]
        (tmp_path / "votes.jsonl").write_text("".join(lines))
        for source in ("blend.db", "votes.jsonl"):
            (row,) = module.read_votes(tmp_path / source, blind_only=True)
            assert (row.id, row.pairs) == ("some", (LabelledPair(0, 1, "b", "human-blind"),))
            assert module.count_votes(module.read_votes(tmp_path / source)) == {"instructions": 2, "votes": 4}

    def test_nothing(self, tmp_path):
        with pytest.raises(NotFoundError, match="store of `blend serve`"):
            module.read_votes(tmp_path / "none")


class TestSplitting:
    def test_whole_instructions_are_held_out(self):
        rows = voted()
        again = [dataclasses.replace(row, instruction=f" {row.prompt.upper()}") for row in rows[:9]]
        split = module.split_votes([*rows, *again], 0)
        learnt, held_out = ({row.prompt.strip().lower() for row in part} for part in (split.learnt, split.held_out))
        assert not learnt & held_out
        assert len(learnt) + len(held_out) == 64
        assert len(held_out) == 20
        assert len(split.learnt) + len(split.held_out) == 73
        assert split.fitted == ()  # a fifth of 44 instructions would be too few

    def test_a_fifth_of_many(self):
        rows = [dataclasses.replace(row, instruction=f"{row.prompt} {n}") for row in voted() for n in range(32)]
        split = module.split_votes(rows, 0)
        assert 0.18 < len(split.held_out) / len(rows) < 0.22
        assert 0.18 < len(split.fitted) / (len(rows) - len(split.held_out)) < 0.22
        parts = [{row.prompt for row in part} for part in (split.learnt, split.fitted, split.held_out)]
        assert sum(map(len, parts)) == len(set().union(*parts)) == len(rows)

    @pytest.mark.parametrize(("number", "fitted"), [(219, 0), (220, 40), (250, 46)])
    def test_a_part_to_fit_to_has_forty_instructions_at_least(self, number, fitted, monkeypatch):
        monkeypatch.setattr(module, "share_of", lambda key, seed: 0.5 + int(key.split()[-1]) / 1000)
        rows = [dataclasses.replace(row, instruction=f"why {n}") for n, row in enumerate(voted() * 4)][:number]
        again = [dataclasses.replace(row, instruction=f" {row.prompt.upper()}") for row in rows[:30]]
        split = module.split_votes([*rows, *again], 0)
        assert {row.prompt for row in split.fitted} >= {f"why {n}" for n in range(20, 20 + fitted)}
        assert module.count_votes(split.fitted)["instructions"] == fitted

    @pytest.mark.parametrize("seed", range(4))
    def test_what_was_learnt_from_is_not_held_out_later(self, seed):
        rows = [dataclasses.replace(row, instruction=f"{row.prompt} {n}") for row in voted() for n in range(4)]
        learnt: set[str] = set()
        for number in range(50, len(rows), 30):
            split = module.split_votes(rows[:number], seed)
            assert not learnt & {row.prompt for row in split.held_out}
            learnt |= {row.prompt for row in (*split.learnt, *split.fitted)}

    def test_the_seed_decides(self):
        assert module.split_votes(voted(), 1) == module.split_votes(voted(), 1) != module.split_votes(voted(), 2)

    def test_too_few(self):
        with pytest.raises(InputError, match=r"votes on 47 instructions .* 50 are needed: 30 .* 20 .* on 3 more"):
            module.split_votes(voted(47), 0)


@pytest.fixture(scope="module")
def init(tiny_ranker, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "ranker"
    shutil.copytree(tiny_ranker(), folder)
    weights = EvidenceWeights(several=Weights(consensus=1.5, model=0.5))
    dataclasses.replace(PairRankerConfig.load(folder), temperature=2.0, evidence_weights=weights).save(folder)
    return folder


@pytest.fixture(scope="module")
def trained(init, tmp_path_factory):
    split, output = module.split_votes(voted(), 0), tmp_path_factory.mktemp("trained")
    steps: list[tuple[int, int]] = []
    run = module.train_on_votes(
        split, output, init=str(init), epochs=3, settings=FAST, progress=lambda *counts: steps.append(counts)
    )
    return split, output, run, steps


class TestTraining:
    def test_it_reads_as_the_first_one_reads(self, init, trained):
        _, output, run, steps = trained
        assert PairRankerConfig.load(output) == PairRankerConfig.load(init)
        assert run.recipe.epochs == 3
        assert steps[-1][0] == steps[-1][1] > 0

    def test_the_votes_stand_beside_it(self, trained):
        split, output, *_ = trained
        parts = {"learnt": split.learnt, "held-out": split.held_out}
        assert all(tuple(read_rows(output / "votes" / f"{name}.jsonl")) == rows for name, rows in parts.items())

    def test_all_votes_are_learnt_from(self, trained):
        split, _, run, _ = trained
        assert module.count_votes(split.learnt) == {"instructions": 44, "votes": 44}
        assert [(count.groups, count.pairs) for count in run.sources] == [(44, 44)]

    def test_other_votes_want_another_output(self, init, trained):
        _, output, *_ = trained
        before = (output / "votes" / "learnt.jsonl").read_bytes()
        with pytest.raises(InputError, match="belongs to a run on other votes"):
            module.train_on_votes(module.split_votes(voted(60), 0), output, init=str(init), epochs=3)
        assert (output / "votes" / "learnt.jsonl").read_bytes() == before

    def test_temperature_and_evidence_are_fitted_to_votes_that_it_does_not_learn_from(self, init, tmp_path):
        rows = voted()
        split = module.SplitVotes(tuple(rows[:44]), tuple(rows[44:]), ())
        run = module.train_on_votes(split, tmp_path / "out", init=str(init), epochs=1, settings=FAST)
        assert [(count.groups, count.pairs) for count in (*run.sources, *run.dev_sources)] == [(44, 44), (20, 20)]
        before, after = (PairRankerConfig.load(folder) for folder in (init, tmp_path / "out"))
        assert run.quality.general is not None
        assert run.quality.temperature == after.temperature != before.temperature
        assert after.evidence_weights != before.evidence_weights
        assert tuple(read_rows(tmp_path / "out" / "votes" / "fitted.jsonl")) == split.fitted

    def test_what_reads_otherwise_still_does(self, init, tmp_path):
        shutil.copytree(init, tmp_path / "other")
        config = dataclasses.replace(PairRankerConfig.load(init), special_tokens="each_text", source_tail=0.0)
        config.save(tmp_path / "other")
        settings = {**FAST, "epochs": 1}
        split = module.split_votes(voted(), 0)
        module.train_on_votes(split, tmp_path / "out", init=str(tmp_path / "other"), settings=settings)
        assert PairRankerConfig.load(tmp_path / "out") == config

    def test_the_bundled_rankers_settings_make_a_recipe(self):
        from llm_blender.rankers.checkpoints import find_checkpoint
        from llm_blender.training.checkpoints import follow_init

        config = PairRankerConfig.load(find_checkpoint("bundled"))
        split = module.SplitVotes(tuple(voted(5)), (), ())
        recipe = follow_init(module._recipe("bundled", split, 3, None, module.SETTINGS))
        assert (recipe.alone_layers, recipe.max_length) == (config.alone_layers, config.max_length)
        assert (recipe.init, recipe.seed, recipe.epochs) == ("bundled", 3, module.SETTINGS["epochs"])


class TestTrial:
    def test_what_learnt_the_rule_is_better(self, init, trained):
        split, output, *_ = trained
        steps = []
        evaluation = module.evaluate_on_votes(
            split.held_out, output, init, progress=lambda *counts: steps.append(counts)
        )
        assert (evaluation.instructions, evaluation.votes) == (20, 20)
        assert evaluation.new.agreement.value > 0.9
        assert evaluation.agreement_gain.value == pytest.approx(
            evaluation.new.agreement.value - evaluation.current.agreement.value
        )
        change = evaluation.new.log_loss.value - evaluation.current.log_loss.value
        assert evaluation.log_loss_change.value == pytest.approx(change)
        assert evaluation.log_loss_change.ci95.low <= change <= evaluation.log_loss_change.ci95.high < 0
        assert evaluation.better
        assert steps[-1] == (80, 80)
        section = module.evaluation_section(evaluation)
        assert (
            f"| log loss | {evaluation.current.log_loss} | {evaluation.new.log_loss} | {evaluation.log_loss_change} |"
            in section
        )

    def test_against_itself_nothing_is_better(self, init, trained):
        evaluation = module.evaluate_on_votes(trained[0].held_out, init, init)
        assert (evaluation.agreement_gain.value, evaluation.log_loss_change.value) == (0, 0)
        assert not evaluation.better

    @pytest.mark.parametrize(
        ("loss", "high", "gain", "better", "reason"),
        [
            (-0.1, -0.01, 0.0, True, "agrees with no fewer votes"),
            (-0.1, 0.01, 0.1, False, "not all below zero"),
            (0.1, 0.2, 0.1, False, "not all below zero"),
            (-0.1, -0.01, -0.05, False, "agrees with fewer votes"),
        ],
    )
    def test_the_rule(self, loss, high, gain, better, reason):
        any_one = module.VoteQuality(module.Estimate(0.5, Interval(0.4, 0.6)), module.Estimate(0.7, Interval(0.6, 0.8)))
        change = module.Estimate(loss, Interval(-0.2, high))
        evaluation = module.Evaluation(20, 30, any_one, any_one, module.Estimate(gain, Interval(-0.1, 0.1)), change)
        assert evaluation.better is better
        assert reason in evaluation.reason


class TestReplacing:
    @pytest.fixture
    def current(self, init, tmp_path):
        shutil.copytree(init, tmp_path / "current")
        (tmp_path / "current" / "notes.txt").write_text("mine")
        return (tmp_path / "current").resolve()

    def test_the_former_one_is_kept(self, current, trained):
        output = trained[1]
        kept = [module.replace_ranker(output, current) for _ in range(2)]
        assert [path.name for path in kept] == ["current.1", "current.2"]
        assert (kept[0] / "notes.txt").read_text() == "mine"
        assert sorted(path.name for path in current.parent.iterdir()) == ["current", "current.1", "current.2"]
        assert current.stat().st_mode == kept[0].stat().st_mode
        one, other = (PairRanker.from_pretrained(folder).compare("why", "good", "bad") for folder in (current, output))
        assert one == other
        assert not (current / "votes").exists()

    def test_a_link_stays_one(self, current, trained):
        link = current.with_name("link")
        link.symlink_to(current)
        assert module.replaceable(str(link), trained[1]) == current

    def test_what_fails_is_undone(self, current, trained, monkeypatch):
        real = Path.rename

        def rename(path, target):
            if path.parent != current.parent:
                raise OSError("no room")
            return real(path, target)

        monkeypatch.setattr(Path, "rename", rename)
        with pytest.raises(WorkError, match="was not replaced"):
            module.replace_ranker(trained[1], current)
        assert [path.name for path in current.parent.iterdir()] == ["current"]
        assert (current / "notes.txt").exists()

    def test_what_cannot_be_replaced(self, current, tmp_path):
        from llm_blender.rankers.checkpoints import find_checkpoint

        out = tmp_path / "out"
        for name in ("bundled", str(find_checkpoint("bundled"))):
            with pytest.raises(InputError, match=r"belongs to the package .*blend export bundled my-ranker"):
                module.replaceable(name, out)
        with pytest.raises(NotFoundError, match=r"no folder .*blend export bundled my-ranker"):
            module.replaceable(str(tmp_path / "none"), out)
        with pytest.raises(InputError, match="choose another output"):
            module.replaceable(str(current), current / "new")
        with pytest.raises(CheckpointError, match="is no checkpoint"):
            module.replaceable(str(tmp_path), tmp_path.parent / "out")
