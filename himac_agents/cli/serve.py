"""``himac serve MODEL``: a vLLM server that samples for a model that learns elsewhere."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro


def run(
    model: Annotated[str, tyro.conf.Positional],
    host: str = "127.0.0.1",
    port: int = 8000,
    dtype: Literal["float32", "bfloat16"] | None = None,
    max_model_len: int | None = None,
    max_num_seqs: int = 128,
    lora_rank: int = 0,
    loras: int = 2,
    transfer: Literal["file", "nccl", "ipc"] | None = None,
    python: str = "",
    options: str = "",
) -> int:
    """Serve a model with vLLM until Ctrl-C, ready to be sent weights; prints the options to pass.

    Only this machine can reach it, unless --host says otherwise: whoever can reach it can replace
    its weights, and make it read any file of weights that it can read. vLLM is installed apart
    (pip install vllm, with this package beside it).

    Args:
        model: A model's folder, or its name: one of `himac model where`, or a hub's.
        host: The address to listen on.
        port: The port to listen on.
        dtype: What it computes in; without one: bfloat16 on a GPU, else float32. The model that
            learns is to compute in the same.
        max_model_len: The longest conversation in tokens (default: the model's own).
        max_num_seqs: Answers that it writes at a time.
        lora_rank: The greatest rank of adapters that it takes; 0: whole models are sent to it.
        loras: How many adapters at a time (planner and executor have one each).
        transfer: How it is sent weights: a file, or from GPU to GPU; without one: nccl on a GPU,
            else file.
        python: The interpreter of the environment that vLLM is installed in (default: this one).
        options: Further options of vLLM's own server in one text: --options="--seed 1".
    """
    from himac_agents.policies.served.launch import Serving, serve

    how = Serving(
        model=model,
        host=host,
        port=port,
        dtype=dtype,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        lora_rank=lora_rank,
        loras=loras,
        transfer=transfer,
        python=python,
        options=options,
    )
    return serve(how, say=lambda line: print(line, flush=True))
