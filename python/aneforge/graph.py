"""Graphs and their compilation, under the module's name in ANEForge."""

from aneforge._compile import compile
from aneforge._functions import input
from aneforge._multi import MultiModel, Program, compile_multi
from aneforge._native import Model, SegmentedModel, Tensor
from aneforge.targets import cross_compile_check, preflight

__all__ = [
    "Model",
    "MultiModel",
    "Program",
    "SegmentedModel",
    "Tensor",
    "compile",
    "compile_multi",
    "cross_compile_check",
    "input",
    "preflight",
]
