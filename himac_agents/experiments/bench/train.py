"""``himac bench train``: rollouts and updates beside TRL's GRPOTrainer, on the same model.

Both sides train a copy of one model of 0.2M parameters on one thread, in one process, step by step
in turns; time is CPU time, and the median of five steps is taken after one that warms up.

- *Single turn*: 16 prompts, 8 answers each of 48 tokens; TRL generates by itself.
- *Many turns*: 128 scripted environments of 20 turns. TRL calls a `rollout_func` that reads the
  whole transcript again each turn with `model.generate`; ours keeps keys and values from turn to
  turn.

Sequences, tokens, precision, threads, clipping and optimiser are the same, and there is no KL term.
A rollout's time holds all that its side does from prompts to finished sequences (tokenising and
decoding too); an update's time is the rest of the step.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from himac_agents.agents.agent import Executor, HiMACAgent
from himac_agents.algorithms.advantages import group_relative
from himac_agents.algorithms.credit import Credit
from himac_agents.algorithms.learner import Learner
from himac_agents.config import TrainConfig
from himac_agents.experiments.bench.scripted import GOAL, WORDS, ScriptedEnv, Shape, script, worth
from himac_agents.policies.base import Sampling
from himac_agents.policies.tiny import TinyPolicy, TinySize
from himac_agents.prompts import CompactPrompts
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import EpisodeRequest
from himac_envs.errors import MissingDependencyError
from himac_envs.machine import processor

__all__ = ["BARS", "SINGLE", "TURNS", "Ours", "run"]

SINGLE = Shape(prompts=16, generations=8, turns=1, first=32, written=48)
TURNS = Shape(prompts=16, generations=8, turns=20, first=32, observed=16, written=6)
SIZE = TinySize(hidden=64, layers=4, heads=4, feedforward=192)
#: What the project promises: least ratios of TRL's time to ours, and the widest gap between the
#: log-probabilities of the rollout and those of the update that follows it.
BARS = {"single turn, rollout": 1.0, "single turn, update": 1.0, "many turns, rollout": 3.0}
GAP = 1e-4
_SETTINGS = TrainConfig(
    method="grpo", minibatches=1, epochs=1, kl=0.0, lr=1e-4, clip=0.2, clip_high=0.2, threads=1
)


def run(quick: bool = False, *, single: Shape = SINGLE, turns: Shape = TURNS) -> dict[str, Any]:
    """Measure and print a table.

    Args:
        quick: One step a side instead of five.
        single: The shape of the work in a single turn.
        turns: The shape of the work in many.

    Returns:
        By work ("single turn", "many turns"): CPU seconds of "ours" and "trl" for "rollout" and
        "update", tokens a second, and `logprob_gap`; `ratios` to TRL, `bars` and `machine`.

    Raises:
        MissingDependencyError: TRL is not installed.
    """
    if importlib.util.find_spec("trl") is None:
        raise MissingDependencyError("trl", "himac bench train", "bench")
    steps = 1 if quick else 5
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        figures = {
            "single turn": compare(single, steps),
            "many turns": compare(turns, steps),
        }
    finally:
        torch.set_num_threads(threads)
    ratios = {
        f"{work}, {part}": found["trl"][part] / found["ours"][part]
        for work, found in figures.items()
        for part in ("rollout", "update")
    }
    whole = {**figures, "ratios": ratios, "bars": BARS, "steps": steps, "machine": _machine()}
    _print(whole)
    return whole


def compare(shape: Shape, steps: int) -> dict[str, Any]:
    """Lets both sides take `steps` steps in turns, after one each that is not counted."""
    ours = Ours(shape)
    mine: list[dict[str, float]] = []
    theirs = trl_steps(
        shape, copy.deepcopy(ours.policy), steps + 1, lambda: mine.append(ours.step())
    )
    sides = {
        name: {part: statistics.median(s[part] for s in rows[1:]) for part in ("rollout", "update")}
        for name, rows in (("ours", mine), ("trl", theirs))
    }
    for side in sides.values():
        side["tokens_per_second"] = shape.tokens / side["rollout"]
    return {
        **sides,
        "logprob_gap": max(row["logprob_gap"] for row in mine),
        "sequences": shape.sequences,
        "tokens": shape.tokens,
    }


def build(seed: int = 0) -> TinyPolicy:
    """The model that both sides train; its vocabulary is that of the scripts."""
    words = [" ".join(WORDS[i : i + 16]) for i in range(0, len(WORDS), 16)]
    policy = TinyPolicy.build([*words, GOAL], SIZE, seed=seed, phrases=0)
    # No answer ends by itself: all are as long as the shape says.
    policy.end_ids = ()
    return policy


class Ours:
    """Our side: `collect`, advantages, `Learner.reinforce`.

    Args:
        shape: How much is read and written.
        policy: The model; None builds one.
    """

    def __init__(self, shape: Shape, policy: TinyPolicy | None = None) -> None:
        self.shape, self.policy = shape, policy or build()
        self.learner = Learner(self.policy, _SETTINGS)
        self.learner.begin_reinforcement()
        self.pool = EnvPool(lambda: ScriptedEnv(shape), shape.sequences)
        self.agent = HiMACAgent(
            None, Executor(self.policy, CompactPrompts(), Sampling(1.0, shape.written))
        )
        self.tasks = [
            EpisodeRequest(task, group, number)
            for group, task in enumerate(self.pool.task_ids())
            for number in range(shape.generations)
        ]
        self.rng = np.random.default_rng(0)

    def step(self) -> dict[str, float]:
        """One rollout and one update; CPU seconds of each, and the log-probabilities' gap."""
        began = time.process_time()
        episodes = collect(self.agent, self.pool, self.tasks)
        rolled = time.process_time()
        credit = group_relative([e.reward for e in episodes], [e.request.group for e in episodes])
        given = Credit()
        for episode, advantage in zip(episodes, credit, strict=True):
            given.give(episode.segments[0], advantage)
        metrics = self.learner.reinforce(given.segments, self.rng)
        ended = time.process_time()
        written = sum(e.tokens for e in episodes)
        if written != self.shape.tokens:
            raise RuntimeError(f"{written} tokens were written instead of {self.shape.tokens}")
        return {
            "rollout": rolled - began,
            "update": ended - rolled,
            "logprob_gap": metrics["logprob_gap"],
        }


def trl_steps(
    shape: Shape, policy: TinyPolicy, steps: int, between: Callable[[], None]
) -> list[dict[str, float]]:
    """TRL's side: steps of its GRPOTrainer.

    Args:
        shape: How much is read and written.
        policy: Whose model is trained.
        steps: How many.
        between: Called after each step, outside its time.

    Returns:
        CPU seconds of each step's rollout and update.
    """
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from datasets import Dataset
    from datasets.utils import logging as datasets_logging
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    datasets_logging.disable_progress_bar()
    prompts = [
        CompactPrompts().play(script(shape, str(task), 0), GOAL)[0].text + "<say>"
        for task in range(shape.prompts)
    ]
    spent: list[dict[str, float]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = time.process_time()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            whole = time.process_time() - self.began
            spent.append({"rollout": rolled[-1], "update": whole - rolled[-1]})
            between()

    rolled: list[float] = []

    class Timed(GRPOTrainer):  # type: ignore[misc]
        def _generate(self, prompts: list[Any]) -> Any:
            began = time.process_time()
            found = super()._generate(prompts)
            rolled.append(time.process_time() - began)
            return found

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # transformers warns of names that TRL's own settings still use.
        warnings.simplefilter("ignore", FutureWarning)
        trainer = Timed(
            model=policy.model,
            processing_class=policy.tokenizer,
            reward_funcs=lambda completions, **_: [worth(text) for text in completions],
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            rollout_func=None if shape.turns == 1 else _transcripts(shape, policy),
            callbacks=[Clock()],
            args=GRPOConfig(
                output_dir=folder,
                per_device_train_batch_size=shape.sequences,
                num_generations=shape.generations,
                max_completion_length=shape.written,
                generation_kwargs={"min_new_tokens": shape.written},
                max_steps=steps,
                learning_rate=_SETTINGS.lr,
                lr_scheduler_type="constant",
                adam_beta2=0.95,
                beta=0.0,
                loss_type="grpo",
                max_grad_norm=_SETTINGS.max_grad_norm,
                temperature=1.0,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return spent


def _transcripts(shape: Shape, policy: TinyPolicy) -> Callable[[list[str], Any], dict[str, Any]]:
    """A `rollout_func` that gives the whole transcript to `model.generate` each turn."""
    tokenizer = policy.tokenizer
    task_of = {script(shape, str(task), 0): str(task) for task in range(shape.prompts)}

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        model = trainer.accelerator.unwrap_model(trainer.model)
        envs = [ScriptedEnv(shape) for _ in prompts]
        for env, prompt in zip(envs, prompts, strict=True):
            first = prompt.removeprefix("<play> ").split("\n")[0]
            env.reset(options={"task_id": task_of[first]})
        opening: list[list[int]] = tokenizer(prompts, add_special_tokens=False)["input_ids"]
        written: list[list[int]] = [[] for _ in prompts]
        mask: list[list[int]] = [[] for _ in prompts]
        model.eval()
        for turn in range(shape.turns):
            inputs = tokenizer.pad(
                {"input_ids": [a + b for a, b in zip(opening, written, strict=True)]},
                padding_side="left", return_tensors="pt",
            )  # fmt: skip
            with torch.inference_mode():
                found = model.generate(
                    **inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                    min_new_tokens=shape.written, max_new_tokens=shape.written,
                )  # fmt: skip
            answers = found[:, inputs["input_ids"].shape[1] :].tolist()
            texts = tokenizer.batch_decode(answers)
            heard = [
                f"{env.step(text)[0]['text']}<say>" for env, text in zip(envs, texts, strict=True)
            ]
            read = tokenizer(heard, add_special_tokens=False)["input_ids"]
            for row, answer in enumerate(answers):
                written[row] += answer
                mask[row] += [1] * len(answer)
                if turn + 1 < shape.turns:
                    written[row] += read[row]
                    mask[row] += [0] * len(read[row])
        model.train()
        return {
            "prompt_ids": opening, "completion_ids": written, "logprobs": None, "env_mask": mask,
        }  # fmt: skip

    return rollout


def _machine() -> str:
    import transformers
    import trl

    return (
        f"{processor()}, 1 thread, Python {sys.version.split()[0]}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, TRL {trl.__version__}"
    )


def _print(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Training a model of 0.2M parameters: CPU time, median, interleaved")
    for heading in ("", "ours", "TRL", "TRL's time / ours", "promised"):
        table.add_column(heading, justify="left" if not heading else "right")
    for work in ("single turn", "many turns"):
        found = figures[work]
        rate = [f"{found[side]['tokens_per_second']:,.0f} tokens/s" for side in ("ours", "trl")]
        for part, shown in (("rollout", rate), ("update", None)):
            name = f"{work}, {part}"
            shown = shown or [f"{found[side][part]:.3f} s" for side in ("ours", "trl")]
            bar = figures["bars"].get(name)
            told = "" if bar is None else f"at least {bar:g}x"
            table.add_row(name, *shown, f"{figures['ratios'][name]:.2f}x", told)
        gap = f"{found['logprob_gap']:.1e}"
        table.add_row(f"{work}, log-probability gap", gap, "", "", f"at most {GAP:g}")
    console = Console()
    console.print(table)
    console.print(figures["machine"])
