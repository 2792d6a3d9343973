"""Stages of work on rows: rank their candidates, fuse the best of them.

A stage is a callable from rows to rows, as plain JSON values. It is built from plain settings, loads its models at the
first use, and can be pickled at any time, so that the same one works here, in `datasets.map`, and in the actors of a
cluster. A row that fails comes back with {error} in place of its result, and the others are not affected. Nothing in a
result depends on the machine, the time, or the other rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

from llm_blender.conversations import prompt_key
from llm_blender.data import keep_candidates, parse_row, stored_ranking
from llm_blender.errors import InputError, LLMBlenderError, WorkError
from llm_blender.fusers.guard import DEFAULT_RULE, DEFAULT_TOP_K, FusionRule, GuardedFuser, Order
from llm_blender.ranking import DEFAULT_BUDGET, Priors, comparison_count, rank_best
from llm_blender.types import Example, Fuser, FusionReport, Instruction, OnProgress, Ranker, Ranking, with_input

Row = dict[str, Any]
RankedForm = Literal["ranked", "sorted", "best_of_n"]
"""Form of a ranked row: as it was with its ranking, its candidates sorted, or only the best one as its output."""
FAILURE = "failure: "
"""What begins the name of a count of failures of one kind."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class RankableRow:
    """A well-formed row.

    Attributes:
        record: the row, to write back.
        example: the row as it was read.
        prompt: instruction and input as one text.
        texts: the candidates.
    """

    record: Mapping[str, Any]
    example: Example
    prompt: str
    texts: Sequence[str]

    @property
    def full_instruction(self) -> Instruction:
        """Instruction and input, which the ranker reads; a conversation without an input stays one."""
        return with_input(self.example.instruction, self.example.input)

    @classmethod
    def parse(cls, record: Mapping[str, Any], models: Sequence[str] = ()) -> RankableRow:
        """Parse a row.

        Args:
            record: the row.
            models: LLMs whose candidates are kept; empty for all.

        Raises:
            ValueError: the row is malformed, or no candidate is by one of the LLMs.
        """
        example = parse_row(record)
        if not example.prompt.strip():
            raise ValueError(f"`{prompt_key(record, 'instruction')}` is empty")
        if not example.candidates:
            raise ValueError("`candidates` is empty: give at least one")
        if models:
            kept = [i for i, candidate in enumerate(example.candidates) if candidate.model in models]
            if not kept:
                raise ValueError(f"no candidate is by {' or '.join(models)}")
            record = keep_candidates(record, kept)
            example = parse_row(record)
        return cls(record, example, example.prompt, [candidate.text for candidate in example.candidates])

    @property
    def models(self) -> list[str | None]:
        """The LLM of each candidate."""
        return [candidate.model for candidate in self.example.candidates]


class Stage(ABC, Generic[_T]):
    """Base of the stages; `_T` is what the model makes of a row.

    Attributes:
        settings: all that results depend on, but for the weights of models, as plain JSON values.
        models: LLMs whose candidates count; empty for all.
        key: of the result in a row.
    """

    key: ClassVar[str]
    settings: dict[str, Any]
    models: Sequence[str] = ()
    _loaded: ClassVar[tuple[str, ...]] = ()  # attributes that are not pickled

    def __call__(self, rows: Sequence[Mapping[str, Any]], progress: OnProgress | None = None) -> list[Row]:
        """Work on rows.

        Args:
            rows: the rows; they are not changed.
            progress: called with the work done and expected.

        Returns:
            A row for each; one that failed as it came, with {error: reason} in place of the result.

        Raises:
            LLMBlenderError: a model cannot be loaded.
        """
        self.load()
        out: list[Row] = []
        good: dict[int, RankableRow] = {}
        for i, record in enumerate(rows):
            try:
                good[i] = self.parse(record)
                out.append({})
            except ValueError as error:
                out.append({**record, self.key: {"error": str(error)}})
        found = self._each([*good.values()], progress)
        for (i, row), result in zip(good.items(), found, strict=True):
            if isinstance(result, Exception):
                out[i] = {**row.record, self.key: {"error": _reason(result)}}
            else:
                out[i] = self.shape(row, result)
        return out

    def error(self, row: Mapping[str, Any]) -> str | None:
        """Return why a row that came out has failed; None if it has not."""
        result = row[self.key]
        return result["error"] if result.keys() == {"error"} else None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in self._loaded}

    def parse(self, record: Mapping[str, Any]) -> RankableRow:
        """Parse a row.

        Raises:
            ValueError: the row is malformed.
        """
        return RankableRow.parse(record, self.models)

    @abstractmethod
    def load(self) -> None:
        """Load the models, once.

        Raises:
            LLMBlenderError: a model cannot be loaded.
        """

    @abstractmethod
    def work(self, rows: Sequence[RankableRow], progress: OnProgress | None = None) -> list[_T]:
        """Work on well-formed rows at once; an error is that of all."""

    @abstractmethod
    def shape(self, row: RankableRow, result: _T) -> Row:
        """Make the row to write of a row and what `work` made of it."""

    @abstractmethod
    def count(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Count what a row that came out holds, by name, to be added up."""

    def _each(self, rows: Sequence[RankableRow], progress: OnProgress | None) -> list[_T | Exception]:
        """Work on rows at once; where a row breaks that, on each alone, with its error in its place.

        What is not about a row (a `WorkError`: the device, the LLM) is raised, and so is a bug that all rows meet.
        """
        try:
            return list(self.work(rows, progress)) if rows else []
        except WorkError:
            raise
        except Exception as error:
            if len(rows) == 1:
                return [error]
            alone = [self._each([row], None)[0] for row in rows]
            if all(isinstance(result, Exception) and not isinstance(result, LLMBlenderError) for result in alone):
                raise
            return alone


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, LLMBlenderError) else f"{type(error).__name__}: {error}"


class RankRows(Stage[Ranking]):
    """Rank the candidates of rows.

    A row is {instruction, input?, candidates: [{text, model?}] or [text], ...}, as of `blend rank`, which writes the
    same rows.

    Args:
        ranker: name for `llm_blender.rankers.load_ranker`.
        form: of the rows that come out.
        strategy: pairs to compare.
        budget: maximum comparisons of a row, for the strategies auto and active.
        seed: of the strategy's draws.
        models: LLMs whose candidates are ranked; empty for all.
        priors: strengths of the LLMs, which count as evidence; None for none.
        whole: rank all candidates, also for the form ``best_of_n``: verdicts that follow can lift any.
        loading: arguments of `load_ranker`, such as `backend` and `device`.

    Raises:
        InputError: there is no such form or strategy, or the budget is too small for it.

    Examples:
        >>> RankRows("longest")([{"instruction": "Why?", "candidates": ["No.", "Because."]}])[0]["ranking"]["best"]
        1
    """

    key = "ranking"
    _loaded = ("_ranker", "_then")

    def __init__(
        self,
        ranker: str = "bundled",
        *,
        form: RankedForm = "ranked",
        strategy: str = "auto",
        budget: int = DEFAULT_BUDGET,
        seed: int = 0,
        models: Sequence[str] = (),
        priors: Priors | None = None,
        whole: bool = False,
        loading: Mapping[str, Any] | None = None,
    ) -> None:
        if form not in get_args(RankedForm):
            raise InputError(f"The form of a ranked row is one of {', '.join(get_args(RankedForm))}, not {form!r}.")
        comparison_count(strategy, 2, budget=budget)  # a wrong setting is no error of rows
        self.name, self.form, self.models = ranker, form, tuple(models)
        self.loading = dict(loading or {})
        self.priors = priors
        self._options = {"strategy": strategy, "budget": budget, "seed": seed}
        self._k = 1 if form == "best_of_n" and priors is None and not whole else None
        self.settings = {
            "ranker": ranker,
            "form": form,
            **self._options,
            "models": list(models),
            "priors": None if priors is None else priors.to_dict(),
            "loading": {name: value for name, value in self.loading.items() if value is not None},
        }

    def then(self, change: Callable[[list[Ranking], Sequence[RankableRow]], list[Ranking]]) -> None:
        """Change rankings by a function, such as a judge's; it is not pickled, and its calls stay in this process."""
        self._then = change

    def load(self) -> None:
        """Load the ranker, once."""
        _ = self.ranker

    @property
    def ranker(self) -> Ranker:
        """The ranker."""
        loaded: Ranker | None = vars(self).get("_ranker")
        if loaded is None:
            from llm_blender.rankers import load_ranker

            loaded = self._ranker = load_ranker(self.name, **self.loading)
        return loaded

    def work(self, rows: Sequence[RankableRow], progress: OnProgress | None = None) -> list[Ranking]:
        """Rank the candidates of well-formed rows."""
        instructions, texts = [row.full_instruction for row in rows], [row.texts for row in rows]
        rankings = rank_best(self.ranker, instructions, texts, self._k, progress=progress, **self._options)  # type: ignore[arg-type]
        if self.priors is not None:
            rankings = [self.priors.apply(ranking, row.models) for row, ranking in zip(rows, rankings, strict=True)]
        then = vars(self).get("_then")
        return then(rankings, rows) if then is not None else rankings

    def shape(self, row: RankableRow, result: Ranking) -> Row:
        """Add the ranking to a row, in the form that is wanted."""
        if self.form == "ranked":
            return {**row.record, "ranking": result.summary()}
        if self.form == "sorted":
            ranks, scores = result.sorted(result.ranks), result.sorted(result.scores)
            ranking = {**result.summary(), "best": 0, "ranks": ranks, "scores": scores}
            return {**keep_candidates(row.record, result.order), "ranking": ranking}
        prompt = prompt_key(row.record, "instruction") or "instruction"
        kept = {key: row.record[key] for key in ("id", prompt, "input") if key in row.record}
        best = row.example.candidates[result.best]
        model = {} if best.model is None else {"model": best.model}
        cut = {"finish_reason": best.finish_reason} if best.cut_off else {}
        return {**kept, "output": best.text, **model, **cut, "ranking": result.summary()}

    def count(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Count comparisons, the share of the text that was not read, a judge that failed, a chosen text cut off."""
        ranking = row["ranking"]
        judging = ranking.get("evidence", {}).get("judging", {})
        return {
            "comparisons": ranking["comparisons"],
            "truncated": ranking.get("truncated", 0.0),
            "incomplete": "failure" in judging,
            **({"cut_off": "finish_reason" in row} if self.form == "best_of_n" else {}),
        }


@dataclass(frozen=True)
class _Fused:
    """Result of a row.

    Attributes:
        ranking: of its candidates; None where it held one.
        report: of the fuser.
    """

    ranking: Ranking | None
    report: FusionReport


class FuseRows(Stage[_Fused]):
    """Fuse the best candidates of rows.

    A row is one of `RankRows`; the ranking that it holds is kept unless `rerank` is true. It comes out with `ranking`
    and `fusion`, as of `blend fuse`.

    Args:
        fuser: name for `llm_blender.fusers.load_fuser`, but for one that is an LLM: see `using`.
        ranker: name of the ranker that ranks the candidates and guards.
        rerank: rank all rows, also those that hold a ranking.
        mode: ``fuse`` every row, or ``auto``, where it is likely to help.
        top_k: maximum candidates to fuse.
        order: in which the fuser reads them.
        guard: return a fused text only if the ranker prefers it.
        rule: thresholds, arguments of `FusionRule`.
        strategy: pairs to compare.
        budget: maximum comparisons of a row.
        seed: of all draws.
        models: LLMs whose candidates count; empty for all.
        device: of the fuser.
        loading: arguments of `load_ranker`.

    Raises:
        InputError: there is no such strategy, the budget is too small for it, or a threshold is out of range.
    """

    key = "fusion"
    _loaded = ("_guarded", "_fuser")

    def __init__(
        self,
        fuser: str,
        ranker: str = "bundled",
        *,
        rerank: bool = False,
        mode: Literal["fuse", "auto"] = "fuse",
        top_k: int = DEFAULT_TOP_K,
        order: Order = "best_first",
        guard: bool = True,
        rule: Mapping[str, float] | None = None,
        strategy: str = "auto",
        budget: int = DEFAULT_BUDGET,
        seed: int = 0,
        models: Sequence[str] = (),
        device: str | None = None,
        loading: Mapping[str, Any] | None = None,
    ) -> None:
        comparison_count(strategy, 2, budget=budget)  # a wrong setting is no error of rows
        self.name, self.ranker_name, self.rerank, self.models = fuser, ranker, rerank, tuple(models)
        self.seed, self.device, self.loading = seed, device, dict(loading or {})
        self._options = {"strategy": strategy, "budget": budget, "seed": seed}
        self._fusing: dict[str, Any] = {"mode": mode, "top_k": top_k, "order": order, "guard": guard}
        self._rule = FusionRule(**rule) if rule is not None else DEFAULT_RULE
        self.settings = {
            "fuser": fuser,
            "ranker": ranker,
            "rerank": rerank,
            **self._fusing,
            "rule": vars(self._rule),
            **self._options,
            "models": list(models),
            "device": device,
            "loading": {name: value for name, value in self.loading.items() if value is not None},
        }

    def using(self, load: Callable[[], Fuser]) -> None:
        """Load the fuser by a function; it is not pickled, and calls of an LLM stay in this process."""
        self._fuser = load

    def load(self) -> None:
        """Load ranker and fuser, once."""
        _ = self.guarded

    @property
    def guarded(self) -> GuardedFuser:
        """The fuser under guard."""
        loaded: GuardedFuser | None = vars(self).get("_guarded")
        if loaded is None:
            from llm_blender.rankers import load_ranker

            ranker = load_ranker(self.ranker_name, **self.loading)
            load = vars(self).get("_fuser", self._load_fuser)
            loaded = self._guarded = GuardedFuser(load(), ranker, rule=self._rule, **self._fusing)
        return loaded

    def _load_fuser(self) -> Fuser:
        from llm_blender.fusers import load_fuser
        from llm_blender.llms import EmbeddedLLM

        return load_fuser(self.name, device=self.device, run=EmbeddedLLM)

    def work(self, rows: Sequence[RankableRow], progress: OnProgress | None = None) -> list[_Fused]:
        """Rank rows without a ranking, and fuse the best candidates of all."""
        known = {} if self.rerank else self.stored(rows)
        missing = [i for i in range(len(rows)) if i not in known]
        ranked = rank_best(
            self.guarded.ranker,
            [rows[i].full_instruction for i in missing],
            [rows[i].texts for i in missing],
            self.guarded.top_k,
            **self._options,  # type: ignore[arg-type]
        )
        made = dict(zip(missing, ranked, strict=True))
        reports = self.guarded.fuse_many(
            [row.example.instruction for row in rows],
            [row.texts for row in rows],
            [made[i] if i in made else known[i] for i in range(len(rows))],
            inputs=[row.example.input for row in rows],
            seed=self.seed,
            progress=progress,
        )
        return [_Fused(made.get(i), report) for i, report in enumerate(reports)]

    def shape(self, row: RankableRow, result: _Fused) -> Row:
        """Add the fusion to a row, and the ranking where it held none."""
        ranking = {} if result.ranking is None else {"ranking": result.ranking.summary()}
        fusion = {name: value for name, value in result.report.to_dict().items() if name != "seconds"}
        return {**row.record, **ranking, "fusion": fusion}

    def count(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Count fused texts and those returned, reasons, tokens, and the share of text that was not read."""
        fusion = row["fusion"]
        return {
            "fusions": "text" in fusion,
            "fused": fusion["returned"] == "fuse",
            f"reason {fusion['reason']}": 1,
            **({"incomplete": 1, FAILURE + fusion.get("error", "")[:200]: 1} if fusion["reason"] == "failed" else {}),
            **fusion.get("usage", {}),
            "truncated": fusion.get("truncated", 0.0),
        }

    def stored(self, rows: Sequence[RankableRow]) -> dict[int, Ranking]:
        """Read the valid rankings that rows hold, by index; for ``auto`` only those whose lead is known."""
        rankings = {}
        for i, row in enumerate(rows):
            with suppress(ValueError):
                ranking = stored_ranking(row.example)
                if self._fusing["mode"] != "auto" or len(ranking) < 2 or ranking.lead is not None:
                    rankings[i] = ranking
        return rankings
