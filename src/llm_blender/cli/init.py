"""``blend init``: write a ``blend.toml`` from the LLMs that run on this machine and the API keys of the environment."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from llm_blender.cli._options import STDIO, JsonOption
from llm_blender.cli._output import note, print_json, print_table
from llm_blender.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from llm_blender.llms.providers import Provider

MOST = 5
"""Maximum number of LLMs that are written as members."""
_LISTED = 30  # further models of one server that are named in a comment
_PATIENCE, _PATIENCE_HERE = 1.2, 0.8  # seconds for all clouds, and for all servers on this machine, at once
_ALONE = 3  # samples of an LLM that is alone

_NO_CHAT = re.compile(
    r"embed|rerank|paraphrase|:batch$|(^|[-_/.])(bge|e5|gte|minilm|mxbai|clip|tts|ocr)([-_:.]|$)|whisper|transcribe|speech|audio|realtime"
    r"|voxtral|image|dall-e|diffusion|moderation|guard|reward|babbage|davinci|computer-use|search|research|[-_]live"
    r"|[-_.]base($|[-_:.])|gpt-3\.5-turbo-instruct|prompt-guard|lyria|imagen|veo|aqa|sora",
    re.IGNORECASE,
)
_SPECIAL = re.compile(
    r"code|coder|codestral|math|vision|llava|moondream|[-_]vl|sql|medic|[-_]pro($|[-_:])", re.IGNORECASE
)
_SMALL = re.compile(r"mini|flash|haiku|small|lite|fast|instant", re.IGNORECASE)  # cheap models of clouds
_FAMILIES = (
    *(
        "llama",
        "qwen",
        "qwq",
        "gemma",
        "gemini",
        "deepseek",
        "claude",
        "phi",
        "gpt",
        "grok",
        "command",
        "granite",
        "smollm",
    ),
    *("glm", "kimi", "minimax", "nemotron", "olmo", "falcon", "yi", "hermes", "vicuna", "exaone", "aya", "internlm"),
)


@dataclass(frozen=True)
class Source:
    """A server with its models that can chat, the best choice for an ensemble first.

    Attributes:
        provider: its provider, with the base URL that answers.
        models: names of the models; for a cloud without an answer, those that the provider usually has.
    """

    provider: Provider
    models: tuple[str, ...]

    @property
    def where(self) -> str:
        """The server in words."""
        from llm_blender.config import is_loopback

        host = urlsplit(self.provider.url).hostname
        if not self.provider.local:
            return self.provider.title
        here = is_loopback(host or "")
        return f"{self.provider.title} on {'this machine' if here else host}"


def init(
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="Write this file; - is standard output.")
    ] = "blend.toml",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without a question.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a blend.toml from the LLMs that run on this machine and the API keys in the environment.

    Servers on this machine: Ollama (port 11434, or OLLAMA_HOST), llama.cpp (8080), LM Studio (1234) and vLLM (8000).
    Keys: OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY, OPENROUTER_API_KEY, MISTRAL_API_KEY, GROQ_API_KEY,
    DEEPSEEK_API_KEY, XAI_API_KEY, TOGETHER_API_KEY, FIREWORKS_API_KEY, CEREBRAS_API_KEY; the file names the variable,
    never the key. Up to five LLMs of different families become members; comments name the other models. Prices are
    those of genai-prices, if it is installed (the extra `prices`); they are dollars per million tokens.

    On a terminal, one question comes before the file is written; --yes and --json leave it out. A file that exists is
    kept without --force: the new one is only shown, and the exit status is 2. Where nothing is found, nothing is
    written, and the exit status is 1. LLM_BLENDER_OFFLINE=1 sends no request to a cloud.

    JSON: {path, written, members: [{name, provider, model, base_url, api_key_env?, price?}], others: {provider:
    [model]}, toml}.
    """
    from llm_blender.errors import WorkError
    from llm_blender.llms.providers import has_prices

    sources, refused = asyncio.run(find_sources())
    for words in refused:
        note(words)
    if not sources:
        raise WorkError(
            "No LLM was found: no server answers on this machine, and no API key is in the environment. Either install "
            "Ollama (https://ollama.com), run `ollama pull llama3.2`, and `blend init` again; or set a key, such as "
            "OPENAI_API_KEY. Without a blend.toml, `blend ask` uses a small embedded model."
        )
    members = choose(sources)
    text = "\n".join(_toml(members, sources)) + "\n"
    exists = out != STDIO and Path(out).exists()
    written = out != STDIO and (force or not exists)
    if written:
        if not as_json:
            print_table(["name", "from", "model", "$/M in", "$/M out"], _rows(members))
        if not yes and not as_json and _can_answer():
            question = f"{'Replace' if exists else 'Write'} {out}?"
            if not typer.confirm(question, default=True, err=True):
                note("nothing written")
                raise typer.Exit(1)
        _write(Path(out), text, over=force)
    if as_json:
        print_json({"path": out, "written": written, **_report(members, sources, text)})
    elif not written:
        typer.echo(text, nl=False)
    if any(not source.provider.local for source, _ in members) and not has_prices():
        note("prices are left out; with them: pip install 'llm-blender[prices]' && blend init --force")
    if written:
        note(f"wrote {out}; `blend check` tries each LLM, `blend ask` queries them")
    elif exists:
        raise InputError(f"{out} exists and is kept; --force replaces it.")


def _can_answer() -> bool:
    return sys.stdin.isatty()


async def find_sources() -> tuple[list[Source], list[str]]:
    """Find the servers on this machine and the clouds whose keys are in the environment, clouds first.

    Returns:
        the sources that have a model for chats, and a line for each key that is refused.
    """
    import os

    from llm_blender._hub import offline
    from llm_blender.llms import local_servers
    from llm_blender.llms.providers import PROVIDERS

    by_title = {each.title: each for each in PROVIDERS.values()}
    clouds = [each for each in PROVIDERS.values() if each.has_key]

    async def listed(provider: Provider) -> tuple[str, ...]:
        key = os.environ[str(provider.key_env)].strip()
        return () if offline() else await local_servers.list_models(provider.base_url, key, timeout=_PATIENCE)

    answers = asyncio.gather(*map(listed, clouds), return_exceptions=True)
    servers = await local_servers.find_local_servers(_PATIENCE_HERE)
    sources, refused = [], []
    for provider, answer in zip(clouds, await answers, strict=True):
        if isinstance(answer, PermissionError):
            refused.append(f"{provider.title} refuses the key in {provider.key_env} ({answer}); it is left out")
        elif isinstance(answer, BaseException):
            raise answer
        else:
            sources.append(Source(provider, _for_chats(provider, answer)))
    for server in servers:
        provider = replace(by_title[server.kind], url=server.base_url)
        sources.append(Source(provider, _for_chats(provider, server.models)))
    return [source for source in sources if source.models], refused


def _for_chats(provider: Provider, listed: Sequence[str]) -> tuple[str, ...]:
    """Order the models of a provider: its usual ones first, special ones last, without those that cannot chat."""
    usual = [model for model in provider.models if not listed or any(_is(each, model) for each in listed)]
    others = [model for model in listed if not _NO_CHAT.search(model)]
    cheap = not provider.local
    others.sort(key=lambda name: (bool(_SPECIAL.search(name)), cheap and not _SMALL.search(name)))
    return tuple(dict.fromkeys([*usual, *others]))


def _is(listed: str, model: str) -> bool:
    """Tell whether a listed model is this one, or a dated version of it."""
    return re.fullmatch(rf"{re.escape(model)}(-[\d-]{{4,10}})?", listed) is not None


def family(model: str) -> str:
    """Return the family of a model by its name: ``llama`` of ``meta-llama/Llama-3.3-70B-Instruct``."""
    name = Path(model).name.lower()
    if "stral" in name or "mixtral" in name:  # Ministral, Magistral, …
        return "mistral"
    if name.startswith(("o1", "o3", "o4", "chatgpt")):
        return "gpt"
    for each in _FAMILIES:
        if re.search(rf"(?<![a-z]){each}(?![a-z])" if len(each) < 4 else each, name):
            return each
    letters = re.match(r"[a-z]+", name)
    return letters[0] if letters else name


def choose(sources: Sequence[Source]) -> list[tuple[Source, str]]:
    """Choose up to `MOST` models: one of each source, then of each further family; two if it has one family."""
    chosen: list[tuple[Source, str]] = []
    taken: set[str] = set()
    for source in sources[:MOST]:
        new = [model for model in source.models if family(model) not in taken and not _SPECIAL.search(model)]
        model = (new or list(source.models))[0]
        chosen.append((source, model))
        taken.add(family(model))
    rounds = zip_longest(*([(source, model) for model in _usual(source)] for source in sources))
    for source, model in (pair for each in rounds for pair in each if pair is not None and pair not in chosen):
        if len(chosen) < MOST and family(model) not in taken and not _SPECIAL.search(model):
            chosen.append((source, model))
            taken.add(family(model))
    if len(chosen) == 1:
        more = [(source, model) for source in sources for model in source.models if not _SPECIAL.search(model)]
        chosen += [pair for pair in more if pair not in chosen][:1]
    return sorted(chosen, key=lambda pair: sources.index(pair[0]))


def _usual(source: Source) -> Sequence[str]:
    """List the models of a cloud that are known to be good and cheap; all models where none of them is there."""
    return [model for model in source.models if model in source.provider.models] or source.models


def _names(members: Iterable[tuple[Source, str]]) -> list[str]:
    """Make names of the members from their models, and by their providers too where two have the same model."""
    names: list[str] = []
    for source, model in members:
        name = re.split(r"[/\\]", model)[-1].removesuffix(".gguf").removesuffix(":latest").strip() or "llm"
        if name in names:
            name = f"{name}-{source.provider.name}"
        while name in names:
            name += "-2"
        names.append(name)
    return names


def _toml(members: Sequence[tuple[Source, str]], sources: Sequence[Source]) -> Iterator[str]:
    """Yield the lines of the file. Names of models come from servers: each is written as a string, in comments too."""
    from datetime import date

    from llm_blender.cli.config import toml_value

    yield f"# Written by `blend init` on {date.today()}. `blend check` tries each LLM; `blend config show` shows all"
    yield "# settings, those that are not set here too."
    alone = len(members) == 1
    for (source, model), name in zip(members, _names(members), strict=True):
        provider = source.provider
        yield ""
        yield f"[[llm]]  # {source.where}"
        yield f"name = {toml_value(name)}"
        yield f"model = {toml_value(model)}"
        yield f"base_url = {toml_value(_url(provider))}"
        if provider.key_env is not None:
            yield f"api_key_env = {toml_value(provider.key_env)}  # the variable that holds the key"
        if alone:
            yield f"samples = {_ALONE}  # the best of {_ALONE} answers, as it is alone"
        if provider.local:
            yield "timeout = 120  # seconds"
        price = provider.price(model)
        if price is not None:
            words = "" if provider.local else "  # dollars per million tokens"
            yield f"price = {{ input = {price.input:g}, output = {price.output:g} }}{words}"
    for source in sources:
        others = _others(source, members)
        if others:
            yield ""
            more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
            yield f"# More models of {source.where}, each for an [[llm]] of its own{more}:"
            yield from (f"#   model = {toml_value(model)}" for model in others[:_LISTED])
    yield ""
    yield "[ensemble]"
    yield 'mode = "pick"  # the best answer; "fuse" writes one from the best ones, "auto" where that may help'
    yield ""
    yield "[limits]"
    yield "deadline = 120  # seconds for the answers to one prompt"
    yield "# max_cost = 0.05  # dollars per prompt; each LLM then needs a price and max_tokens"


def _url(provider: Provider) -> str:
    return provider.url if provider.local else provider.base_url


def _others(source: Source, members: Sequence[tuple[Source, str]]) -> list[str]:
    return [model for model in source.models if (source, model) not in members]


def _rows(members: Sequence[tuple[Source, str]]) -> list[list[str]]:
    rows = []
    for (source, model), name in zip(members, _names(members), strict=True):
        price = source.provider.price(model)
        prices = ["?", "?"] if price is None else [f"{price.input:g}", f"{price.output:g}"]
        rows.append([name, source.where, model, *prices])
    return rows


def _report(members: Sequence[tuple[Source, str]], sources: Sequence[Source], text: str) -> dict[str, Any]:
    from llm_blender.config import Config

    entries = [entry.model_dump(mode="json", exclude_unset=True) for entry in Config.from_toml(text).llm]
    for (source, _), entry in zip(members, entries, strict=True):
        entry["provider"] = source.provider.name
    others: dict[str, list[str]] = {}
    for source in sources:
        others.setdefault(source.provider.name, []).extend(_others(source, members))
    return {"members": entries, "others": others, "toml": text}


def _write(path: Path, text: str, *, over: bool) -> None:
    try:
        with path.open("w" if over else "x", encoding="utf-8") as file:
            file.write(text)
    except FileNotFoundError:
        raise NotFoundError(f"There is no folder {path.parent} for {path.name}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None
