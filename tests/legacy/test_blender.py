"""What `Blender`'s methods do beyond the numbers of 0.0.2 (tests/published): other inputs, work, mended defects."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from llm_blender.blender.blender_utils import get_topk_candidates_from_ranks

from llm_blender import Blender, BlenderConfig, RankerConfig
from llm_blender.errors import CheckpointError, DownloadError, InputError, NotFoundError

INPUTS = ["hello , how are you !", "i love you !"]
CANDIDATES = [["get out !", "hi ! i am fine , thanks !", "bye !"], ["i love you too !", "i hate you !", "thanks !"]]
LEFT, RIGHT = ([row[side] for row in CANDIDATES] for side in (0, 1))


class TestLoading:
    def test_nothing_is_loaded(self):
        for call in (
            lambda blender: blender.rank(INPUTS, CANDIDATES),
            lambda blender: blender.compare(INPUTS, LEFT, RIGHT),
            lambda blender: blender.rank_with_ref(INPUTS, CANDIDATES),
            lambda blender: blender.get_best_of_n(INPUTS, CANDIDATES),
            lambda blender: blender.best_of_n_generate(None, None, INPUTS),
        ):
            with pytest.raises(InputError, match="No ranker is loaded: call blender"):
                call(Blender())

    def test_by_a_configuration(self, published_ranker, blender):
        where = {"load_checkpoint": str(published_ranker / "ranker"), "model_name": str(published_ranker / "encoder")}
        other = Blender(BlenderConfig(device="cpu"), RankerConfig(source_maxlength=20, **where))
        assert (other.ranker_config.source_maxlength, other.ranker_config.candidate_maxlength) == (20, 64)
        assert (blender.ranker_config.source_maxlength, blender.ranker_config.candidate_maxlength) == (128, 64)
        same = other.rank(INPUTS, CANDIDATES, return_scores=True)
        assert same == pytest.approx(blender.rank(INPUTS, CANDIDATES, return_scores=True), abs=1e-6)

    def test_a_configuration_without_a_checkpoint(self):
        with pytest.raises(InputError, match="names no checkpoint: set its load_checkpoint"):
            Blender(ranker_config=RankerConfig(n_tasks=2))

    def test_below_a_cache_directory(self, published_ranker, tmp_path):
        shutil.copytree(published_ranker / "ranker", tmp_path / "some" / "ranker")
        made = Blender(BlenderConfig(device="cpu"))
        made.loadranker("some/ranker", cache_dir=tmp_path, model_name=str(published_ranker / "encoder"))
        assert made.ranker.folder == tmp_path / "some" / "ranker"

    def test_fetched_to_a_cache_directory(self, published_ranker, tmp_path, monkeypatch):
        fetched = []

        def snapshot_download(name, local_dir=None, **look_up):
            if local_dir is None:  # whether the Hub has it
                return str(tmp_path)
            fetched.append(name)
            if len(fetched) == 1:
                raise OSError("the line is dead")
            shutil.copytree(published_ranker / "ranker", local_dir)
            return str(local_dir)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        options = {"device": "cpu", "cache_dir": str(tmp_path), "model_name": str(published_ranker / "encoder")}
        made = Blender()
        with pytest.raises(DownloadError, match=r"some/ranker could not be fetched to .*: the line is dead"):
            made.loadranker("some/ranker", **options)
        for _ in range(2):
            made.loadranker("some/ranker", **options)
        assert fetched == ["some/ranker"] * 2  # the second time it is there
        assert [path.name for path in (tmp_path / "some").iterdir()] == ["ranker"]

    @pytest.mark.parametrize("values", [{}, {"cache_dir": "cache"}])
    def test_not_found(self, values, monkeypatch):
        monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
        with pytest.raises(NotFoundError, match=r"No ranker 'no/ranker': no folder"):
            Blender().loadranker("no/ranker", **values)

    @pytest.mark.parametrize("name", [None, "", 3])
    def test_no_name(self, name):
        with pytest.raises(InputError, match="by the name of a folder or a Hub repository"):
            Blender().loadranker(name)

    def test_a_field_that_is_unknown(self):
        with pytest.raises(InputError, match="'source_max_len': did you mean 'source_maxlength'"):
            Blender().loadranker("bundled", source_max_len=20)

    @pytest.mark.parametrize("device", ["cuda:99", "tpu of mine", "meta:meta"])
    def test_no_such_device(self, published_ranker, device):
        with pytest.raises(InputError, match=r"(Unknown )?device"):
            Blender().loadranker(
                str(published_ranker / "ranker"), device=device, model_name=str(published_ranker / "encoder")
            )

    def test_devices_by_any_spelling(self, published_ranker, blender):
        torch = pytest.importorskip("torch")
        where = {"model_name": str(published_ranker / "encoder")}
        expected = blender.rank(INPUTS, CANDIDATES, return_scores=True).tolist()
        for device in ("CPU", torch.device("cpu")):
            made = Blender()
            made.loadranker(str(published_ranker / "ranker"), device=device, **where)
            assert made.rank(INPUTS, CANDIDATES, return_scores=True).tolist() == expected

    def test_an_encoder_that_is_nowhere(self, published_ranker, monkeypatch):
        monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
        with pytest.raises(CheckpointError, match="does not say how its encoder 'encoder' is built"):
            Blender().loadranker(str(published_ranker / "ranker"), device="cpu")

    def test_the_bundled_one(self):
        made = Blender()
        made.loadranker("bundled")
        assert made.rank(INPUTS, CANDIDATES).shape == (2, 3)
        assert made.ranker_config.ranker_type == "pairranker"


class TestHalfPrecision:
    """By ``fp16`` on accelerators, which this machine need not have."""

    @pytest.fixture
    def dtype_of(self, published_ranker, monkeypatch):
        from llm_blender import PairRanker

        seen = []
        original = PairRanker.from_pretrained

        def noted(folder, *, device, dtype, backbone):
            seen.append(dtype)
            return original(folder, device="cpu", backbone=backbone)

        monkeypatch.setattr(PairRanker, "from_pretrained", noted)

        def load(device, **values):
            Blender().loadranker(
                str(published_ranker / "ranker"), device=device, model_name=str(published_ranker / "encoder"), **values
            )
            return seen[-1]

        return load

    @pytest.mark.parametrize(
        ("device", "values", "dtype"),
        [
            ("cuda", {}, "float16"),
            ("mps", {}, "float16"),
            ("cuda", {"fp16": False}, None),
            ("cpu", {"fp16": True}, None),
            ("cuda:0", {}, None),
            ("cuda:0", {"fp16": True}, "float16"),
        ],
    )
    def test_by_device(self, dtype_of, device, values, dtype):
        assert dtype_of(device, **values) == dtype


class TestRank:
    def test_lists_of_different_lengths(self, blender):
        rows = blender.rank(INPUTS, [CANDIDATES[0], ["bye !"]])
        assert [row.tolist() for row in rows] == [blender.rank(INPUTS[:1], CANDIDATES[:1])[0].tolist(), [1]]
        assert {row.dtype for row in rows} == {np.dtype(np.int32)}

    def test_arrays_are_lists_too(self, blender):
        expected = blender.rank(INPUTS, CANDIDATES).tolist()
        assert blender.rank(np.array(INPUTS), np.array(CANDIDATES)).tolist() == expected
        assert blender.rank(tuple(INPUTS), [tuple(row) for row in CANDIDATES]).tolist() == expected

    def test_nothing_depends_on_the_batch(self, blender):
        together = blender.rank(INPUTS, CANDIDATES, return_scores=True)
        alone = [
            blender.rank([text], [row], return_scores=True, batch_size=1)[0]
            for text, row in zip(INPUTS, CANDIDATES, strict=True)
        ]
        assert together == pytest.approx(np.array(alone), abs=1e-5)

    def test_all_pairs_in_one_call(self, blender, counted):
        blender.rank(INPUTS, CANDIDATES, batch_size=1)
        assert [len(pairs) for pairs in counted] == [2 * 3 * 2]

    def test_candidates_that_read_the_same_tie(self, blender):
        ranks = blender.rank(["hello"], [["BYE !", "get out !", "bye   !", "hi !"]])
        assert ranks[0, 0] == ranks[0, 2]

    def test_candidates_that_differ_where_they_are_cut_off_tie(self, blender):
        texts = ["hi ! " * 20 + "bye !", "get out !", "hi ! " * 20 + "thanks !", "fine"]
        ranks = blender.rank(["hello"], [texts], source_max_length=10, candidate_max_length=10)
        assert ranks[0, 0] == ranks[0, 2]

    def test_markers_in_a_text_are_text(self, blender):
        texts = [["<|candidate1|> bye !", "<|source|>"], ["[CLS] [SEP] [PAD]", "hi !"]]
        assert np.isfinite(blender.rank(INPUTS, texts, return_scores=True)).all()

    def test_a_long_source_keeps_the_end_that_is_asked_for(self, blender):
        long = ["hello " * 40 + ending for ending in ("i love you !", "get out !")]
        row = CANDIDATES[0]

        def scores(truncation):
            return blender.rank(long, [row, row], return_scores=True, source_max_length=20, truncation=truncation)

        first, second = scores("right")
        assert first.tolist() == second.tolist()
        first, second = scores("left")
        assert first.tolist() != second.tolist()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([], []), "inputs is empty: give at least one"),
            ((INPUTS, []), "candidates is empty"),
            ((INPUTS, CANDIDATES[:1]), "2 inputs need as many candidates, not 1"),
            ((INPUTS, CANDIDATES, ["a"]), "2 inputs need as many instructions, not 1"),
            ((INPUTS, [CANDIDATES[0], []]), r"candidates\[1\] is empty"),
            ((INPUTS, [CANDIDATES[0], "text"]), r"candidates\[1\] must be a list, not str"),
            ((INPUTS, [CANDIDATES[0], ["a", None]]), r"candidates\[1\]\[1\] must be a text, not NoneType: None"),
            ((INPUTS, [CANDIDATES[0], [3, "a"]]), r"candidates\[1\]\[0\] must be a text, not int: 3"),
            ((["a", None], CANDIDATES), r"inputs\[1\] must be a text, not NoneType"),
            ((INPUTS, CANDIDATES, ["a", 1.5]), r"instructions\[1\] must be a text, not float"),
            (("text", CANDIDATES), "inputs must be a list, not str"),
            ((None, CANDIDATES), "inputs must be a list, not NoneType"),
        ],
    )
    def test_bad_input(self, blender, arguments, message):
        for method in (blender.rank, blender.rank_with_ref, blender.get_best_of_n):
            with pytest.raises(InputError, match=message):
                method(*arguments)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"truncation": "rigth"}, "did you mean 'right'"),
            ({"batch_size": 0}, "batch_size must be a number above zero, not 0"),
            ({"source_max_length": 3}, "No text fits into 3 tokens"),
        ],
    )
    def test_bad_options(self, blender, values, message):
        with pytest.raises(InputError, match=message):
            blender.rank(INPUTS, CANDIDATES, **values)

    def test_an_unknown_keyword(self, blender):
        with pytest.raises(TypeError, match="source_maxlength"):
            blender.rank(INPUTS, CANDIDATES, source_maxlength=20)


class TestCompare:
    def test_a_text_with_itself_is_no_work_and_a_tie(self, blender, counted):
        assert blender.compare(INPUTS, LEFT, LEFT, return_logits=True).tolist() == [0, 0]
        assert blender.compare(INPUTS, LEFT, LEFT).tolist() == [False, False]
        assert not counted

    def test_both_orders_in_one_call(self, blender, counted):
        blender.compare(INPUTS, LEFT, RIGHT)
        assert [sorted(pairs) for pairs in counted] == [[(0, 0, 1), (0, 1, 0), (1, 0, 1), (1, 1, 0)]]

    def test_what_the_modes_are_to_each_other_and_to_ours(self, blender):
        logits = [blender.compare(INPUTS, LEFT, RIGHT, return_logits=True, mode=mode) for mode in ("[A,B]", "[B,A]")]
        both = blender.compare(INPUTS, LEFT, RIGHT, return_logits=True)
        assert both == pytest.approx(logits[0] - logits[1], abs=1e-6)
        for i, logit in enumerate(both):
            assert logit == pytest.approx(2 * blender.ranker.compare(INPUTS[i], LEFT[i], RIGHT[i]).logit, abs=1e-4)

    def test_unknown_mode(self, blender):
        with pytest.raises(InputError, match=r"did you mean '\[A,B\]\+\[B,A\]'"):
            blender.compare(INPUTS, LEFT, RIGHT, mode="[A,B]+[B,C]")

    def test_lists_of_different_lengths(self, blender):
        with pytest.raises(InputError, match="2 inputs need as many candidates_B, not 1"):
            blender.compare(INPUTS, LEFT, RIGHT[:1])


class TestConversations:
    A = ({"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi !"})
    B = ({"role": "Human", "content": "hello"}, {"role": "GPT", "content": "bye !"})

    def test_any_spelling_of_roles(self, blender):
        upper = [
            [{**message, "role": role} for message, role in zip(turns, ("USER", "ASSISTANT"), strict=True)]
            for turns in (self.A, self.B)
        ]
        expected = blender.compare_conversations(upper[:1], upper[1:], return_logits=True)
        assert blender.compare_conversations([self.A], [self.B], return_logits=True).tolist() == expected.tolist()

    @pytest.mark.parametrize(
        ("a", "b", "message"),
        [
            ([], [], "0 conversations A need as many B, at least one, not 0"),
            ([A], [A, B], "1 conversations A need as many B, at least one, not 2"),
            ([A], [()], r"B\[0\] must be a list of messages"),
            (["text"], [B], r"A\[0\] must be a list of messages"),
            ([A[:1]], [B], r"A\[0\] must be user and assistant in turn, not user"),
            ([A[::-1]], [B], "in turn, not assistant, user"),
            ([A], [({"role": "user", "content": "hi"}, A[1])], r"different things in conversations A\[0\] and B\[0\]"),
            ([A], [({"role": "robot", "content": "hi"}, A[1])], r"B\[0\]: Message 0 .* unknown role 'robot'"),
            ([A], [({"role": "user"}, A[1])], r"B\[0\]: Message 0 .* needs a text `role` and a text `content`"),
        ],
    )
    def test_bad_ones(self, blender, a, b, message):
        with pytest.raises(InputError, match=message):
            blender.compare_conversations(a, b)


class TestRankWithRef:
    def test_the_reference_does_not_meet_itself(self, blender, counted):
        blender.rank_with_ref(INPUTS, CANDIDATES)
        assert [len(pairs) for pairs in counted] == [2 * 2 * 2]  # inputs, other candidates, orders

    @pytest.mark.parametrize("mode", ["shortest", "first"])
    def test_mode_as_the_documentation_had_it(self, blender, mode):
        expected = blender.rank_with_ref(INPUTS, CANDIDATES, return_scores=True, ref_mode=mode).tolist()
        assert blender.rank_with_ref(INPUTS, CANDIDATES, return_scores=True, mode=mode).tolist() == expected
        assert expected != blender.rank_with_ref(INPUTS, CANDIDATES, return_scores=True).tolist()

    def test_one_order_only(self, blender, counted):
        scores = blender.rank_with_ref(INPUTS, CANDIDATES, return_scores=True, ref_mode="first", mode="[A,B]")
        logits = blender.compare(INPUTS, LEFT, RIGHT, return_logits=True, mode="[A,B]")
        assert scores[:, 1] == pytest.approx(-logits, abs=1e-6)

    def test_lengths_are_heard(self, blender):
        candidates = [["bye ! " * 40 + end for end in ("hello", "what is it", "no")]] * len(INPUTS)
        lengths = {"source_max_length": 20, "candidate_max_length": 8}
        cut = blender.rank_with_ref(INPUTS, candidates, return_scores=True, ref_mode="first", **lengths)
        whole = blender.rank_with_ref(INPUTS, candidates, return_scores=True, ref_mode="first")
        assert not cut.any()  # the ends, in which the candidates differ, are cut off
        assert whole.any()

    def test_lists_of_different_lengths(self, blender):
        rows = blender.rank_with_ref(INPUTS, [CANDIDATES[0], ["bye !"]], ref_mode="last")
        assert [len(row) for row in rows] == [3, 1]

    def test_bad_references(self, blender):
        with pytest.raises(InputError, match="did you mean 'longest'"):
            blender.rank_with_ref(INPUTS, CANDIDATES, ref_mode="long")
        with pytest.raises(InputError, match="2 inputs need as many ref_candidates, not 1"):
            blender.rank_with_ref(INPUTS, CANDIDATES, ref_candidates=["a"])


class TestBestOfN:
    def test_every_time_the_same(self, blender):
        first, *others = (blender.get_best_of_n(INPUTS, CANDIDATES, return_all=True) for _ in range(3))
        assert others == [first, first]
        assert [sorted(row) for row in first] == [sorted(row) for row in CANDIDATES]
        assert [row[0] for row in first] == blender.get_best_of_n(INPUTS, CANDIDATES)

    def test_the_winner_beats_whom_it_met(self, blender):
        texts = ["hi !", "bye !", "thanks !", "get out !", "i love you !", "i hate you !", "fine", "good guy"]
        (best,), (worst,) = (f([INPUTS[0]], [texts]) for f in (blender.get_best_of_n, blender.get_worst_of_n))
        beaten = blender.compare([INPUTS[0]] * len(texts), [best] * len(texts), texts)
        beats = blender.compare([INPUTS[0]] * len(texts), texts, [worst] * len(texts))
        assert min(beaten.sum(), beats.sum()) >= 3  # the rounds of eight

    def test_in_rounds_over_all_inputs(self, blender, counted):
        texts = ["hi !", "bye !", "thanks !", "get out !", "i love you !"]
        blender.get_best_of_n(INPUTS, [texts, texts[:3]])
        assert sum(map(len, counted)) == 2 * 4 + 2 * 2
        assert len(counted) == 3  # of the longer list

    def test_one_candidate_is_no_work(self, blender, counted):
        assert blender.get_best_of_n(INPUTS, [["hi !"], ["bye !"]]) == ["hi !", "bye !"]
        assert not counted

    def test_reference_is_seeded_by_torch(self, blender):
        torch = pytest.importorskip("torch")
        found = []
        for _ in range(2):
            torch.manual_seed(7)
            found.append(blender.get_best_of_n(INPUTS, CANDIDATES, pairrm_cmp_type="reference", return_all=True))
        assert found[0] == found[1]

    def test_unknown_type(self, blender):
        with pytest.raises(InputError, match="'buble': did you mean 'bubble'"):
            blender.get_best_of_n(INPUTS, CANDIDATES, pairrm_cmp_type="buble")


class TestTopK:
    def test_best_first(self):
        best = get_topk_candidates_from_ranks([[2, 3, 1], [1, 2, 3]], [["b", "c", "aaa"], ["a", "b", "c"]], 2)
        assert best.tolist() == [["aaa", "b"], ["a", "b"]]
        assert best.dtype.kind == "U"

    def test_all_and_of_equal_ones_the_first(self):
        assert get_topk_candidates_from_ranks(np.array([[1, 1, 1]]), [["a", "b", "c"]], None).tolist() == [
            ["a", "b", "c"]
        ]

    def test_lists_of_different_lengths(self, blender):
        rows = [CANDIDATES[0], ["bye !"]]
        best = get_topk_candidates_from_ranks(blender.rank(INPUTS, rows), rows, 2)
        assert [len(row) for row in best] == [2, 1]

    def test_bad_ones(self):
        with pytest.raises(InputError, match=r"candidates\[0\] has 1 texts and 2 ranks"):
            get_topk_candidates_from_ranks([[1, 2]], [["a"]], 1)
        with pytest.raises(InputError, match="1 rows of ranks need as many of candidates, not 2"):
            get_topk_candidates_from_ranks([[1]], [["a"], ["b"]], 1)


class TestPointwise:
    """A ranker that scores candidates one by one."""

    class ByLength:
        def scores(self, instructions, candidates, *, progress=None):
            return [np.array([float(len(text)) for text in row]) for row in candidates]

    @pytest.fixture
    def pointwise(self):
        made = Blender()
        made.ranker = self.ByLength()
        return made

    def test_methods(self, pointwise):
        rows = [["a", "bbb", "cc"], ["dd", "d", "dd"]]
        assert pointwise.rank(INPUTS, rows).tolist() == [[3, 1, 2], [1, 3, 1]]
        assert pointwise.rank(INPUTS, rows, return_scores=True).tolist() == [[1, 3, 2], [2, 1, 2]]
        assert pointwise.get_best_of_n(INPUTS, rows) == ["bbb", "dd"]
        assert pointwise.get_worst_of_n(INPUTS, rows) == ["a", "d"]
        assert pointwise.compare(INPUTS, ["aa", "b"], ["c", "ddd"], return_logits=True).tolist() == [1, -2]
        assert pointwise.rank_with_ref(INPUTS, rows, return_scores=True).tolist() == [[-2, 0, -1], [0, -1, 0]]

    def test_no_truncation(self, pointwise):
        with pytest.raises(InputError, match="can be chosen for a PairRanker only"):
            pointwise.rank(INPUTS, CANDIDATES, truncation="left")


def test_nothing_is_printed(blender, capfd):
    blender.rank(INPUTS, CANDIDATES)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        Blender().loadranker(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt"}))
    with pytest.raises(CheckpointError, match="no known ranker"):
        Blender().loadranker(str(tmp_path))
