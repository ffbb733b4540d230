"""Sokoban's inner loops; see `himac_envs.kernels` for how they are compiled."""

from himac_envs.kernels import B1, COMPILED, F64, I16, I32, I64, U8, U32, U64, kernel

__all__ = ["B1", "COMPILED", "F64", "I16", "I32", "I64", "U8", "U32", "U64", "kernel"]
