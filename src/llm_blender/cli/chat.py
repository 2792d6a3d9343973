"""``blend chat``: a conversation with the ensemble."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import typer

from llm_blender.cli._markdown import print_text, text_stream
from llm_blender.cli._options import AskOptions, PlainOption, PriorsOption, StrategyOptions, with_options
from llm_blender.cli._output import note, on_terminal
from llm_blender.cli._show import remark_on, show_answer
from llm_blender.cli.ask import answer_prompt, continued, is_alone, prepare
from llm_blender.cli.logs import ContinueOption, NoLogOption, keep_answer
from llm_blender.errors import InputError, LLMBlenderError, WorkError

if TYPE_CHECKING:
    from pathlib import Path

    from llm_blender.ensemble import Ensemble
    from llm_blender.types import Answer, Message

_HELP = """\
/show    all candidates of the last answer, with ranks, probabilities and what each took
/models  the LLMs
/clear   begin a new conversation
/quit    end, as /exit and Ctrl-D do
Ctrl-C stops an answer. A line that ends with \\ goes on with the next one."""
_COMMAND = re.compile(r"/\w+$")
_LINES = 1000  # of the history of lines


@with_options
def chat(
    *,
    options: AskOptions,
    pairs: StrategyOptions,
    priors: PriorsOption = None,
    go_on: ContinueOption = False,
    no_log: NoLogOption = False,
    plain: PlainOption = False,
) -> None:
    """Chat with the LLMs: each message is answered as by `blend ask`, in view of the conversation.

    /show prints all candidates of the last answer, /models the LLMs, /clear begins anew, and /quit, /exit or Ctrl-D
    ends; Ctrl-C stops an answer. Lines of a pipe are messages, too; the exit status is then 1 if one had no answer.
    """
    messages, options = continued(options) if go_on else ([], options)
    _, ensemble, _ = prepare(options, pairs, priors)
    last: tuple[Answer, dict[int, bool]] | None = None
    interactive, failed = sys.stdin.isatty(), 0
    if interactive:
        note("/help lists the commands; Ctrl-D ends")
    with _line_history(ensemble if interactive and not no_log else None):
        for line in _lines(interactive):
            if _COMMAND.match(line):
                if line in ("/quit", "/exit"):
                    break
                if line == "/show" and last is not None:
                    show_answer(*last, ensemble.members, plain=plain)
                elif line == "/clear":
                    messages, last = [], None
                else:
                    _run_command(line, ensemble)
                continue
            asking: list[Message] = [*messages, {"role": "user", "content": line}]
            try:
                last = _answer(ensemble, asking, pairs.seed, plain=plain)
            except KeyboardInterrupt:
                if not interactive:
                    raise
                note("stopped")
            except LLMBlenderError as error:
                failed += 1
                note(f"error: {error}")
            else:
                messages = [*asking, {"role": "assistant", "content": last[0].text}]
                if not no_log:
                    keep_answer(ensemble.store, asking, last[0], options.system_text)
    if failed and not interactive:
        raise WorkError(f"{failed} of the messages had no answer.")


def _answer(ensemble: Ensemble, messages: list[Message], seed: int, *, plain: bool) -> tuple[Answer, dict[int, bool]]:
    """Answer a conversation, and print the answer."""
    stream = is_alone(ensemble) and ensemble.settings.mode == "pick"
    prompt = messages if len(messages) > 1 else str(messages[0]["content"])
    receiver = text_stream(plain=plain) if stream else None
    answer, stored = answer_prompt(ensemble, prompt, seed=seed, stream=receiver)
    if not stream:
        print_text(answer.text, plain=plain)
    remark_on(answer, 0, len(messages))
    return answer, stored


def _run_command(line: str, ensemble: Ensemble) -> None:
    match line:
        case "/help":
            typer.echo(_HELP)
        case "/models":
            for member in ensemble.members:
                model = member.llm.identity.get("model", member.llm.name)
                samples = f", {member.samples} samples" if member.samples > 1 else ""
                typer.echo(f"{member.llm.name}  ({model}{samples})")
        case "/show":
            note("there is no answer yet")
        case _:
            note(f"unknown command {line}; /help lists the commands")


def _lines(interactive: bool) -> Iterator[str]:
    """Yield the messages and commands, without empty ones, until the end of standard input."""
    read = _read_terminal if interactive else sys.stdin.readline
    begun = ""
    while True:
        try:
            line = read()
        except KeyboardInterrupt:
            if not interactive:
                raise
            typer.echo(err=True)
            begun = ""
            continue
        except UnicodeDecodeError:
            raise InputError("Standard input is not UTF-8: convert it, e.g. with iconv.") from None
        whole = begun + line.rstrip("\r\n")
        if line and whole.endswith("\\"):
            begun = f"{whole[:-1]}\n"
            continue
        begun = ""
        if whole.strip():
            yield whole.strip()
        if not line:
            return


def _read_terminal() -> str:
    """Read a line of the terminal, with its line end; empty at the end."""
    if not on_terminal():  # where standard output is a pipe, it gets answers only
        typer.echo("> ", nl=False, err=True)
    try:
        return input("> " if on_terminal() else "") + "\n"
    except EOFError:
        typer.echo(err=True)
        return ""


@contextmanager
def _line_history(ensemble: Ensemble | None) -> Iterator[None]:
    """Load the lines of earlier chats for the arrow keys, and keep those of this one beside the store."""
    save = _load_lines(ensemble.store.path) if ensemble is not None and ensemble.store is not None else None
    try:
        yield
    finally:
        if save is not None:
            save()


def _load_lines(store: Path) -> Callable[[], None] | None:
    try:
        import readline
    except ImportError:  # Windows
        return None
    path = store.with_name(f"{store.stem}.chat")
    readline.set_history_length(_LINES)
    with suppress(OSError):
        readline.read_history_file(path)

    def save() -> None:
        with suppress(OSError):
            path.touch(mode=0o600)  # messages are private
            path.chmod(0o600)
            readline.write_history_file(path)

    return save
