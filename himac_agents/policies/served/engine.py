"""vLLM in this process, as a receiver of weights that also answers: see `rollouts`.

It takes the same calls as a server's control routes, so that a sync is the same for both. On a GPU
it keeps its share of the memory (`_SHARE`) while the model learns; that was not run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from himac_agents.config import TrainConfig
from himac_agents.policies.chat import ChatPolicy
from himac_agents.policies.served.plugin import FILE_BACKEND, PROCESSOR, register
from himac_agents.policies.served.server import Held, RolloutError, Server

#: What vLLM is told by the environment: no process of its own, since weights are handed over here,
#: and the model runner that the logits processor is written for.
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
_ON_CPU = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}
#: The share of a GPU's memory that it takes, beside the model that learns.
_SHARE = 0.45


class Engine:
    """vLLM in this process.

    Args:
        folder: The model.
        dtype: What it computes in.
        adapters: How many adapters it holds, and their greatest rank; None: none.
        seats: Answers that it writes at a time.

    Attributes:
        url: What errors call it.
        busy: Always 0: it answers what it is asked before it returns.

    Raises:
        RolloutError: vLLM is not installed here, or does not start.
    """

    _open: ClassVar[WeakValueDictionary[tuple[Any, ...], Engine]] = WeakValueDictionary()

    def __init__(
        self, folder: str, dtype: str, adapters: tuple[int, int] | None = None, seats: int = 128
    ) -> None:
        import torch

        on_cpu = not torch.cuda.is_available()
        for name, value in {**_ENVIRONMENT, **(_ON_CPU if on_cpu else {})}.items():
            os.environ.setdefault(name, value)
        try:
            from vllm import LLM
        except ImportError as error:
            raise RolloutError(
                'rollout="vllm" needs vLLM in this environment: install it beside this package '
                '(pip install vllm), or sample from a server (rollout = "server")'
            ) from error
        self.url, self.busy = "vLLM in this process", 0
        self._dtype, self._limits, self._folder = dtype, adapters, folder
        self._loaded: dict[str, Any] = {}
        self._numbers = 0
        register()
        further: dict[str, Any] = {}
        if adapters is not None:
            count, rank = adapters
            further = {"enable_lora": True, "max_loras": count, "max_lora_rank": rank}
        if on_cpu:
            further |= {"enforce_eager": True, "distributed_executor_backend": "uni"}
            further["enable_chunked_prefill"] = False  # see `Serving.command`
        else:
            further["gpu_memory_utilization"] = _SHARE
        self._backend = FILE_BACKEND if on_cpu else "ipc"
        try:
            self._llm = LLM(
                folder,
                dtype=dtype,
                max_num_seqs=seats,
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                logits_processors=[PROCESSOR],
                weight_transfer_config={"backend": self._backend},
                **further,
            )
        except (RuntimeError, ValueError) as error:
            raise RolloutError(f"vLLM does not start with {folder}: {error}") from error
        self._routes: dict[str, Callable[[Any], Any]] = {
            "/pause": self._nothing,
            "/resume": self._nothing,
            "/init_weight_transfer_engine": self._llm.init_weight_transfer_engine,
            "/start_weight_update": lambda _: self._llm.start_weight_update(),
            "/update_weights": self._llm.update_weights,
            "/finish_weight_update": self._finish,
            "/weight_info": lambda _: {"weight_version": self._llm.get_weight_version()},
            "/get_world_size": lambda _: {"world_size": 1},
            "/v1/models": self._models,
            "/v1/load_lora_adapter": self._load,
            "/v1/unload_lora_adapter": self._unload,
        }

    @classmethod
    def of(cls, config: TrainConfig, policies: Mapping[str, Any]) -> Engine:
        """The engine for a run's policies; runs of one process (baselines) share it."""
        policy = next(iter(policies.values()))
        if not isinstance(policy, ChatPolicy):
            raise ValueError("rollout: only policy='hf' can be sampled by vLLM; leave it 'local'")
        dtype = str(policy.loading.precision(policy.device)).removeprefix("torch.")
        adapters = (len(policies), config.lora_rank) if config.lora_rank else None
        folder = policy.host.source if policy.host is not None else policy.model.name_or_path
        key = (str(folder), dtype, adapters, config.lanes)
        engine = cls._open.get(key)
        if engine is None:
            engine = cls._open[key] = cls(*key)
        return engine

    def call(
        self,
        method: str,
        path: str,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """What a server's route of that name does; see `Server.call`.

        Raises:
            RolloutError: It fails.
        """
        try:
            return self._routes[path](json) or {}
        except RolloutError:
            raise
        except Exception as error:  # vLLM raises what its backends do
            raise RolloutError(f"{self.url}, {path}: {error!r}") from error

    def held(self) -> Held:
        """See `Server.held`."""
        model = self._llm.llm_engine.model_config
        return Held(
            name=self._folder,
            folder=self._folder,
            dtype=self._dtype,
            context=int(model.max_model_len),
            backend=self._backend,
            adapters=self._limits,
            constrains=True,
            logprobs="processed_logprobs",
        )

    def complete(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The answers to requests as a server takes them."""
        from vllm import SamplingParams

        prompts = [{"prompt_token_ids": list(body["prompt"])} for body in bodies]
        how = [
            SamplingParams(
                temperature=body["temperature"],
                max_tokens=body["max_tokens"],
                seed=body["seed"],
                logprobs=0,
                stop_token_ids=list(body["stop_token_ids"]),
                ignore_eos=True,
                detokenize=False,
                extra_args=dict(body.get("vllm_xargs", {})),
            )
            for body in bodies
        ]
        worn = [self._loaded.get(body["model"]) for body in bodies]
        done = self._llm.generate(
            prompts, how, use_tqdm=False, lora_request=worn if any(worn) else None
        )
        found = []
        for one in done:
            said = one.outputs[0]
            steps = zip(said.logprobs, said.token_ids, strict=True)
            told = [float(step[token].logprob) for step, token in steps]
            found.append({"token_ids": list(said.token_ids), "logprobs": {"token_logprobs": told}})
        return found

    # -- routes ----------------------------------------------------------------------------------

    def _nothing(self, _: Any) -> None:
        """Between two calls nothing is under way."""

    def _finish(self, told: Mapping[str, Any]) -> None:
        self._llm.finish_weight_update(told["weight_version"])
        self._llm.reset_prefix_cache()

    def _models(self, _: Any) -> dict[str, Any]:
        return {"data": [{"id": self._folder}, *({"id": name} for name in self._loaded)]}

    def _load(self, told: Mapping[str, Any]) -> None:
        from vllm.lora.request import LoRARequest

        self._numbers += 1
        name, path = str(told["lora_name"]), str(told["lora_path"])
        if not Path(path).is_dir():
            raise RolloutError(f"no adapter in {path}")
        self._loaded[name] = LoRARequest(name, self._numbers, path)

    def _unload(self, told: Mapping[str, Any]) -> None:
        self._llm.llm_engine.remove_lora(self._loaded.pop(told["lora_name"]).lora_int_id)


#: Whoever takes weights and answers with them.
Receiver = Server | Engine
