"""Ask several LLMs, rank their answers by pairwise comparison, return the best one or fuse the best ones."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_blender.config import Config, load_config
    from llm_blender.ensemble import Ensemble, EnsembleSettings, Limits, Member, Observer
    from llm_blender.errors import (
        CheckpointError,
        ConfigError,
        DownloadError,
        InputError,
        LLMBlenderError,
        LLMError,
        MessageError,
        MissingExtraError,
        MissingLibraryError,
        NoAnswerError,
        NotFoundError,
        RowError,
        StoreError,
        WorkError,
    )
    from llm_blender.fusers import FusionRule, GuardedFuser, load_fuser
    from llm_blender.fusers.chat_fuser import ChatFuser
    from llm_blender.fusers.consensus_fuser import ConsensusFuser
    from llm_blender.fusers.embedded_fuser import EmbeddedFuser
    from llm_blender.fusers.gen_fuser import GenFuser
    from llm_blender.legacy.blender.blender import Blender
    from llm_blender.legacy.blender.config import BlenderConfig
    from llm_blender.legacy.gen_fuser.config import GenFuserConfig
    from llm_blender.legacy.pair_ranker.config import RankerConfig
    from llm_blender.llms import EmbeddedLLM, OpenAICompatibleLLM
    from llm_blender.rankers import load_ranker
    from llm_blender.rankers.llm_judge import LLMJudge
    from llm_blender.rankers.mlm_scoring import MLMScoring
    from llm_blender.rankers.pair_ranker import PairRanker
    from llm_blender.rankers.reward_model import RewardModel
    from llm_blender.rankers.simcls import SimCLS
    from llm_blender.rankers.summa_reranker import SummaReranker
    from llm_blender.ranking import Priors
    from llm_blender.stages import FuseRows, RankRows
    from llm_blender.store import Store
    from llm_blender.types import (
        LLM,
        Answer,
        Candidate,
        Comparison,
        Example,
        Failure,
        Fuser,
        Fusion,
        FusionReport,
        Ranker,
        Ranking,
        Sampling,
        Usage,
    )

__all__ = [
    "LLM",
    "Answer",
    "Blender",
    "BlenderConfig",
    "Candidate",
    "ChatFuser",
    "CheckpointError",
    "Comparison",
    "Config",
    "ConfigError",
    "ConsensusFuser",
    "DownloadError",
    "EmbeddedFuser",
    "EmbeddedLLM",
    "Ensemble",
    "EnsembleSettings",
    "Example",
    "Failure",
    "FuseRows",
    "Fuser",
    "Fusion",
    "FusionReport",
    "FusionRule",
    "GenFuser",
    "GenFuserConfig",
    "GuardedFuser",
    "InputError",
    "LLMBlenderError",
    "LLMError",
    "LLMJudge",
    "Limits",
    "MLMScoring",
    "Member",
    "MessageError",
    "MissingExtraError",
    "MissingLibraryError",
    "NoAnswerError",
    "NotFoundError",
    "Observer",
    "OpenAICompatibleLLM",
    "PairRanker",
    "Priors",
    "RankRows",
    "Ranker",
    "RankerConfig",
    "Ranking",
    "RewardModel",
    "RowError",
    "Sampling",
    "SimCLS",
    "Store",
    "StoreError",
    "SummaReranker",
    "Usage",
    "WorkError",
    "load_config",
    "load_fuser",
    "load_ranker",
]

# Code written for 0.0.2 imports its modules, such as llm_blender.blender.blender_utils; they are in that folder.
__path__.append(f"{__path__[0]}/legacy")

# The module of each name; imported on first access, so that `import llm_blender` is fast.
_HOMES = {
    "blender.blender": ("Blender",),
    "blender.config": ("BlenderConfig",),
    "config": ("Config", "load_config"),
    "ensemble": ("Ensemble", "EnsembleSettings", "Limits", "Member", "Observer"),
    "errors": tuple(name for name in __all__ if name.endswith("Error")),
    "fusers": ("FusionRule", "GuardedFuser", "load_fuser"),
    "fusers.chat_fuser": ("ChatFuser",),
    "fusers.consensus_fuser": ("ConsensusFuser",),
    "fusers.embedded_fuser": ("EmbeddedFuser",),
    "fusers.gen_fuser": ("GenFuser",),
    "gen_fuser.config": ("GenFuserConfig",),
    "llms": ("EmbeddedLLM", "OpenAICompatibleLLM"),
    "pair_ranker.config": ("RankerConfig",),
    "rankers": ("MLMScoring", "RewardModel", "SimCLS", "SummaReranker", "load_ranker"),
    "rankers.llm_judge": ("LLMJudge",),
    "rankers.pair_ranker": ("PairRanker",),
    "ranking": ("Priors",),
    "stages": ("FuseRows", "RankRows"),
    "store": ("Store",),
    "types": (
        "LLM",
        "Answer",
        "Candidate",
        "Comparison",
        "Example",
        "Failure",
        "Fuser",
        "Fusion",
        "FusionReport",
        "Ranker",
        "Ranking",
        "Sampling",
        "Usage",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if find_spec("torch") is None:  # `import *` and `help` import all that is listed
    for _name in ("MLMScoring", "RewardModel", "SimCLS", "SummaReranker"):
        __all__.remove(_name)
