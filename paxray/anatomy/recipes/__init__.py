"""Classes derived by a few lines of YAML: operators, the recipes made of them, and the engine that computes them."""

from paxray.anatomy.recipes.region import Level, Region, Underivable
from paxray.anatomy.recipes.registry import BadArgument, operator
from paxray.anatomy.recipes.scene import Scene

__all__ = ["BadArgument", "Level", "Region", "Scene", "Underivable", "operator"]
