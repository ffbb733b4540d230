"""Agents by name: scripted ones, runs, saved models and remote models, and mixtures of two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from himac_agents import prompts
from himac_agents.agents.agent import Executor, HiMACAgent, Planner, assemble
from himac_agents.agents.expert import Expert
from himac_agents.agents.own import is_own, own_agent
from himac_agents.algorithms.methods import method_of
from himac_agents.config import TrainConfig
from himac_agents.files import latest_checkpoint
from himac_agents.policies.base import Sampling
from himac_agents.policies.endpoint import Endpoint
from himac_agents.policies.remote import APIPolicy
from himac_agents.prompts import make_prompts
from himac_agents.rollouts.pool import hierarchy_arguments
from himac_envs import registry
from himac_envs.errors import explained

SCRIPTED = ("oracle", "explorer", "random")
#: The longest answers of models that no settings come with.
DEFAULT_TOKENS = 512


@dataclass
class Players:
    """Makes agents by their names.

    Attributes:
        env: The environment that will be played.
        flat: Whether it is a flat one.
        seed: Seeds sampling and scripted players.
        endpoint: Where "api" is.
        prompt: The style for models that bring none of their own ("auto": chat).
        think: Ask such models for reasoning in `<think>` tags.
        sees: What such an executor remembers: "segment" or "episode".
        history: How many steps such a flat agent remembers; None: the whole episode, or what its
            style of prompts shows.
        max_command_tokens: The longest command of such models; 0: 512.
        max_blueprint_tokens: The longest blueprint, likewise.
        settings: Settings that replace those of runs too (see `TrainConfig`).
        pixels: Whether observations come with pictures.
    """

    env: str
    flat: bool
    seed: int = 0
    endpoint: Endpoint | None = None
    prompt: str = "auto"
    think: bool = False
    sees: str = "segment"
    history: int | None = None
    max_command_tokens: int = 0
    max_blueprint_tokens: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    pixels: bool = False
    _made: dict[str, HiMACAgent] = field(default_factory=dict, init=False, repr=False)

    def make(
        self, agent: str, planner: str | None = None, executor: str | None = None
    ) -> HiMACAgent:
        """An agent, with another's planner or executor where one is named.

        Args:
            agent: "oracle", "explorer", "random", "api", a run's folder, a saved model's, or
                "module:name" (see `himac_agents.agents.own`).
            planner: Who plans instead.
            executor: Who acts instead.

        Raises:
            ValueError: A planner was named for a flat environment, or nothing tells where "api" is.
            FileNotFoundError: A name is none of these.
            MissingDependencyError: A package that such an agent needs is not installed.
        """
        if self.flat:
            if planner is not None:
                raise ValueError(f"{self.env} is flat and has no planner")
            return self._agent(executor or agent)
        above, below = self._agent(planner or agent), self._agent(executor or agent)
        if above.planner is None:
            raise ValueError(f"{planner or agent} has no planner, which {self.env} needs")
        return HiMACAgent(above.planner, below.executor)

    def _agent(self, name: str) -> HiMACAgent:
        if name not in self._made:
            kinds: dict[str, Callable[[str], HiMACAgent]] = {
                **dict.fromkeys(SCRIPTED, self._scripted),
                "api": self._remote,
            }
            other = self._own if is_own(name) and not Path(name).exists() else self._local
            self._made[name] = kinds.get(name, other)(name)
        return self._made[name]

    def _scripted(self, name: str) -> HiMACAgent:
        policy = Expert(name, seed=self.seed)  # type: ignore[arg-type]
        return HiMACAgent.flat(policy) if self.flat else HiMACAgent.shared(policy)

    def _own(self, name: str) -> HiMACAgent:
        if not self.flat:
            raise ValueError(
                f"{name} plays flat environments, and {self.env} is hierarchical: add --flat, or "
                "give its flat id; to write one level alone, see himac_envs.PlannerView and "
                "ExecutorView"
            )
        return own_agent(name)

    def _remote(self, name: str) -> HiMACAgent:
        if self.endpoint is None:
            raise ValueError("a remote model needs its name: --model NAME [--base-url URL]")
        policy = APIPolicy(self.endpoint, seed=self.seed)
        style = prompts.make(self.prompt, self.env, think=self.think, pixels=self.pixels)
        command = Sampling(1.0, self.max_command_tokens or DEFAULT_TOKENS)
        executor = Executor(policy, style, command)
        executor.sees = "episode" if self.sees == "episode" else "segment"
        if isinstance(style, prompts.VerlAgentPrompts):
            executor.history = style.memory
        if self.history is not None:
            executor.history = self.history
        plan = replace(command, max_tokens=self.max_blueprint_tokens or DEFAULT_TOKENS)
        return HiMACAgent(None if self.flat else Planner(policy, style, plan), executor)

    def _local(self, name: str) -> HiMACAgent:
        folder = Path(name)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no agent {name!r}: give a run's folder, a saved policy's folder, "
                f"module:name, or one of {', '.join(SCRIPTED)}, api"
            )
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise explained(error, "a trained agent") from error
        from himac_agents.policies.tiny import is_tiny

        settings = dict(self.settings)
        if run_of(folder) is None:
            # A saved model brings no settings of its own.
            settings = {"env": self.env, "think": self.think, "executor_history": self.sees}
            if self.pixels:
                settings["env_kwargs"] = {"image": True}
            if not is_tiny(folder):
                settings |= {
                    "prompt": self.prompt,
                    "max_command_tokens": self.max_command_tokens or DEFAULT_TOKENS,
                    "max_blueprint_tokens": self.max_blueprint_tokens or DEFAULT_TOKENS,
                }
            settings |= self.settings
        return load_agent(folder, flat=self.flat, seed=self.seed, **settings)


def run_of(folder: Path) -> Path | None:
    """The run that a folder is, or is a checkpoint of; None where it is neither."""
    if (folder / "config.toml").is_file():
        return folder
    whole = [folder / name for name in ("policy", "executor")]
    for run in (folder.absolute().parent, folder.absolute().parent.parent):
        if (run / "config.toml").is_file() and any(path.is_dir() for path in whole):
            return run
    return None


def settings_of(name: str) -> TrainConfig | None:
    """The settings of a run, by its folder or a checkpoint's; None where it is something else."""
    run = run_of(Path(name))
    return None if run is None else TrainConfig.from_toml(run / "config.toml")


def trained_with(name: str, env_id: str) -> dict[str, Any]:
    """The environment's arguments that a run was trained with and is to be evaluated with.

    Pictures, texts, limits and all else but the data and the split, where it is the run's own
    environment, flat or hierarchical.
    """
    settings = settings_of(name)
    if settings is None:
        return {}
    own = {registry.bare(settings.env), registry.bare(settings.flat_env)}
    if registry.bare(env_id) not in own:
        return {}
    return {k: v for k, v in settings.env_kwargs.items() if k not in ("data", "split")}


def trained_hierarchy(name: str) -> dict[str, Any]:
    """What a run asks of any hierarchical environment: its sub-goal budget, its replans."""
    settings = settings_of(name)
    if settings is None:
        return {}
    return hierarchy_arguments(settings, method_of(settings).sub_done)


def load_agent(
    folder: str | Path, *, flat: bool = False, seed: int = 0, **settings: Any
) -> HiMACAgent:
    """An agent to play with, from a run or from a saved policy.

    Args:
        folder: A run's folder (its newest checkpoint is taken), one of its checkpoints or its
            folders `best` and `warm_start`, or a folder that `save_pretrained` wrote.
        flat: For a flat environment: no planner.
        seed: Seeds sampling.
        **settings: Settings of the run (see `TrainConfig`) in place of its own, such as `prompt`.

    Raises:
        FileNotFoundError: The folder holds neither.
        CheckpointError: The run has no whole checkpoint.
        RolloutError: A server that is to sample (`rollout`, `servers`) does not.
        ValueError: `template_options` for a model without a chat template.
    """
    from himac_agents.policies.loading import load_policies, load_policy, sampled
    from himac_agents.policies.tiny import is_tiny

    folder = Path(folder)
    # A model is loaded with these; the others are about who plays with it.
    loading = {name: settings[name] for name in ("template_options",) if name in settings}
    if (run := run_of(folder)) is not None:
        # How many processes it was trained in says nothing of how many play now.
        config = TrainConfig.from_toml(run / "config.toml").replace(shard=False, **loading)
        found = latest_checkpoint(folder / "checkpoints") if folder == run else folder
        hierarchical = method_of(config).hierarchical
        policies = load_policies(found, config, hierarchical)
    elif (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
        kind: Literal["tiny", "hf"] = "tiny" if is_tiny(folder) else "hf"
        config = TrainConfig(policy=kind, model=str(folder), **loading)
        policies = {"policy": load_policy(folder, kind, config)}
    else:
        raise FileNotFoundError(
            f"{folder} is neither a run (config.toml, checkpoints/) nor a saved policy "
            "(config.json): give the folder that `himac train` printed at its end"
        )
    if loading and config.policy == "tiny":
        raise ValueError("template_options: a tiny model has no chat template")
    # Who sampled for its training says nothing of who is to sample now.
    config = config.replace(**{"rollout": "local", "servers": (), **settings})
    rollouts, played = sampled(config, policies)
    if rollouts is not None:
        rollouts.refresh()
    # One policy plays both roles, so that it can be tried in the other kind of environment.
    method = method_of(config)
    sub_done = method.sub_done or method.hierarchical == flat
    made = make_prompts(config, sub_done=sub_done)
    return assemble(config, played, made, not flat, trained=run is not None)
