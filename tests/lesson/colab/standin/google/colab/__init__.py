"""Stands in for Colab's own package in the rehearsal: what the lessons may call is there, and nothing else."""

from . import drive, output

__all__ = ["drive", "output"]
