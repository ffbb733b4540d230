"""``himac eval ENV --agent ...``: what an agent can do, on held-out tasks, with intervals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from himac_agents.algorithms.methods import method_of
from himac_agents.cli.environment import AS_NAMED, EnvOptions, find_text_env
from himac_agents.cli.players import AS_LOADED, NO_REMOTE, Remote, Sampler
from himac_agents.training.progress import Display
from himac_envs import registry
from himac_envs.contract import expert_of
from himac_envs.errors import HiMACError

if TYPE_CHECKING:
    from himac_agents.agents.agent import HiMACAgent
    from himac_agents.evaluation.metrics import Record
    from himac_agents.evaluation.protocols import Protocol
    from himac_agents.policies.base import Completion
    from himac_agents.policies.remote import Usage
    from himac_agents.rollouts.types import Episode


def run(
    env: Annotated[str, tyro.conf.Positional] = "",
    agent: str = "oracle",
    planner: str | None = None,
    executor: str | None = None,
    policy: Literal["api"] | None = None,
    preset: str | None = None,
    split: str | None = None,
    episodes: int | None = None,
    seeds: tuple[int, ...] | None = None,
    draws: int | None = None,
    temperature: float | None = None,
    image: bool = False,
    prompt: str | None = None,
    think: bool = False,
    executor_history: Literal["segment", "episode"] | None = None,
    history: int | None = None,
    max_command_tokens: int | None = None,
    max_blueprint_tokens: int | None = None,
    lanes: int = 128,
    threads: int = 0,
    output: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    records: Path | None = None,
    transcripts: bool = True,
    resume: bool = False,
    record: Path | None = None,
    environment: Annotated[EnvOptions, tyro.conf.arg(name="")] = AS_NAMED,
    remote: Annotated[Remote, tyro.conf.arg(name="")] = NO_REMOTE,
    sampler: Annotated[Sampler, tyro.conf.arg(name="")] = AS_LOADED,
) -> int:
    """Evaluate an agent on tasks it was not trained on.

    Args:
        env: An id (himac list shows them), a benchmark's name (alfworld, webshop, sokoban) or
            module:Id-v0. A hierarchical agent needs a hierarchical environment. It may be left out
            with --preset, which names one.
        agent: A run's folder (its newest checkpoint), a checkpoint's folder or RUN/best, a saved
            model's folder, oracle, explorer, random, api, or module:name, a class of yours with
            act(text, admissible), made anew for each episode.
        planner: The planner, if not --agent.
        executor: The executor, if not --agent.
        policy: "api" is short for --agent api.
        preset: A protocol of the literature (himac list shows them); options replace its values.
        split: The split to evaluate on (default: test).
        episodes: How many tasks, spread evenly over the split (default: 100).
        seeds: Play each task once for each of these seeds; intervals are over tasks.
        draws: With a protocol that resamples its tasks: how often to draw them (default: 1).
        temperature: Sampling temperature; 0 is greedy (default: 1).
        image: Put pictures into observations, for vision-language models (Sokoban).
        prompt: The prompt style: auto, chat, verl-agent, compact or compact-gather.
        think: Ask a model for reasoning in <think> tags before each answer.
        executor_history: What the executor reads: the segment of its sub-goal, or the whole
            episode.
        history: How many of its last steps a flat agent reads (default: as it was trained; the
            whole episode for a saved or remote model).
        max_command_tokens: Most tokens of a command, thoughts included (default: as it was
            trained; 512 for a saved or remote model, which can take a slow one minutes).
        max_blueprint_tokens: Most tokens of a blueprint, likewise.
        lanes: Environments that play at the same time.
        threads: CPU threads of a local model; 0: one for a tiny model, else as many as this process
            has cores.
        output: Also write the result to this file.
        records: Also write each episode to this file, one JSON object on a line, for himac report
            FILE: its outcome, and every prompt, answer, command and reward. Tiny models take 5 to
            50 KB per episode, large ones whose prompts list the commands 100 KB to 1 MB.
        transcripts: --no-transcripts leaves prompts and answers out of --records.
        resume: Continue the evaluation in the --records file: of its episodes only those that ended
            in an error are played again.
        record: Also film the split's first task, as .gif or .mp4 (environments with pictures).
        environment: The environment's form and arguments.
        remote: The remote model that "api" stands for.
        sampler: What samples for a trained agent or a saved model.
    """
    from himac_agents.evaluation.evaluate import evaluate
    from himac_agents.evaluation.loading import Players, trained_hierarchy, trained_with
    from himac_agents.evaluation.records import RecordFile
    from himac_agents.evaluation.resampled import evaluate_resampled
    from himac_agents.files import write_atomically
    from himac_agents.policies.threads import set_threads

    if policy == "api":
        agent = "api"
    given = {"max_command_tokens": max_command_tokens, "max_blueprint_tokens": max_blueprint_tokens}
    protocol = _protocol(env, preset).replace(
        split=split, episodes=episodes, seeds=seeds, draws=draws, temperature=temperature,
        prompt=prompt, **given,
    )  # fmt: skip
    actor = executor or agent
    name, flat = _asked(env, protocol, environment.flat, planner, actor)
    given_kwargs = environment.arguments() | ({"image": True} if image else {})
    kwargs: dict[str, Any] = {**trained_with(actor, name), **protocol.env_kwargs, **given_kwargs}
    played = find_text_env(name, {"split": protocol.split, **kwargs}, flat)
    if preset is not None and played.id not in (protocol.env, protocol.flat_env):
        raise ValueError(
            f"preset {preset!r} plays {protocol.env} or {protocol.flat_env}: name one of them, or "
            "none"
        )
    env_id, plays_flat = played.id, played.flat
    if played.hierarchical:
        kwargs = {**trained_hierarchy(actor), **kwargs}
    whole = {"split": protocol.split, **kwargs}
    if (image or record is not None) and not _has_pictures(played, whole, film=not image):
        option = "--image" if image else "--record"
        raise ValueError(f"{option} needs an environment with pictures: {env_id} has none")
    if history is not None and history < 0:
        raise ValueError(f"history={history}: must be at least 0")
    own = {**given, "prompt": prompt, "executor_history": executor_history, "think": think or None}
    own["history"] = history
    made = Players(
        env=env_id,
        flat=plays_flat,
        seed=protocol.seeds[0],
        endpoint=remote.endpoint(),
        prompt=protocol.prompt,
        think=think,
        sees=executor_history or "segment",
        history=history,
        max_command_tokens=protocol.max_command_tokens,
        max_blueprint_tokens=protocol.max_blueprint_tokens,
        settings={k: v for k, v in own.items() if v is not None} | sampler.settings(),
        pixels=bool(kwargs.get("image")),
    ).make(agent, planner, executor)
    if threads < 0:
        raise ValueError(f"threads={threads}: must be at least 0")
    if chosen := set_threads(threads, made.policies()):
        print(chosen, file=sys.stderr)
    for name in dict.fromkeys((planner or agent, executor or agent)):
        for note in (_foreign(name, played), _stand_in(name, played, whole)):
            if note:
                print(note, file=sys.stderr)
    if protocol.official and "data" not in given_kwargs:
        _insist_on_official_data(played, whole)
    if resume and protocol.resampled:
        raise ValueError(
            "--resume: a protocol that resamples its tasks cannot be resumed: leave --resume out"
        )
    if resume and records is None:
        raise ValueError("--resume needs --records FILE, the file of the interrupted evaluation")
    names = {"agent": agent, "planner": planner, "executor": executor, "preset": preset}
    told = {key: value for key, value in names.items() if value is not None}
    file = None
    if records is not None:
        reads = {"think": think or None, "executor_history": executor_history, "history": history}
        written = {"template_options": sampler.settings().get("template_options")}
        asked = {"model": remote.model or None, "base_url": remote.base_url or None}
        about = _about(protocol, env_id, kwargs, **told, **reads, **written, **asked)
        file = RecordFile(records, about, resume=resume, transcripts=transcripts)
    with _progress(made, protocol.episodes * len(protocol.seeds) * protocol.draws) as tick:

        def ended(record: Record, episode: Episode) -> None:
            if file is not None:
                file.add(record, episode)
            tick()

        how: dict[str, Any] = {
            "temperature": protocol.temperature, "lanes": lanes, "on_record": ended,
            "env_kwargs": kwargs,
        }  # fmt: skip
        panel, further = (protocol.split, protocol.episodes), {}
        if protocol.resampled:
            seed = protocol.seeds[0]
            drawn = evaluate_resampled(made, env_id, *panel, protocol.draws, seed, **how)
            result, further = drawn.result, {"draws": drawn.to_json()}
        else:
            how["known"] = [] if file is None else file.known
            how["say"] = lambda note: print(f"note: {note}", file=sys.stderr)
            result = evaluate(made, env_id, *panel, protocol.seeds, **how)
    found = {**result.to_json(), **further, "env": env_id, "split": protocol.split, **told}
    _show(found, Console())
    broken = [r.error for r in result.records if r.error is not None]
    if broken:
        first = broken[0].strip().splitlines()[-1]
        print(f"{len(broken)} episodes were cut off by errors; the first: {first}", file=sys.stderr)
    if output is not None:
        write_atomically(output, json.dumps(found, indent=2) + "\n")
    if record is not None:
        from himac_agents.cli.film import film

        how = {"temperature": protocol.temperature, "env_kwargs": kwargs}
        print(film(made, env_id, protocol.split, record, **how))
    return 1 if len(broken) == len(result.records) else 0


def _foreign(agent: str, played: registry.EnvEntry) -> str:
    """A word on a run that plays something else than it was trained for; "" where it does not."""
    from himac_agents.evaluation.loading import settings_of

    settings = settings_of(agent)
    if settings is None:
        return ""
    own = settings.env if method_of(settings).hierarchical else settings.flat_env
    card = registry.env_cards().get(registry.bare(own))
    if card is None:
        alike = registry.bare(own) == registry.bare(played.id)
    else:
        alike = (card.benchmark, card.kind) == (played.benchmark, played.kind)
    return "" if alike else f"note: {agent} was trained on {own} and plays {played.id}"


def _stand_in(agent: str, played: registry.EnvEntry, kwargs: Mapping[str, Any]) -> str:
    """A word on an expert that an environment does not have, and who plays instead."""
    if agent not in ("oracle", "explorer") or (agent == "oracle" and played.benchmark):
        return ""
    env = registry.make(played.id, **kwargs)
    stand_in = expert_of(env, "oracle" if agent == "oracle" else "explorer", played.id)
    env.close()
    return "" if stand_in == agent else f"note: {played.id} has no {agent}; the {stand_in} plays"


def _has_pictures(played: registry.EnvEntry, kwargs: Mapping[str, Any], *, film: bool) -> bool:
    """Whether observations hold pictures, or (for a film) an environment can be rendered as one."""
    if played.benchmark:
        return played.benchmark == "sokoban"
    env = registry.make(played.id, **kwargs)
    if film:
        return "rgb_array" in env.metadata.get("render_modes", ())
    return "image" in getattr(env.observation_space, "spaces", {})


def _about(
    protocol: Protocol, env_id: str, kwargs: Mapping[str, Any], **further: Any
) -> dict[str, Any]:
    """What makes an episode of one evaluation comparable with those of another."""
    names = ("split", "temperature", "prompt", "max_command_tokens", "max_blueprint_tokens")
    shared = {name: getattr(protocol, name) for name in names}
    given = {key: value for key, value in further.items() if value is not None}
    return {"env": env_id, "env_kwargs": dict(kwargs), **shared, **given}


@contextmanager
def _progress(agent: HiMACAgent, episodes: int) -> Iterator[Callable[[], None]]:
    """Tells how many episodes have ended, and what models have written and cost so far."""
    ended = answers = tokens = 0
    with Display(Console(stderr=True)).stage("playing", episodes) as tick:

        def one_more() -> None:
            nonlocal ended
            ended += 1
            tick(None, ended)

        def costs(usage: Usage) -> None:
            tick({"answers": usage.answers, "dollars": usage.cost}, ended)

        def written(given: Sequence[Completion]) -> None:
            nonlocal answers, tokens
            answers, tokens = answers + len(given), tokens + sum(len(c.token_ids) for c in given)
            tick({"answers": answers, "tokens": tokens}, ended)

        for policy in agent.policies():
            if hasattr(policy, "watch"):
                policy.watch = costs
            if hasattr(policy, "on_answers"):
                policy.on_answers = written
        yield one_more


def _protocol(env: str, preset: str | None) -> Protocol:
    from himac_agents.evaluation.protocols import Protocol

    if preset is not None:
        return Protocol.preset(preset)
    if not env:
        raise ValueError("name an environment (`himac list` shows them) or a --preset")
    return Protocol()


def _asked(
    env: str, protocol: Protocol, flat: bool | None, planner: str | None, agent: str
) -> tuple[str, bool | None]:
    """The environment that was asked for, and whether its flat or its hierarchical form was.

    Where nothing says so, an agent plays what it was trained for.
    """
    from himac_agents.evaluation.loading import settings_of

    if env and (flat is not None or env.lower() not in registry.benchmarks()):
        return registry.find_id(env), flat
    if flat is None and planner is not None:
        flat = False
    if flat is None:
        settings = settings_of(agent)
        flat = protocol.flat if settings is None else not method_of(settings).hierarchical
    return (registry.find_id(env) if env else protocol.env_id(flat)), flat


def _insist_on_official_data(played: registry.EnvEntry, kwargs: Mapping[str, Any]) -> None:
    task: Any = registry.make(played.id, **kwargs).unwrapped
    task = getattr(task, "task", task)
    if getattr(task, "data_name", "") == "generated":
        name = played.benchmark
        raise HiMACError(
            f"this protocol needs {name}'s published data, which is not installed: run `himac data "
            f"get {name}`, or give --data FOLDER. --data generated plays it on generated tasks, "
            "whose figures cannot be compared with published ones"
        )


def _show(found: Mapping[str, Any], console: Console) -> None:
    """The result as tables: success by kind of task, then everything else."""
    from himac_agents.evaluation.records import panel_of

    planner, executor = found.get("planner"), found.get("executor")
    apart = (planner or found["agent"], executor or found["agent"])
    who = " + ".join(apart) if planner or executor else found["agent"]
    title = f"{who} on {found['env']} ({panel_of(found)})"
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("tasks", "episodes", "success", "95% interval over tasks", "score"):
        table.add_column(heading, justify="right" if heading != "tasks" else "left")
    kinds = found.get("by_type", {})
    for name, row in [*kinds.items(), ("all", found)]:
        low, high = row["ci95"]
        interval = f"{100 * low:.1f} - {100 * high:.1f}"
        score = f"{100 * row['score']:.1f}"
        table.add_row(name, str(row["episodes"]), f"{100 * row['success']:.1f}", interval, score)
    console.print(table)
    rest = Table(box=None, show_header=False)
    rest.add_column()
    rest.add_column(justify="right")
    shown = {"by_type", "success", "ci95", "over", "score", "episodes"}
    shown |= {"env", "split", "agent", "usage", "manifest"}
    for key, value in found.items():
        if key not in shown:
            rest.add_row(key.replace("_", " "), _value(value))
    for model, usage in found.get("usage", {}).items():
        rest.add_row(model, _value(usage))
    console.print(rest)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value))
    return "-" if value is None else str(value)
