"""``himac site webshop``: the shop as a web site, for a person or an agent with a browser."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro


def run(
    name: Annotated[Literal["webshop"], tyro.conf.Positional] = "webshop",
    data: str | None = None,
    goals: Literal["human", "synthetic"] | None = None,
    host: str = "127.0.0.1",
    port: int = 3000,
    show_attrs: bool = False,
    plain: bool = False,
) -> int:
    """Serve a benchmark's web site until Ctrl-C.

    Args:
        name: Which: webshop.
        data: A folder with the benchmark's data, or "generated".
        goals: Instructions of people or generated ones; default: people's where the data has any.
        host: The address to listen on.
        port: The port to listen on.
        show_attrs: Give products a page of their attributes.
        plain: Show the pages as agents of the benchmark read them, without the bar that leads a
            person from one instruction to the next.
    """
    from himac_envs.webshop.site import serve

    serve(host=host, port=port, data=data, goals=goals, show_attrs=show_attrs, people=not plain)
    return 0
