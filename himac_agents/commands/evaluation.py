"""``himac eval ENV --agent ...``: success and return with intervals, on held-out tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from himac_envs import registry
from himac_envs.task import MissingDependencyError

if TYPE_CHECKING:
    from himac_agents.agent import HiMACAgent

SCRIPTED = ("oracle", "explorer", "random")


def run(
    env: Annotated[str, tyro.conf.Positional],
    agent: str = "oracle",
    split: str = "test",
    episodes: int = 100,
    seeds: tuple[int, ...] = (0,),
    temperature: float = 1.0,
    data: str | None = None,
    lanes: int = 128,
    output: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    record: Path | None = None,
) -> int:
    """Evaluate an agent on tasks it was not trained on.

    Args:
        env: A registered id: a hierarchical agent needs a hierarchical one.
        agent: A run's folder, a saved policy's folder, oracle, explorer or random.
        split: Which tasks.
        episodes: How many tasks, spread evenly over the split.
        seeds: Each task is played once for each seed.
        temperature: Of sampling; 0 is greedy.
        data: A folder of data, or "generated".
        lanes: Environments that play at the same time.
        output: Also write the result to this file.
        record: Also film the split's first task, as .gif or .mp4 (environments with pictures).
    """
    cards = registry.env_cards()
    if env not in cards:
        raise ValueError(f"no environment {env!r}: `himac list` shows them")
    from himac_agents.evaluate import evaluate

    made = _agent(agent, flat=cards[env].kind != "hierarchical", seed=seeds[0])
    kwargs: dict[str, Any] = {} if data is None else {"data": data}
    result = evaluate(
        made, env, split, episodes, seeds, temperature=temperature, lanes=lanes, **kwargs
    )
    found = result.to_json()
    table = Table(title=f"{agent} on {env} ({split})", title_justify="left", box=None)
    table.add_column("what")
    table.add_column("value", justify="right")
    for key, value in found.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        table.add_row(key.replace("_", " "), shown)
    Console().print(table)
    if output is not None:
        output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if record is not None:
        from himac_agents.commands.film import film

        print(film(made, env, split, record, temperature=temperature, **kwargs))
    return 0


def _agent(name: str, *, flat: bool, seed: int) -> HiMACAgent:
    if name in SCRIPTED:
        from himac_agents.agent import HiMACAgent
        from himac_agents.policies.scripted import ScriptedPolicy

        policy = ScriptedPolicy(name, seed=seed)  # type: ignore[arg-type]
        return HiMACAgent.flat(policy) if flat else HiMACAgent.shared(policy)
    folder = Path(name)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no agent {name!r}: give a run's folder, a saved policy's folder, "
            f"or one of {', '.join(SCRIPTED)}"
        )
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("torch", "a trained agent", "agents") from error
    from himac_agents.trainer import load_agent

    return load_agent(folder, flat=flat, seed=seed)
