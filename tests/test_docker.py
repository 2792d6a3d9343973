"""What can be said of the image and of the compose file without Docker: they parse, and agree with each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer

from llm_blender.config import Config, OpenAIConfig

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")
TOML = (ROOT / "docker" / "blend.toml").read_text(encoding="utf-8")


def uncommented(text: str) -> str:
    """With what is offered as a comment: lines that are indented as if they were none, or tables of TOML."""
    return re.sub(r"(?m)^( *)# ((?: *[\w-]+:|  +-|\[\[|\w+ = ).*)$", r"\1\2", text)


def instructions() -> list[tuple[str, str]]:
    lines = re.sub(r"(?m)^#.*\n", "", DOCKERFILE).replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def compose(text: str = COMPOSE) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def test_the_image_runs_as_nobody_of_note() -> None:
    steps = instructions()
    assert [word for word, _ in steps].count("FROM") == 2
    last = steps[max(i for i, (word, _) in enumerate(steps) if word == "FROM") :]
    assert dict(last)["USER"] == "10001"
    assert "useradd --uid 10001" in next(rest for word, rest in last if word == "RUN")
    assert "/healthz" in dict(last)["HEALTHCHECK"]
    assert not any(re.search(r"KEY|SECRET|TOKEN", rest) for word, rest in steps if word in ("ENV", "ARG"))


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                name = source.removeprefix("./")
                assert (ROOT / name).exists()
                assert f"!{name}" in ignore


def test_the_image_starts_blend_serve() -> None:
    from llm_blender.cli import app

    arguments = re.findall(r'"([^"]+)"', dict(instructions())["ENTRYPOINT"])
    assert arguments[:2] == ["blend", "serve"]
    command: Any = typer.main.get_command(app)
    context = command.commands["serve"].make_context("serve", arguments[2:])
    assert (context.params["host"], context.params["port"]) == ("0.0.0.0", 8000)


@pytest.mark.parametrize(("compose_text", "toml"), [(COMPOSE, TOML), (uncommented(COMPOSE), uncommented(TOML))])
def test_members_are_services_and_their_models_are_fetched(compose_text: str, toml: str) -> None:
    services, config = compose(compose_text)["services"], Config.from_toml(toml)
    assert len(config.llm) == (3 if toml == TOML else 4)
    fetched = re.findall(r"ollama pull (\S+)", services["models"]["command"][0])
    served = []
    for member in config.llm:
        assert isinstance(member, OpenAIConfig)
        address = urlsplit(member.base_url)
        assert address.hostname in services
        assert address.port == {"ollama": 11434, "vllm": 8000}[address.hostname]
        if address.hostname == "ollama":
            served.append(member.model)
        else:
            assert member.model in services["vllm"]["command"]
    assert served == fetched
    assert config.fuser.name in {f"chat:{member.name}" for member in config.llm}


@pytest.mark.parametrize("text", [COMPOSE, uncommented(COMPOSE)])
def test_the_compose_file_is_whole(text: str) -> None:
    values = compose(text)
    services, volumes = values["services"], values["volumes"]
    assert set(services) == {"blend", "ollama", "models"} | ({"vllm"} if text != COMPOSE else set())
    for service in services.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in volumes
        for name, wanted in service.get("depends_on", {}).items():
            assert name in services
            assert wanted["condition"] != "service_healthy" or "healthcheck" in services[name]


def test_the_service_is_locked_up() -> None:
    blend = compose()["services"]["blend"]
    assert blend["environment"]["LLM_BLENDER_KEYS"].startswith("${LLM_BLENDER_KEYS:?")  # no key, no start
    assert blend["ports"] == ["127.0.0.1:8000:8000"]
    assert (blend["read_only"], blend["cap_drop"]) == (True, ["ALL"])
    seconds = int(blend["stop_grace_period"].removesuffix("s"))
    assert seconds > Config.from_toml(TOML).server.drain
