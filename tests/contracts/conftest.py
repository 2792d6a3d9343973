"""Tiny models for the contracts, made once a session, and the classes that a registry must name."""

from __future__ import annotations

import inspect
import json
import pkgutil
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from llm_blender.testing import FakeOpenAIServer, FakeReply

Get = Callable[[str], Any]


@dataclass(frozen=True)
class Case:
    """One implementation.

    Attributes:
        cls: name of its class.
        make: makes it.
        label: tells apart two of one class.
        torch: whether it needs the extra of that name.
    """

    cls: str
    make: Callable[[Get], Any]
    label: str = ""
    torch: bool = False


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of a module for each of its `ENTRIES`."""
    if "entry" in metafunc.fixturenames:
        entries = metafunc.module.ENTRIES
        ids = ["-".join(filter(None, (entry.cls, entry.label))) for entry in entries]
        metafunc.parametrize("entry", entries, ids=ids, scope="session")


@pytest.fixture(scope="session")
def made(entry: Case, request: pytest.FixtureRequest) -> Any:
    """What the entry makes."""
    if entry.torch:
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
    return entry.make(request.getfixturevalue)


FIXTURES = Path(__file__).parents[1] / "published" / "fixtures"
REWARD_MODEL = "OpenAssistant/reward-model-deberta-v3-large-v2"


@pytest.fixture(scope="session")
def public_classes() -> Callable[..., set[str]]:
    """Names of the public classes of a package, and of `testing`, that can be made and have all these attributes."""

    def find(package: str, *attributes: str) -> set[str]:
        roots = [import_module(name) for name in (package, "llm_blender.testing")]
        names = [root.__name__ for root in roots]
        names += [found.name for root in roots for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}.")]
        classes: set[str] = set()
        for name in names:
            try:
                module = import_module(name)
            except ModuleNotFoundError as error:
                if (error.name or "").startswith("llm_blender"):
                    raise
                continue  # of an extra that is not installed
            for public, value in vars(module).items():
                if public.startswith("_") or not inspect.isclass(value) or value.__module__ != name:
                    continue
                if inspect.isabstract(value) or getattr(value, "_is_protocol", False):
                    continue
                if all(hasattr(value, attribute) for attribute in attributes):
                    classes.add(value.__name__)
        return classes

    return find


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints in the layout of llm-blender 0.0.2, with tokenizers; not to be written to."""
    root = tmp_path_factory.mktemp("published")
    tokenizer = json.loads((FIXTURES / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    known = {token["content"] for token in tokenizer["added_tokens"]}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    shutil.copytree(FIXTURES / "backbone", root / "backbone")
    for name in ("SummaReranker", "SimCLS", REWARD_MODEL):
        folder = Path(shutil.copytree(FIXTURES / name, root / name))
        own = json.loads((folder / "added_tokens.json").read_text(encoding="utf-8"))
        new = [
            {"id": number, "content": text, **plain}
            for text, number in sorted(own.items(), key=lambda item: item[1])
            if text not in known
        ]
        whole = {**tokenizer, "added_tokens": [*tokenizer["added_tokens"], *new]}
        (folder / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
        shutil.copy(FIXTURES / "tokenizer" / "spm.model", folder)
    return root


@pytest.fixture(scope="session")
def reward_model(published: Path) -> Path:
    """A reward model that reads a pair of texts."""
    return published / REWARD_MODEL


@pytest.fixture(scope="session")
def chat_reward_model(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that reads a conversation by its chat template."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder = Path(shutil.copytree(tiny_llama, tmp_path_factory.mktemp("reward") / "llama"))
    torch.manual_seed(4)
    config = AutoConfig.from_pretrained(tiny_llama, num_labels=1)
    AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def masked_lm(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    folder = Path(shutil.copytree(tiny_encoder, tmp_path_factory.mktemp("mlm") / "bert"))
    torch.manual_seed(0)
    values = json.loads((tiny_encoder / "config.json").read_text(encoding="utf-8"))
    BertForMaskedLM(BertConfig(**{**values, "initializer_range": 0.2})).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def embedded() -> Iterator[Callable[..., Any]]:
    """Makes embedded LLMs of the default model, on one thread; skips where its file is not on this machine."""
    from llm_blender.llms import EmbeddedLLM
    from llm_blender.llms.models import DEFAULT_MODEL, resolve

    with ExitStack() as stack:

        def make(name: str = "embedded", **options: Any) -> EmbeddedLLM:
            if resolve(DEFAULT_MODEL) is None:
                pytest.skip(f"{DEFAULT_MODEL} is not downloaded: blend models pull {DEFAULT_MODEL}")
            llm = EmbeddedLLM(name, **{"threads": 1, "context": 1024, **options})
            stack.callback(llm.close)
            return llm

        yield make


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., str]]:
    """Starts a server that answers by the given reply, or function of a request; gives its address."""
    with ExitStack() as stack:

        def start(reply: FakeReply | Callable[[dict[str, Any]], FakeReply]) -> str:
            return stack.enter_context(FakeOpenAIServer(reply if callable(reply) else [reply])).base_url

        yield start
