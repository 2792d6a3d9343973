"""The settings of an ensemble: how it ranks, when it stops waiting, and when it fuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self, get_args

from llm_blender.config import AUTO, Config
from llm_blender.ensemble.gathering import Limits
from llm_blender.errors import InputError, unknown_name
from llm_blender.fusers import DEFAULT_RULE, DEFAULT_TOP_K, FusionRule
from llm_blender.ranking import DEFAULT_BUDGET, CloseCalls, Priors, comparison_count

Mode = Literal["pick", "fuse", "auto"]
"""What happens to the candidates."""
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class EnsembleSettings:
    """The settings of an ensemble; `dataclasses.replace` makes other ones of them, for one prompt or for all.

    Attributes:
        strategy: pairs to compare, see `llm_blender.ranking.STRATEGIES`. For ``auto``, only the best is wanted in the
            mode ``pick``, and the `top_k` best in the others; an order of all if there are priors or a judge.
        budget: maximum number of comparisons for one prompt, for ``auto`` and ``active``.
        limits: when to stop waiting, and the maximum cost of one prompt.
        priors: strengths of the LLMs by name, added to the ranker's evidence; ``auto`` learns them from the record,
            None adds none.
        record: keep the outcome of each ranking in the store, without texts, see `llm_blender.record`.
        evidence: whether what the texts show beside the ranker's model counts, such as what most of them say.
        close_calls: pairs that the judge of the ensemble compares, if it has one.
        mode: ``pick`` returns the best candidate, ``fuse`` a text that the fuser makes from the best ones, ``auto``
            fuses where `rule` says so; a fused text is returned only if the guard prefers it, see `GuardedFuser`.
        top_k: maximum number of candidates to fuse.
        guard: False returns fused texts without comparing them with the best candidate.
        rule: thresholds of the guard and of ``auto``.

    Raises:
        InputError: the strategy or the mode is unknown, or `top_k` is below 2.
    """

    strategy: str = "auto"
    budget: int = DEFAULT_BUDGET
    limits: Limits = field(default_factory=Limits)
    priors: Priors | Literal["auto"] | None = None
    record: bool = True
    evidence: bool = True
    close_calls: CloseCalls = field(default_factory=CloseCalls)
    mode: Mode = "pick"
    top_k: int = DEFAULT_TOP_K
    guard: bool = True
    rule: FusionRule = DEFAULT_RULE

    def __post_init__(self) -> None:
        comparison_count(self.strategy, 2, budget=self.budget)  # refuses an unknown strategy
        if self.top_k < 2:
            raise InputError(f"Fusing needs at least two candidates, not {self.top_k}: raise top_k.")
        if self.mode not in MODES:
            raise unknown_name("mode", self.mode, MODES)

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Take the settings from a configuration, and read its file of priors.

        Raises:
            NotFoundError: the file of priors does not exist.
            InputError: the strategy is unknown, or the file holds no priors.
        """
        path = config.priors_path
        priors: Priors | Literal["auto"] | None = None if path is None else Priors.load(path)
        return cls(
            **config.ensemble.model_dump(),
            **config.ranker.model_dump(include={"strategy", "budget", "record"}),
            **config.fuser.model_dump(include={"top_k", "guard"}),
            limits=Limits(**config.limits.model_dump()),
            priors="auto" if config.ranker.priors == AUTO else priors,
            close_calls=CloseCalls(config.ranker.judge_margin, config.ranker.judge_pairs),
            rule=FusionRule(**config.fuser.thresholds),
        )
