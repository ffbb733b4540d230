"""Who samples for a run: servers or an engine, and that they do it with the weights that learn.

Every sync ends with a check of log-probabilities (`check`): a sync that changes less than it should
is no error anywhere else, and learning from the answers of other weights would go wrong unseen.
"""

from __future__ import annotations

import math
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from himac_agents import distributed
from himac_agents.config import TrainConfig
from himac_agents.files import scratch_of
from himac_agents.policies.chat import ChatPolicy
from himac_agents.policies.served import check
from himac_agents.policies.served.engine import Engine, Receiver
from himac_agents.policies.served.parts import Parts
from himac_agents.policies.served.policy import EnginePolicy, ServedPolicy, ServerPolicy
from himac_agents.policies.served.server import Held, RolloutError, Server
from himac_agents.policies.served.weights import DeviceTransfer, FileTransfer
from himac_agents.policies.vision import VisionPolicy
from himac_envs.errors import HiMACError

#: The greatest mean gap, where the settings name none: in single precision, and in others.
_EXACT, _ROUNDED = 1e-3, 0.15
#: What is told of syncs: how many, what they took with their checks, and the greatest gaps of a
#: check's mean and of one token, in nats.
_NONE_YET = {"syncs": 0.0, "sync_seconds": 0.0, "sync_gap": 0.0, "sync_gap_max": 0.0}


@dataclass
class ServedRollouts:
    """The receivers of a run's weights, who also answer.

    Attributes:
        receivers: Servers, or one engine.
        bound: The greatest mean gap; 0: by the precision.
        transfer: How weights are sent: "auto", "file", "nccl" or "ipc".
        folder: Where those that go through files are written.
    """

    receivers: Sequence[Receiver]
    bound: float = 0.0
    transfer: str = "auto"
    folder: str = ""
    policies: dict[str, ServedPolicy] = field(default_factory=dict)
    context: int = 0
    synced: dict[str, float] = field(default_factory=lambda: dict(_NONE_YET))
    _held: list[Held] = field(default_factory=list)
    _versions: dict[str, str] = field(default_factory=dict)
    _turn: int = 0

    def __post_init__(self) -> None:
        self._run, self._count = uuid.uuid4().hex[:8], 0
        self._sender: FileTransfer | DeviceTransfer | None = None
        self._adapters = scratch_of(self, "himac-adapters-")
        self._parts = Parts({})

    # -- who is asked ----------------------------------------------------------------------------

    def serve(self, policies: Mapping[str, ChatPolicy]) -> dict[str, ServedPolicy]:
        """The policies as they are sampled here; their models stay those that learn.

        Raises:
            RolloutError: A receiver cannot be reached, or holds another model or precision.
            ValueError: The policies cannot be sampled from one place.
        """
        _check(policies)
        kind = ServerPolicy if isinstance(self.receivers[0], Server) else EnginePolicy
        for name, learner in policies.items():
            self.policies[name] = kind(learner, name, self)
        self._parts = Parts(policies)
        self._agree(self._meet)
        for name, learner in policies.items():
            self._changed(name)
            learner.followers.append(partial(self._moved, name))
        return dict(self.policies)

    def name_of(self, policy: str) -> str:
        """See `policy.Rollouts`."""
        return self._versions[policy] if self._by_adapter else self._held[0].name

    async def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """An answer of the least busy server; of equally busy ones, they take turns."""
        self._turn += 1
        count = len(self.receivers)
        order = [(self._turn + i) % count for i in range(count)]
        chosen = min(order, key=lambda i: int(self.receivers[i].busy))
        # What they call the same model is each server's own choice.
        told = body if self._by_adapter else {**body, "model": self._held[chosen].name}
        server = self.receivers[chosen]
        assert isinstance(server, Server)
        return await server.ask(told)

    def answer(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The engine's answers."""
        return self.receivers[0].complete(bodies)

    @property
    def _by_adapter(self) -> bool:
        return any(policy.learner.host is not None for policy in self.policies.values())

    # -- weights ---------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Sends the weights to every receiver that does not hold them; all processes call it.

        Raises:
            RolloutError: A receiver fails, or samples with others afterwards.
        """
        self._agree(self._bring)

    def take(self) -> dict[str, float]:
        """What syncs cost since this was last called; the same in all processes."""
        found = distributed.team().agree(self.synced)
        self.synced = dict(_NONE_YET)
        return found

    def _agree(self, work: Any) -> None:
        """Lets the leading process work, and the others wait and fail as it does.

        Meanwhile they bring it their parts of models that are sharded over the processes.
        """
        team, error = distributed.team(), None
        if team.leads:
            try:
                work()
            except RolloutError as found:
                error = found
            finally:
                self._parts.done()
        else:
            self._parts.bring()
        shared = (None if error is None else str(error), self._held, self._versions)
        told, self._held, self._versions = team.agree(shared)
        self.context = min((held.context for held in self._held), default=0)
        if told is not None:
            raise RolloutError(told) from error

    def _moved(self, name: str) -> None:
        self._changed(name)
        self.refresh()

    def _changed(self, name: str) -> None:
        """Gives a policy's weights a new name: none that was ever sent has it."""
        self._count += 1
        self._versions[name] = f"himac-{self._run}-{name}-{self._count}"

    def _meet(self) -> None:
        """Asks every receiver what it holds, and refuses what cannot be sampled from."""
        self._held = [receiver.held() for receiver in self.receivers]
        for receiver, held in zip(self.receivers, self._held, strict=True):
            self._insist(receiver.url, held)

    def _insist(self, url: str, held: Held) -> None:
        if not held.constrains or held.logprobs != "processed_logprobs":
            raise RolloutError(
                f"{url} was started without this project's logits processor, or gives "
                "log-probabilities of another kind: start it with `himac serve MODEL`"
            )
        policy = next(iter(self.policies.values()))
        learner = policy.learner
        computes = str(learner.loading.precision(learner.device)).removeprefix("torch.")
        if computes != held.dtype and not self.bound:
            raise RolloutError(
                f"{url} computes in {held.dtype}, the trained model in {computes}: start the "
                f"server with --dtype {computes}, or train with --dtype {held.dtype}. To allow the "
                "difference, set sync_bound"
            )
        other = _other_model(learner, held.folder)
        if other:
            raise RolloutError(f"{url} holds another model ({held.folder}): {other}")
        if self._by_adapter:
            rank = max(_rank(p.learner) for p in self.policies.values())
            if held.adapters is None or held.adapters[0] < len(self.policies):
                raise RolloutError(
                    f"{url} does not take {len(self.policies)} adapters at a time: start it with "
                    f"--lora-rank {rank} --loras {len(self.policies)}"
                )
            if held.adapters[1] < rank:
                raise RolloutError(
                    f"{url} takes adapters of rank {held.adapters[1]} at most, lora_rank is {rank}:"
                    f" start it with --lora-rank {rank}"
                )
        elif held.backend is None:
            raise RolloutError(f"{url} cannot be sent weights: start it with `himac serve MODEL`")

    def _bring(self) -> None:
        begun = time.perf_counter()
        done = self._bring_adapters() if self._by_adapter else self._bring_model()
        if not done:
            return
        try:
            for receiver in done:
                self._compare(receiver)
        except RolloutError:
            # What a receiver calls by that version it does not hold: it is to be sent again.
            for name in self.policies:
                self._changed(name)
            raise
        self.synced["syncs"] += 1
        self.synced["sync_seconds"] += time.perf_counter() - begun

    def _bring_model(self) -> list[Receiver]:
        """Sends the model to those that do not hold it; returns them."""
        (name,) = self.policies
        version = self._versions[name]
        late = [
            receiver
            for receiver in self.receivers
            if receiver.call("GET", "/weight_info").get("weight_version") != version
        ]
        if not late:
            return []
        sender = self._send_with()
        # A group of GPUs hears all that is sent in it.
        late = late if isinstance(sender, FileTransfer) else list(self.receivers)
        for receiver in late:
            # What nobody waits for any more is dropped, and with it what was read with old weights.
            receiver.call("POST", "/pause", params={"mode": "abort"})
        try:
            with self._parts.weights(name, self._held[0].dtype) as weights:
                sender.send(weights, late, version)
        except RolloutError as error:
            raise RolloutError(
                f"a sync failed: {error}. The server may hold parts of two models now: restart it "
                "before you resume the run"
            ) from error
        finally:
            for receiver in late:
                with suppress(HiMACError):
                    receiver.call("POST", "/resume")
        return late

    def _send_with(self) -> FileTransfer | DeviceTransfer:
        if self._sender is None:
            backends = {str(held.backend) for held in self._held}
            wanted = "himac_file" if self.transfer == "file" else self.transfer
            if len(backends) > 1 or (wanted != "auto" and wanted not in backends):
                raise RolloutError(
                    f"transfer={self.transfer!r}, but the servers take weights by "
                    f"{', '.join(sorted(backends))}: start all of them with the same --transfer"
                )
            (backend,) = backends
            device = backend != "himac_file"
            self._sender = DeviceTransfer(backend) if device else FileTransfer(self.folder)
        return self._sender

    def _bring_adapters(self) -> list[Receiver]:
        """Loads adapters under names that say their version; returns who had not all of them."""
        late = []
        for receiver in self.receivers:
            models = receiver.call("GET", "/v1/models")["data"]
            known = {str(one["id"]) for one in models}
            missing = [n for n in self.policies if self._versions[n] not in known]
            if not missing:
                continue
            late.append(receiver)
            # Room first: a server holds only so many at a time.
            wanted = set(self._versions.values())
            for stale in known - wanted:
                if stale.startswith("himac-"):
                    receiver.call("POST", "/v1/unload_lora_adapter", {"lora_name": stale})
            for name in missing:
                version = self._versions[name]
                body = {"lora_name": version, "lora_path": str(self._saved(name, version))}
                receiver.call("POST", "/v1/load_lora_adapter", body)
        return late

    def _saved(self, name: str, version: str) -> Path:
        """The folder with an adapter's version; those before it are removed."""
        place = Path(self.folder) if self.folder else self._adapters
        folder = place / version
        if not folder.is_dir():
            for old in place.glob(f"himac-{self._run}-{name}-*"):
                shutil.rmtree(old, ignore_errors=True)
            try:
                place.mkdir(parents=True, exist_ok=True)
                self._parts.save(name, folder)
            except (OSError, SafetensorError) as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise RolloutError(
                    f"an adapter cannot be written into {place}: {error} (sync_folder names "
                    "another)"
                ) from error
        return folder

    def _compare(self, receiver: Receiver) -> None:
        """The check with which every sync ends.

        Raises:
            RolloutError: The log-probabilities are further apart than the bound.
        """
        held = self._held[list(self.receivers).index(receiver)]
        bound = self.bound or (_EXACT if held.dtype == "float32" else _ROUNDED)
        for policy in self.policies.values():
            asked = check.questions(policy)
            bodies = [policy.request(prompt, check.SAMPLING) for prompt in asked]
            if not self._by_adapter:
                bodies = [{**body, "model": held.name} for body in bodies]
            logprobs = partial(self._parts.logprobs, policy.name)
            mean, largest = check.gap(policy, asked, receiver.complete(bodies), logprobs)
            for name, gap in (("sync_gap", mean), ("sync_gap_max", largest)):
                self.synced[name] = max(self.synced[name], gap)
            if not (math.isfinite(mean) and mean <= bound):
                raise RolloutError(
                    f"after a sync, the log-probabilities of {receiver.url} and of the trained "
                    f"model ({policy.name}) are {mean:.2g} nats per token apart (largest "
                    f"{largest:.2g}), and {bound:g} are allowed: the server does not sample with "
                    "the weights that were sent. Restart it with the same model; if rounding "
                    "explains the difference, raise sync_bound"
                )


def _check(policies: Mapping[str, Any]) -> None:
    """Refuses, by a ValueError, policies that cannot be served."""
    for policy in policies.values():
        if not isinstance(policy, ChatPolicy):
            raise ValueError("rollout: only policy='hf' can be sampled by vLLM; leave it 'local'")
        if isinstance(policy, VisionPolicy):
            raise ValueError(
                "rollout: vision-language models are sampled locally: pictures are not sent to vLLM"
            )
    whole = [name for name, policy in policies.items() if policy.host is None]
    if len(policies) > 1 and whole:
        raise ValueError(
            "rollout: a server holds one whole model. Share it (share_parameters = true), or give "
            "the roles adapters on one base (separate_adapters, lora_rank)"
        )


def _rank(learner: ChatPolicy) -> int:
    host = learner.host
    assert host is not None
    return int(host.model.peft_config[learner.adapter].r)


def _other_model(learner: ChatPolicy, folder: str) -> str:
    """In what a served model differs from the one that learns, as far as its folder tells; ""."""
    if not (Path(folder) / "config.json").is_file():
        return ""
    from transformers import AutoConfig

    theirs, ours = AutoConfig.from_pretrained(folder), learner.model.config
    for name in (
        "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "intermediate_size", "tie_word_embeddings",
    ):  # fmt: skip
        one, other = getattr(theirs, name, None), getattr(ours, name, None)
        if one != other:
            return f"its {name} is {one}, that of the model that learns {other}"
    return ""


def make_rollouts(config: TrainConfig, policies: Mapping[str, Any]) -> ServedRollouts:
    """Who samples for a run whose settings say that others do; `ServedRollouts.serve` begins.

    Raises:
        RolloutError: vLLM is to run in this process and does not.
        ValueError: An address is none, vLLM does not serve such a policy, or several processes
            were to have one in each.
        MissingDependencyError: What asks servers is not installed.
    """
    receivers: list[Receiver]
    if config.rollout == "server":
        limits = {
            "control_timeout": config.sync_timeout,
            "answer_timeout": config.answer_timeout,
        }
        receivers = [Server(url, **limits) for url in config.servers]
    elif distributed.team().size > 1:
        raise ValueError(
            "rollout='vllm' works in one process only, and this run has several: `himac serve "
            "MODEL` starts a server that they share (rollout='server')"
        )
    else:
        receivers = [Engine.of(config, policies)]
    return ServedRollouts(receivers, config.sync_bound, config.transfer, config.sync_folder)
