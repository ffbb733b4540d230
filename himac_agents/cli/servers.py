"""Commands that serve until Ctrl-C: a model that samples, an environment, a shop's web site."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import tyro

from himac_agents.cli.environment import AS_NAMED, EnvOptions, find_text_env
from himac_agents.config.setting import check_limits
from himac_agents.policies.served.launch import Serving, serve
from himac_envs.adapters.sessions import LIMIT, TIMEOUT


def model(how: Annotated[Serving, tyro.conf.arg(name="")]) -> int:
    """Serve a model with vLLM until Ctrl-C, ready to be sent weights; prints the options to pass.

    Only this machine can reach it, unless --host names another address. Whoever can reach it can
    replace its weights, and make it read any file of weights that the server may read. vLLM must
    be installed (pip install vllm), with this package in the same environment.
    """
    return serve(how, say=lambda line: print(line, flush=True))


def environment(
    env: Annotated[str, tyro.conf.Positional],
    host: str = "127.0.0.1",
    port: int = 8000,
    split: str = "train",
    max_sessions: int = LIMIT,
    session_timeout: float = TIMEOUT,
    list_admissible: bool = False,
    environment: Annotated[EnvOptions, tyro.conf.arg(name="")] = AS_NAMED,
) -> int:
    """Serve an environment until Ctrl-C, by OpenEnv's protocol; see himac_envs.adapters.openenv.

    Only this machine can reach it, unless --host names another address.

    Args:
        env: An id (himac list shows them), a benchmark's name (alfworld, webshop, sokoban) or
            module:Id-v0.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        split: The split that a reset without a task draws from.
        max_sessions: Most sessions open at the same time.
        session_timeout: Seconds without a call after which a session is closed.
        list_admissible: End each text with the list of admissible commands.
        environment: The environment's form and arguments.
    """
    check_limits("max_sessions", max_sessions, least=1)
    check_limits("session_timeout", session_timeout, above=0)
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


def site(
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
        name: The benchmark: webshop.
        data: A folder with the benchmark's data, or "generated".
        goals: Instructions written by people, or synthetic ones (default: people's, if the data
            has any).
        host: The address to listen on.
        port: The port to listen on.
        show_attrs: Give products a page of their attributes.
        plain: Show the pages as the benchmark's agents read them, without the bar that leads a
            person from one instruction to the next.
    """
    from himac_envs.webshop.site import serve as serve_shop

    serve_shop(
        host=host, port=port, data=data, goals=goals, show_attrs=show_attrs, people=not plain
    )
    return 0
