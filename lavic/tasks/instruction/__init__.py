"""Instruction tuning: any LLaVA on conversations about images, or about none."""

from lavic.tasks.instruction.data import InstructionData
from lavic.tasks.instruction.task import Instruction

__all__ = ["Instruction", "InstructionData"]
