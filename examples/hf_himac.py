"""HiMAC with a model of Hugging Face: one iteration of co-evolution, and what it did.

python examples/hf_himac.py [NAME_OR_FOLDER]

Without a model it makes one of Qwen2's architecture with random weights, which can only show that
everything fits together. With a real one, `himac train hf --model NAME` is the same as a command.
"""

import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from himac_agents.config import TrainConfig
from himac_agents.training.trainer import Trainer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_model(folder: Path) -> str:
    """A folder as a downloaded model would be: weights, configuration, tokenizer, template."""
    core = ByteLevelBPETokenizer()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    core.train_from_iterator(["go to cabinet 1"], vocab_size=300, special_tokens=special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(core.to_str()),
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
    )
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


work = Path(tempfile.mkdtemp(prefix="himac-"))
few = dict(iterations=1, tasks=2, blueprints=2, executions=2, eval_episodes=2, lanes=8)
if len(sys.argv) > 1:
    config = TrainConfig.preset("hf", model=sys.argv[1], **few)
else:
    short = dict(max_blueprint_tokens=8, max_command_tokens=8, threads=1)
    short["env_kwargs"] = {"data": "generated", "max_steps": 3}
    config = TrainConfig.preset("hf", model=make_model(work / "model"), **few, **short)
result = Trainer(config, work / "run").run()
print(f"HiMAC: {result['warm_start']['success']:.2f} -> {result['final']['success']:.2f}")
print(f"{result['work']['env_steps']} environment steps, {result['work']['tokens']} tokens written")
