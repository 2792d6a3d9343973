"""Other libraries' rankers, with the encoder of the bundled ranker and a random head: their speed, not their quality.

- ``pointwise``: sentence-transformers' `CrossEncoder` scores each (instruction, candidate), in torch, in ONNX Runtime
  (float32, and int8 as its `export_dynamic_quantized_onnx_model` makes it), and in OpenVINO (float32);
- ``pairs``: the same on each (instruction, A + B), N(N − 1)/2 of them, at twice the tokens;
- ``rerankers``: its cross-encoder, pointwise; ``flashrank``: FlashRank on the int8 model, pointwise.

Tokenising, sorting by length, batches (32, rerankers 16, FlashRank all) and padding are theirs. Where optimum does not
install, sentence-transformers cannot load ONNX or OpenVINO itself: its model is replaced here by a session.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from _accounting import Shape, processor

from llm_blender.rankers.checkpoints import BUNDLED, find_checkpoint
from llm_blender.rankers.pair_ranker import PairRankerConfig
from llm_blender.testing import CountedBatch

PEERS = ("pointwise", "pairs", "rerankers", "flashrank")
_NEEDS = {
    "pointwise": ("sentence_transformers", "torch", "onnx"),
    "pairs": ("sentence_transformers", "torch", "onnx"),
    "rerankers": ("rerankers", "torch"),
    "flashrank": ("flashrank", "torch", "onnx"),
}
_FLASHRANK = "ms-marco-MiniLM-L-12-v2"  # a name that FlashRank knows; the model is ours


class Peer:
    """A library under measurement; for the attributes see `ranking.Ours`.

    Args:
        score: scores the inputs of a prompt.
        counting: what counts the batches of `score`.
        paired: whether it reads pairs of candidates.
    """

    def __init__(
        self, name: str, score: Callable[[str, list[str]], Any], counting: Counting, shape: Shape, *, paired: bool
    ) -> None:
        self.name, self._score, self._counting, self._paired, self.shape = name, score, counting, paired, shape
        self.batches: list[CountedBatch] = []
        self.watch = SimpleNamespace(seconds={})

    def rank(self, prompts: Sequence[str], candidates: Sequence[Sequence[str]]) -> int:
        """Score all once; the number of comparisons is 0, or that of the pairs."""
        self.batches = self._counting.batches = []
        inputs = 0
        for prompt, texts in zip(prompts, candidates, strict=True):
            read = [f"{a}\n{b}" for a, b in combinations(texts, 2)] if self._paired else list(texts)
            self._score(prompt, read)
            inputs += len(read)
        return inputs if self._paired else 0


class Counting:
    """Counter of the batches of a model, by their mask."""

    def __init__(self, clock: Callable[[], float], *, paired: bool) -> None:
        self._clock, self._part = clock, "pairs" if paired else "read"
        self.batches: list[CountedBatch] = []

    def run(self, mask: Any, work: Callable[[], Any]) -> Any:
        """Run one batch of this mask."""
        started = self._clock()
        result = work()
        seconds, rows = self._clock() - started, np.asarray(mask)
        lengths, widths = tuple(rows.sum(axis=-1).tolist()), (rows.shape[-1],) * len(rows)
        self.batches.append(CountedBatch(self._part, lengths, widths, seconds))  # type: ignore[arg-type]
        return result


def make_peers(
    kinds: Sequence[str], folder: Path, threads: int, tokens: int, clock: Callable[[], float]
) -> tuple[list[Peer], list[str]]:
    """Make the peers that are installed, and a note for each that is not.

    Args:
        kinds: of `PEERS`.
        folder: for their models.
        threads: of each.
        tokens: of the longest input; pairs take twice as many.
        clock: for the seconds inside the model.
    """
    notes, wanted = [], []
    for kind in dict.fromkeys(kinds):
        missing = [name for name in _NEEDS[kind] if importlib.util.find_spec(name) is None]
        wanted += [] if missing else [kind]
        notes += [f"{kind}: not measured, {', '.join(missing)} is not installed."] if missing else []
    if not wanted:
        return [], notes
    shape = write_model(folder)
    peers: list[Peer] = []
    for kind in wanted:
        counts = partial(Counting, clock, paired=kind == "pairs")
        if kind in ("pointwise", "pairs"):
            longest = 2 * tokens if kind == "pairs" else tokens
            for name, count, score in cross_encoders(folder, threads, longest, counts, notes):
                peers.append(Peer(f"CrossEncoder {kind}, {name}", score, count, shape, paired=kind == "pairs"))
        else:
            count = counts()
            score = (rerankers if kind == "rerankers" else flashrank)(folder, threads, tokens, count)
            peers.append(Peer(f"{kind} pointwise", score, count, shape, paired=False))
    return peers, notes


def write_model(folder: Path) -> Shape:
    """Write a sequence classifier with one output in transformers' layout."""
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
    from transformers.utils import logging as quiet

    quiet.disable_progress_bar()
    source = find_checkpoint(BUNDLED)
    config = PairRankerConfig.load(source)
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**config.backbone, num_labels=1))
    prefix = "pretrained_model."
    weights = {name.removeprefix(prefix): value for name, value in load_file(source / "model.safetensors").items()}
    own = model.bert.state_dict()
    model.bert.load_state_dict({**own, **{name: weights[name] for name in own if name in weights}})
    model.save_pretrained(folder)
    names = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(source / "tokenizer.json"), model_max_length=512, **names)
    tokenizer.save_pretrained(folder)
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    layers = int(config.backbone["num_hidden_layers"])
    shape = Shape.of(config)
    if shape is None:
        raise SystemExit("The bundled ranker's encoder has no known shape.")
    return Shape({"read": layers, "pairs": layers}, shape.width, shape.inner, shape.heads)


def onnx_models(folder: Path) -> dict[str, Path]:
    """Export the classifier, once, in float32 and int8."""
    paths = {precision: folder / f"model_{precision}.onnx" for precision in ("fp32", "int8")}
    if paths["int8"].exists():
        return paths
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(folder).eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    inputs = {name: torch.ones(2, 8, dtype=torch.long) for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (inputs,),
            str(paths["fp32"]),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names} | {"logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
    # optimum's AutoQuantizationConfig: per channel; signed weights for VNNI, unsigned ones for AVX2.
    signed = "vnni" in processor()
    quantize_dynamic(
        paths["fp32"],
        paths["int8"],
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8 if signed else QuantType.QUInt8,
    )
    return paths


def session(path: Path, threads: int) -> Any:
    """Load a model with the defaults of optimum, but for the threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def cross_encoders(
    folder: Path, threads: int, tokens: int, counts: Callable[[], Counting], notes: list[str]
) -> Iterator[tuple[str, Counting, Callable[[str, list[str]], Any]]]:
    """Yield sentence-transformers' CrossEncoder for each backend: its name, its counter, and its scores."""
    import torch
    from sentence_transformers import CrossEncoder

    paths = onnx_models(folder)

    def ours(path: Path) -> Callable[[dict[str, np.ndarray]], Any]:
        loaded = session(path, threads)
        return lambda inputs: loaded.run(["logits"], inputs)[0]

    makers: dict[str, Callable[[], Callable[[dict[str, np.ndarray]], Any]] | None] = {
        "torch fp32": None,
        "ONNX fp32": lambda: ours(paths["fp32"]),
        "ONNX int8": lambda: ours(paths["int8"]),
    }
    if importlib.util.find_spec("openvino") is None:
        notes.append("CrossEncoder, OpenVINO: not measured, openvino is not installed.")
    else:
        makers["OpenVINO fp32"] = lambda: openvino_model(paths["fp32"], threads)
    for name, make in makers.items():
        model = CrossEncoder(str(folder), device="cpu", max_length=tokens, local_files_only=True)
        count = counts()
        classifier = model[0].model
        if make is None:
            bare = classifier.forward
            classifier.forward = lambda *args, bare=bare, count=count, **inputs: count.run(
                inputs["attention_mask"], lambda: bare(*args, **inputs)
            )
        else:
            run = make()

            def forward(run: Any = run, count: Counting = count, **inputs: Any) -> Any:
                arrays = {key: inputs[key].numpy() for key in ("input_ids", "attention_mask")}
                types = inputs.get("token_type_ids")
                arrays["token_type_ids"] = np.zeros_like(arrays["input_ids"]) if types is None else types.numpy()
                logits = count.run(arrays["attention_mask"], lambda: run(arrays))
                return {"logits": torch.from_numpy(np.asarray(logits))}

            classifier.forward = forward

        def score(prompt: str, texts: list[str], model: Any = model) -> Any:
            return model.predict([(prompt, text) for text in texts], show_progress_bar=False)

        yield name, count, score


def openvino_model(path: Path, threads: int) -> Callable[[dict[str, np.ndarray]], Any]:
    """Compile a model for the CPU, in float32 even where bf16 is faster."""
    import openvino

    hints = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(str(path), "CPU", hints)
    request = compiled.create_infer_request()
    return lambda inputs: np.array(request.infer(inputs)[compiled.output(0)])


def rerankers(folder: Path, threads: int, tokens: int, count: Counting) -> Callable[[str, list[str]], Any]:
    """Return the scores of rerankers' cross-encoder."""
    from rerankers import Reranker

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Reranker(str(folder), model_type="cross-encoder", device="cpu", dtype="float32", verbose=0)
    model.tokenizer.model_max_length = tokens
    bare = model.model.forward
    model.model.forward = lambda *args, **inputs: count.run(inputs["attention_mask"], lambda: bare(*args, **inputs))
    return model.rank


def flashrank(folder: Path, threads: int, tokens: int, count: Counting) -> Callable[[str, list[str]], Any]:
    """Return the scores of FlashRank, which runs one batch of all candidates."""
    from flashrank import Ranker, RerankRequest
    from flashrank.Config import model_file_map

    paths = onnx_models(folder)
    home = folder / "flashrank" / _FLASHRANK
    home.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(folder / name, home)
    shutil.copy(paths["int8"], home / model_file_map[_FLASHRANK])
    ranker = Ranker(_FLASHRANK, cache_dir=str(home.parent), max_length=tokens, log_level="ERROR")
    bare = session(paths["int8"], threads)

    def run(names: Any, inputs: dict[str, np.ndarray]) -> Any:
        inputs = {"token_type_ids": np.zeros_like(inputs["input_ids"]), **inputs}
        return count.run(inputs["attention_mask"], lambda: bare.run(names, inputs))

    ranker.session = SimpleNamespace(run=run)
    return lambda prompt, texts: ranker.rerank(RerankRequest(prompt, [{"text": text} for text in texts]))
