"""``himac serve-env ID``: an environment behind HTTP and WebSocket, for any language (OpenEnv)."""

from __future__ import annotations

from typing import Annotated, Any

import tyro

from himac_agents.cli.environment import AS_NAMED, EnvOptions, find_text_env
from himac_envs.adapters.sessions import LIMIT, TIMEOUT


def run(
    env: Annotated[str, tyro.conf.Positional],
    host: str = "127.0.0.1",
    port: int = 8000,
    split: str = "train",
    max_sessions: int = LIMIT,
    session_timeout: float = TIMEOUT,
    list_admissible: bool = False,
    environment: Annotated[EnvOptions, tyro.conf.arg(name="")] = AS_NAMED,
) -> int:
    """Serve an environment until Ctrl-C, over OpenEnv's standard; see himac_envs.adapters.openenv.

    Only this machine can reach it, unless --host says otherwise.

    Args:
        env: An id (himac list shows them), a benchmark's name (alfworld, webshop, sokoban) or
            module:Id-v0.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        split: Which tasks a reset without a task draws from.
        max_sessions: Sessions that may be open at a time.
        session_timeout: Seconds without a call after which a session is closed.
        list_admissible: Texts end with the commands that are possible.
        environment: Which environment of these tasks, and what it is made with.
    """
    kwargs: dict[str, Any] = {"split": split, **environment.arguments()}
    found = find_text_env(env, kwargs, environment.flat)
    from himac_envs.adapters import openenv, serving

    # The port first: whoever finds it taken need not wait for the data.
    with serving.listen(host, port) as bound:
        app = openenv.make_app(
            found.id,
            limit=max_sessions,
            timeout=session_timeout,
            list_admissible=list_admissible,
            **kwargs,
        )
        if not serving.is_loopback(host):
            print(f"Anyone who can reach {host} can play: there is no password.", flush=True)
        print(f"{found.id} at {serving.address(bound)} (stop with Ctrl-C)", flush=True)
        serving.run(app, bound)
    return 0
