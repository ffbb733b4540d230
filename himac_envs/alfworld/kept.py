"""Games that need not be made again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from himac_envs.alfworld.dialect import Dialect
from himac_envs.alfworld.game import Game


class KeptGames:
    """The games that were asked for last, by task id and dialect.

    Args:
        most: How many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._games: OrderedDict[tuple[str, str | Dialect | None], Game] = OrderedDict()

    def game(self, task_id: str, dialect: str | Dialect | None, make: Callable[[], Game]) -> Game:
        """The game that is kept; where there is none, the one that `make` gives."""
        key = (task_id, dialect)
        game = self._games.get(key)
        if game is None:
            game = self._games[key] = make()
            if len(self._games) > self._most:
                self._games.popitem(last=False)
        else:
            self._games.move_to_end(key)
        return game

    def clear(self) -> None:
        """Forgets them all."""
        self._games.clear()
