"""What is imported by vLLM alone, in its own processes: it knows nothing of the project's rest.

vLLM finds `register` by the entry point `vllm.general_plugins` of the package; the logits processor
is named on the command line (`--logits-processors`), since it costs every request a look.
"""

from __future__ import annotations

#: What `--weight-transfer-config` calls the backend that needs no GPU.
FILE_BACKEND = "himac_file"

#: What `--logits-processors` is given.
PROCESSOR = "himac_agents.policies.served.plugin.answers:AllowedAnswers"


def register() -> None:
    """Makes the file backend known to vLLM; called in each of its processes, often more than once.

    A vLLM that has no such registry is left as it is: it serves models all the same.
    """
    try:
        from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
    except ImportError:
        return
    if FILE_BACKEND not in WeightTransferEngineFactory._registry:
        module = "himac_agents.policies.served.plugin.weight_file"
        WeightTransferEngineFactory.register_engine(FILE_BACKEND, module, "WeightFileEngine")
