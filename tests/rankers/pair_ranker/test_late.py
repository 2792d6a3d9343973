from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from llm_blender.errors import CheckpointError
from llm_blender.rankers.checkpoints import BUNDLED
from llm_blender.rankers.pair_ranker import PairRanker, PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import FittedTexts
from llm_blender.rankers.pair_ranker.late import LateComparer
from llm_blender.training.recipes import Recipe

PROMPT = "Why is the sky blue, and the sea green?"
TEXTS = ["", "Because.", "Blue light scatters in the air.", "It is not! " * 3, "the sun is bright " * 9, "sea " * 300]


@pytest.fixture(scope="module")
def folder(tiny_encoder, tmp_path_factory):
    import torch

    from llm_blender.training.checkpoints import new_pair_ranker, write_checkpoint

    folder = tmp_path_factory.mktemp("late")
    recipe = Recipe.model_validate({"alone_layers": 1, "max_length": 96, "source_max_length": 32})
    model, input_format, tokenizer = new_pair_ranker(recipe, str(tiny_encoder))
    with torch.no_grad():
        model.head_layer[-1].weight *= 20
        model.pretrained_model.encoder.layer[1].attention.self.value.weight *= 10  # random attention has little effect
        model.other_key.normal_(std=0.02)
        model.length_weight += 0.01
    write_checkpoint(model, input_format.config, tokenizer, folder)
    return folder


@pytest.fixture(scope="module", params=["fp32", "int8", "torch", BUNDLED])
def ranker(request, folder):
    if request.param == BUNDLED:
        return PairRanker.from_pretrained()
    options = {"backend": "torch", "device": "cpu"} if request.param == "torch" else {"precision": request.param}
    return PairRanker.from_pretrained(folder, **options)


def all_pairs(n: int) -> list[tuple[int, int, int]]:
    return [(0, i, j) for i in range(n) for j in range(n) if i != j]


def matrix(ranker: PairRanker, texts: list[str]) -> np.ndarray:
    logits = np.zeros((len(texts), len(texts)))
    pairs = all_pairs(len(texts))
    logits[tuple(np.array(pairs).T[1:])] = ranker.pair_logits([PROMPT], [texts], pairs)
    return logits


class TestEncoder:
    def test_states_are_those_of_transformers(self, tiny_encoder):
        import torch
        from transformers import BertModel

        from llm_blender.rankers.encoders import BertConfig, BertEncoder

        theirs = BertModel.from_pretrained(tiny_encoder).eval()
        ours = BertEncoder(BertConfig.read(theirs.config.to_dict())).eval()
        state = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("pooler.")}
        ours.load_state_dict(state)
        ids, mask = torch.randint(5, 40, (3, 20)), torch.ones(3, 20, dtype=torch.long)
        mask[1, 7:] = 0
        with torch.inference_mode():
            wanted, states = (m(input_ids=ids, attention_mask=mask).last_hidden_state for m in (theirs, ours))
            parts = ours.upper(ours.lower(ids, mask, 1), mask, 1)
        assert (wanted - states)[mask.bool()].abs().max() < 1e-5
        assert torch.equal(parts, states)

    @pytest.mark.parametrize("change", [{"model_type": "roberta"}, {"hidden_act": "relu"}, {"is_decoder": True}])
    def test_variants_are_left_to_transformers(self, change):
        from llm_blender.rankers.encoders import BertConfig

        sizes = dict.fromkeys(BertConfig.__dataclass_fields__, 4)
        assert BertConfig.read({"model_type": "bert", **sizes}) is not None
        assert BertConfig.read({"model_type": "bert", **sizes, **change}) is None


class TestModel:
    def test_swapped_candidates_swap_their_scores(self, ranker):
        logits = matrix(ranker, TEXTS)
        assert np.ptp(logits) > 0.5
        np.testing.assert_array_equal(logits, -logits.T)

    def test_that_is_so_in_the_module_too(self, folder):
        import torch

        from llm_blender.rankers.pair_ranker.modeling import make_model

        model = make_model(PairRankerConfig.load(folder)).eval()
        torch.nn.init.normal_(model.other_key)
        states, mask = torch.randn(4, 9, 128), torch.ones(4, 9, dtype=torch.long)
        mask[1, 5:] = 0
        segments = torch.tensor([[0, 1, 1, 0, 2, 2, 2, 2, 0]] * 4) * mask
        read = states, mask, segments, torch.tensor([4, 2, 7, 90])
        swapped = [values[[2, 3, 0, 1]] for values in read]
        with torch.inference_mode():
            np.testing.assert_allclose(model(*read), -model(*swapped), atol=1e-6)

    def test_the_other_candidate_matters(self, ranker):
        """Else the logits were differences of scores, and the model no comparison."""
        logits = matrix(ranker, TEXTS)
        assert np.abs(logits[1, 2] + logits[2, 3] - logits[1, 3]) > 1e-3

    def test_what_is_not_read_still_counts_as_length(self, folder):
        ranker = PairRanker.from_pretrained(folder, precision="fp32")
        same_beginning = ["sea " * 300, "sea " * 600]
        assert len({len(ids) for ids in map(tuple, ranker.input_format.tokenize(same_beginning))}) == 2
        weight = float(ranker_weight(folder))
        expected = weight * (np.log(301) - np.log(601))
        assert matrix(ranker, same_beginning)[0, 1] == pytest.approx(expected, abs=1e-3)

    def test_backends_agree(self, folder):
        fp32, int8 = (PairRanker.from_pretrained(folder, precision=name) for name in ("fp32", "int8"))
        torch_ = PairRanker.from_pretrained(folder, backend="torch", device="cpu")
        np.testing.assert_allclose(matrix(fp32, TEXTS), matrix(torch_, TEXTS), atol=1e-4)
        np.testing.assert_allclose(matrix(int8, TEXTS), matrix(torch_, TEXTS), atol=0.5)

    @pytest.mark.parametrize(("change", "message"), [({"alone_layers": 2}, "none is left to compare"), (
        {"backbone": {"model_type": "roberta"}}, "needs a BERT encoder, not 'roberta'")])  # fmt: skip
    def test_encoders_that_do_not_suit(self, folder, change, message):
        from llm_blender.rankers.pair_ranker.modeling import make_model

        config = dataclasses.replace(PairRankerConfig.load(folder), **change)
        with pytest.raises(CheckpointError, match=message):
            make_model(config)


def ranker_weight(folder) -> float:
    from safetensors.torch import load_file

    return 20 * float(load_file(folder / "model.safetensors")["length_weight"][0])


class TestComparing:
    def test_neighbours_and_padding_do_not_matter(self, ranker):
        logits = matrix(ranker, TEXTS)
        for pair in all_pairs(len(TEXTS)):
            (found,) = ranker.pair_logits([PROMPT], [TEXTS], [pair])
            assert found == pytest.approx(logits[pair[1:]], abs=1e-5)

    @pytest.mark.parametrize("name", ["tiny", BUNDLED])
    def test_onnx_results_depend_on_neither_neighbours_nor_threads(self, folder, name):
        checkpoint = folder if name == "tiny" else BUNDLED
        one, several = (PairRanker.from_pretrained(checkpoint, threads=threads) for threads in (1, 3))
        pairs = [(0, i, j) for i in range(len(TEXTS)) for j in range(i)]
        together = several.pair_logits([PROMPT], [TEXTS], pairs)
        shuffled = np.random.default_rng(0).permutation(len(pairs))
        others = one.pair_logits([PROMPT], [TEXTS], [pairs[i] for i in shuffled])
        alone = [one.pair_logits([PROMPT], [TEXTS], [pair])[0] for pair in pairs]
        assert (together[shuffled] == others).all()  # to the last bit
        assert (together == alone).all()

    def test_each_text_is_read_once_over_all_rounds(self, folder, monkeypatch):
        ranker = PairRanker.from_pretrained(folder)
        counts = count(ranker, monkeypatch)
        ranking = ranker.rank(PROMPT, TEXTS, strategy="knockout")
        assert counts == {"read": len(TEXTS), "compared": ranking.comparisons}

    def test_many_prompts_are_read_once_and_ranked_as_each_alone(self, folder, monkeypatch):
        ranker = PairRanker.from_pretrained(folder)
        monkeypatch.setattr("llm_blender.rankers.pair_ranker.late.KEPT_TOKENS", 12 * 96)
        prompts = [f"{PROMPT} {number}" for number in range(5)]
        alone = [ranker.rank(prompt, TEXTS, strategy="knockout") for prompt in prompts]
        counts, reported = count(ranker, monkeypatch), []
        together = ranker.rank_many(
            prompts, [TEXTS] * 5, strategy="knockout", progress=lambda *done: reported.append(done)
        )
        assert [ranking.to_dict() for ranking in together] == [ranking.to_dict() for ranking in alone]
        assert counts == {"read": 5 * len(TEXTS), "compared": 5 * (len(TEXTS) - 1)}
        assert [done for done, _ in reported] == sorted(done for done, _ in reported)
        assert reported[-1] == (25, 25)
        assert {total for _, total in reported} == {25}

    def test_both_orders_are_one_computation(self, folder, monkeypatch):
        ranker = PairRanker.from_pretrained(folder)
        counts = count(ranker, monkeypatch)
        reported = []
        ranker.rank_many(
            [PROMPT, PROMPT],
            [TEXTS, TEXTS[:3]],
            strategy="full",
            progress=lambda done, total: reported.append((done, total)),
        )
        assert counts["compared"] == 15  # the second prompt's pairs are among the first's
        assert reported[-1] == (18, 18)

    def test_little_memory_changes_nothing_but_the_work(self, folder, monkeypatch):
        ranker = PairRanker.from_pretrained(folder)
        counts = count(ranker, monkeypatch)
        prompts, candidates = [PROMPT, "what"], [TEXTS, TEXTS[::-1]]
        pool = [(prompt, i, j) for prompt in range(2) for _, i, j in all_pairs(len(TEXTS))]

        def compare(**options):
            counts["read"] = 0
            fitted = FittedTexts(ranker.input_format, prompts, candidates, [0.0, 0.0])
            comparer = LateComparer(ranker.backend, fitted, ranker.max_tokens, **options)
            return comparer(pool, lambda *done: None), counts["read"]

        wanted, once = compare()
        found, read = compare(kept=150)
        assert once == 2 * len(TEXTS) < read
        np.testing.assert_allclose(found, wanted, atol=2e-4)

    def test_exported_again_it_is_the_same(self, folder, tmp_path):
        from llm_blender.rankers.pair_ranker.export import export_checkpoint

        files = export_checkpoint(str(folder), tmp_path)
        assert [file.name for file in files] == [
            "reader_fp32.onnx", "reader_int8.onnx", "comparer_fp32.onnx", "comparer_int8.onnx",
        ]  # fmt: skip
        one, other = (PairRanker.from_pretrained(path) for path in (folder, tmp_path))
        np.testing.assert_allclose(matrix(one, TEXTS), matrix(other, TEXTS), atol=1e-5)

    def test_a_part_that_is_missing(self, folder, tmp_path):
        from llm_blender.rankers.pair_ranker.export import export_checkpoint

        export_checkpoint(str(folder), tmp_path)
        (tmp_path / "onnx" / "comparer_int8.onnx").unlink()
        with pytest.raises(CheckpointError, match=r"no onnx/comparer_int8\.onnx"):
            PairRanker.from_pretrained(tmp_path)

    def test_parts_that_are_another_model(self, folder, tmp_path):
        from llm_blender.rankers.pair_ranker.export import export_checkpoint

        export_checkpoint(str(folder), tmp_path)
        (tmp_path / "onnx" / "comparer_int8.onnx").write_bytes((folder / "onnx" / "reader_int8.onnx").read_bytes())
        with pytest.raises(CheckpointError, match="is not this PairRanker: its inputs are"):
            PairRanker.from_pretrained(tmp_path)


class TestDevices:
    PROMPTS = (PROMPT, "Give three tips.", "what")
    CANDIDATES = (TEXTS, TEXTS[::-1], ["the sea", "Because.", *TEXTS[2:5]])
    PAIRS = tuple((p, i, j) for p, texts in enumerate(CANDIDATES) for i in range(len(texts)) for j in range(i))

    @staticmethod
    def load(folder, device="cpu", **options) -> PairRanker:
        return PairRanker.from_pretrained(folder, device=device, max_tokens=96, **options)

    @staticmethod
    def places(ranker, monkeypatch) -> dict[str, list[int]]:
        """Note the device of each text and pair."""
        noted: dict[str, list[int]] = {"read": [], "compare": [], "move": []}
        for name in noted:
            real = getattr(ranker.backend, name)

            def noting(rows, device, /, name=name, real=real):
                noted[name] += [device] * (1 if name == "move" else len(rows))
                return real(rows, device)

            monkeypatch.setattr(ranker.backend, name, noting)
        return noted

    @pytest.mark.parametrize("strategy", ["full", "knockout"])
    def test_two_share_the_work_and_give_the_logits_of_one(self, folder, monkeypatch, strategy):
        one, two = self.load(folder), self.load(folder, "cpu,cpu")
        assert (one.backend.devices, two.backend.devices) == (1, 2)
        noted = self.places(two, monkeypatch)
        for alone, shared in zip(
            *(r.rank_many(self.PROMPTS, self.CANDIDATES, strategy=strategy) for r in (one, two)), strict=True
        ):
            assert shared.ranks == alone.ranks
            np.testing.assert_allclose(shared.logits, alone.logits, atol=1.1e-4)
        for part in ("read", "compare"):
            first, second = noted[part].count(0), noted[part].count(1)
            assert min(first, second) > 0.3 * (first + second)
        texts = sum(len(texts) for texts in self.CANDIDATES)
        assert len(noted["read"]) == texts  # each once, on one of them
        assert len(noted["move"]) <= len(TEXTS)  # only those of a prompt that both have read

    def test_the_texts_of_one_prompt_are_shared_too(self, folder, monkeypatch):
        two = self.load(folder, ["cpu", "cpu"])
        noted = self.places(two, monkeypatch)
        pairs = [(0, i, j) for i in range(len(TEXTS)) for j in range(i)]
        found = two.pair_logits([PROMPT], [TEXTS], pairs)
        np.testing.assert_allclose(found, self.load(folder).pair_logits([PROMPT], [TEXTS], pairs), atol=1e-5)
        assert {*noted["read"]} == {*noted["compare"]} == {0, 1}
        assert 0 < len(noted["move"]) <= len(TEXTS)  # each text at most once

    def test_a_device_keeps_no_more_than_its_share(self, folder):
        two = self.load(folder, "cpu,cpu")
        fitted = FittedTexts(two.input_format, self.PROMPTS, self.CANDIDATES, [0.0] * 3)
        comparer = LateComparer(two.backend, fitted, two.max_tokens, kept=200)
        found = comparer(list(self.PAIRS), lambda *done: None)
        np.testing.assert_allclose(
            found, self.load(folder).pair_logits(self.PROMPTS, self.CANDIDATES, self.PAIRS), atol=1e-5
        )
        comparer._read({}, lambda cost: None)  # what the next round keeps
        for known in comparer._read_texts:
            assert 0 < sum(len(text.sequence) for text in known.values()) <= 200

    @pytest.mark.parametrize("part", ["encode", "forward"])
    def test_an_error_of_one_reaches_the_caller(self, folder, monkeypatch, part):
        two = self.load(folder, "cpu,cpu")

        def fail(*inputs):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(two.backend._replicas._models[1], part, fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            two.pair_logits(self.PROMPTS, self.CANDIDATES, self.PAIRS)
        monkeypatch.undo()
        assert len(two.pair_logits(self.PROMPTS, self.CANDIDATES, self.PAIRS)) == len(self.PAIRS)  # nothing is stuck

    def test_states_keep_the_precision_of_the_model(self, folder):
        import torch

        half = self.load(folder, "cpu,cpu", dtype="bfloat16")
        sequence = half.input_format.join([7, 8], [9, 10, 11], None)
        (states,) = half.backend.read([sequence])
        assert (states.dtype, states.shape[0]) == (torch.bfloat16, len(sequence))
        exact, near = (r.pair_logits(self.PROMPTS, self.CANDIDATES, self.PAIRS) for r in (self.load(folder), half))
        assert 0 < np.abs(exact - near).max() < 0.03 * np.abs(exact).max()


def count(ranker: PairRanker, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    counts = {"read": 0, "compared": 0}
    read, compare = ranker.backend.read, ranker.backend.compare

    def reading(sequences, *device):
        counts["read"] += len(sequences)
        return read(sequences, *device)

    def comparing(pairs, *device):
        counts["compared"] += len(pairs)
        return compare(pairs, *device)

    monkeypatch.setattr(ranker.backend, "read", reading)
    monkeypatch.setattr(ranker.backend, "compare", comparing)
    return counts


def test_lengths_of_one_candidate_a_sequence(folder):
    config = PairRankerConfig.load(folder)
    assert (config.overhead, config.candidate_budget) == (5, 96 - 32 - 5)
    longer = config.with_lengths(50, 100)
    assert (longer.max_length, longer.source_max_length) == (150, 47)


def test_the_encoder_of_a_pair_reader_is_that_of_transformers():
    from llm_blender.rankers.encoders import make_encoder

    assert type(make_encoder({"model_type": "bert", "num_hidden_layers": 1, "hidden_size": 12})).__name__ == "BertModel"


class TestOpenVino:
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("openvino")

    def test_its_first_use_by_several_threads_ends(self):
        code = (
            "import sys, threading, openvino\n"
            "from llm_blender.rankers.pair_ranker import backends\n"
            "try:\n"
            "    backends.OpenVinoModel(__import__('pathlib').Path('missing.onnx'), set())\n"
            "except Exception:\n"
            "    pass\n"
            "sys.setswitchinterval(1e-6)\n"
            "threads = [threading.Thread(target=openvino.Type.i64.to_dtype) for _ in range(8)]\n"
            "[thread.start() for thread in threads]\n"
            "[thread.join() for thread in threads]\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)  # it hung in most runs

    def test_it_gives_the_logits_of_onnx_runtime(self, folder):
        openvino, onnx = (
            PairRanker.from_pretrained(folder, backend=backend, precision="fp32") for backend in ("openvino", "onnx")
        )
        found, expected = matrix(openvino, TEXTS), matrix(onnx, TEXTS)
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-4)

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_neighbours_and_threads_do_not_matter(self, folder, precision):
        one, several = (
            PairRanker.from_pretrained(folder, backend="openvino", precision=precision, threads=threads)
            for threads in (1, 3)
        )
        pairs = [(0, i, j) for i in range(len(TEXTS)) for j in range(i)]
        together = several.pair_logits([PROMPT], [TEXTS], pairs)
        assert (together == [one.pair_logits([PROMPT], [TEXTS], [pair])[0] for pair in pairs]).all()

    def test_the_bundled_ranker_must_be_exported_first(self):
        with pytest.raises(CheckpointError, match=r"no onnx/reader_fp32\.onnx: create it with `blend export"):
            PairRanker.from_pretrained(backend="openvino")
