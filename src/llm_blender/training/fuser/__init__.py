"""Training a GenFuser from rows with references and candidates."""

from llm_blender.training.fuser.recipe import FuserRecipe, FuserSource
from llm_blender.training.fuser.run import FuserRun, train_fuser

__all__ = ["FuserRecipe", "FuserRun", "FuserSource", "train_fuser"]
