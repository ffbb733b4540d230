"""The command line: ``himac list | play | train | eval | demos | data | bench | report | ...``."""

from himac_agents.cli.app import main

__all__ = ["main"]
