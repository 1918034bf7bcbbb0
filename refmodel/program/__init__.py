"""Programs for the hardware: layers, steps between them, the program file, and its sizes."""

from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.step import Step

__all__ = ["LayerProgram", "Program", "Step"]
