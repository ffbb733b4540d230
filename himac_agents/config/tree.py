"""Every setting of a training run in one frozen value, and the presets that fill it in.

A preset is a TOML file in `registry/presets`; its keys are the fields of the sections below.
`himac train` shows the same fields as command-line options.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from himac_agents.config import environments, values
from himac_agents.config.learning import CreditSettings, LearningSettings
from himac_agents.config.sections import (
    EvaluationSettings,
    HousekeepingSettings,
    ModelSettings,
    PolicySettings,
    PromptSettings,
    RolloutSettings,
    TaskSettings,
    WarmStartSettings,
)
from himac_agents.config.setting import changing, check_keys, placed, settings_of, settle
from himac_envs import data, registry


# Fields are in the order of the sections: a dataclass begins with its last base's.
@dataclass(frozen=True)
class TrainConfig(
    HousekeepingSettings,
    EvaluationSettings,
    CreditSettings,
    LearningSettings,
    WarmStartSettings,
    RolloutSettings,
    ModelSettings,
    PromptSettings,
    PolicySettings,
    TaskSettings,
):
    """The settings of a run. Work is counted in steps and tokens, never in seconds.

    The fields, with their help, are those of `himac_agents.config.sections`. A value that a field
    cannot have, or that TOML cannot hold, is refused when it is given.
    """

    def __post_init__(self) -> None:
        settle(self)
        if self.separate_adapters:
            object.__setattr__(self, "share_parameters", False)
        env, flat_env = environments.paired(self.env, self.flat_env)
        object.__setattr__(self, "env", env)
        object.__setattr__(self, "flat_env", flat_env)
        _check_together(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "the configuration") -> TrainConfig:
        """Settings from plain values.

        Raises:
            ValueError: A key is unknown (the message names near ones) or a value is wrong.
        """
        check_keys(values, settings_of(cls), where, "setting")
        with placed(where):
            return cls(**values)

    @classmethod
    def from_toml(cls, path: str | Path) -> TrainConfig:
        """Settings from a TOML file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not TOML, or a setting is wrong.
        """
        return cls.from_dict(values.read_file(Path(path)), str(path))

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> TrainConfig:
        """Settings of a preset in `registry/presets`, with some replaced."""
        found = registry.read("presets", name)
        where = f"preset {name!r}"
        return cls.from_dict(_replaced(found, overrides), where)

    @classmethod
    def named(cls, name: str) -> TrainConfig:
        """Settings of a preset, or of a TOML file where the name ends in .toml."""
        return cls.from_toml(name) if name.endswith(".toml") else cls.preset(name)

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with some settings changed.

        Where one environment is changed, its counterpart follows, unless it is changed too.
        """
        return dataclasses.replace(self, **_replaced({}, changes))

    def to_toml(self) -> str:
        """The settings as TOML, a section after the other; `from_toml` reads them back."""
        parts = []
        for one in SECTIONS:
            lines = [f"# {str(one.__doc__).rstrip('.')}\n"]
            lines += [
                values.write_line(item.name, value)
                for item in dataclasses.fields(one)
                # What is left to others to choose has no value yet.
                if (value := getattr(self, item.name)) is not None
            ]
            parts.append("".join(lines))
        return "\n".join(parts)

    def env_id(self, *, flat: bool) -> str:
        """The environment that is played: with a hierarchy above its tasks, or the flat one.

        Raises:
            ValueError: It is not named, and does not follow from the other.
        """
        return environments.resolved(self.env, self.flat_env, flat=flat)

    def env_arguments(self) -> dict[str, Any]:
        """`env_kwargs` with names of data sets replaced by their folders: `himac_envs.data.fill`.

        Raises:
            FileNotFoundError: Data is needed that is neither installed nor where the variable says.
        """
        return data.fill(self.env_kwargs)


#: The sections, in the order of files and help.
SECTIONS: tuple[type, ...] = TrainConfig.__bases__[::-1]

#: Settings that leave a warm start and its evaluation as they are. All others shape it: where they
#: differ, it cannot be shared.
LEARNING_FIELDS = changing(TrainConfig, "learning", "extent", "speed", "record")

#: Settings in which repetitions of one experiment may differ: the seed, how far a run goes, on
#: what machine, and what is kept of it.
INCIDENTAL = changing(TrainConfig, "extent", "sample", "speed", "record")

#: Settings that a run keeps from its beginning.
KEPT = changing(TrainConfig, "start", "learning", "sample")

#: Settings of how far a run goes.
EXTENT = changing(TrainConfig, "extent")


def _replaced(found: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    pair = {"env", "flat_env"}
    # What belonged to the former environment is forgotten.
    forgotten = dict.fromkeys(pair - set(changes), "") if pair & set(changes) else {}
    return {**found, **forgotten, **changes}


def _check_together(config: TrainConfig) -> None:
    """Refuses settings that mean nothing beside each other.

    Raises:
        ValueError: The message names them and what they may be.
    """
    if config.policy == "tiny" and config.hidden % (2 * config.heads):
        raise ValueError(
            f"hidden={config.hidden}, heads={config.heads}: each head needs an even width"
        )
    if not config.lora_targets:
        raise ValueError("lora_targets is empty: name the modules that get an adapter")
    if config.lora_rank and config.policy != "hf":
        raise ValueError("lora_rank > 0 needs policy='hf': the tiny model learns as a whole")
    if config.rollout != "local" and config.policy != "hf":
        raise ValueError(
            f"rollout={config.rollout!r} needs policy='hf': vLLM serves only such models"
        )
    if (config.rollout == "server") != bool(config.servers):
        raise ValueError(
            "rollout='server' and servers=<addresses> belong together: `himac serve MODEL` prints "
            "both"
        )
    if config.shard and config.policy == "tiny":
        raise ValueError(
            "shard needs policy='hf': a tiny model fits into every process and needs no sharding"
        )
    if config.separate_adapters and not config.lora_rank:
        raise ValueError("separate_adapters needs lora_rank > 0")
