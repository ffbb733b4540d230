"""The environments inside other people's training and evaluation stacks.

Each module here is one stack, and its docstring is its page: how it is installed, the code that a
user writes, and what becomes of blueprints, rewards, time limits and the rest. A module imports its
stack when it is imported itself, so that nothing is loaded which was not asked for; none needs
torch or `himac_agents`. Where a stack is missing, the error names the command that installs it.

All of them play through one `Session`: an episode of any text environment, flat or hierarchical, as
plain strings.
"""

from himac_envs.adapters.errors import EpisodeOverError, MissingStackError
from himac_envs.adapters.session import Session

__all__ = ["EpisodeOverError", "MissingStackError", "Session"]
