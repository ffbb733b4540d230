"""Models that are sharded over processes learn what whole ones learn, and are saved as they are."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import fruit_runs
import pytest
import torch
from forking import fork
from safetensors.torch import load_file
from tinymodels import save_text_model, save_vision_model

from himac_agents import distributed
from himac_agents.algorithms.learner import Learner
from himac_agents.algorithms.methods import method_of
from himac_agents.cli import train
from himac_agents.files import CheckpointError
from himac_agents.policies.loading import load_policies, load_policy
from himac_agents.policies.memory import need, shape_of
from himac_agents.policies.served.rollouts import make_rollouts
from himac_agents.training import checkpoint, parts
from himac_agents.training.trainer import Trainer

pytest.importorskip("peft")
import sharded_runs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_model(tmp_path_factory.mktemp("model") / "tiny", layers=2)


@pytest.fixture(scope="module")
def learned(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process learned, and two."""
    folder = tmp_path_factory.mktemp("learned")
    sharded_runs.main(str(model), folder)
    fork(2, folder, sharded_runs.main, str(model), folder)
    return folder


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*model.safetensors")
    return load_file(file)


@pytest.mark.parametrize("case", sharded_runs.CASES)
def test_two_processes_learn_what_one_learns(case: str, learned: Path) -> None:
    most, mean = sharded_runs.CASES[case][1:]
    one = load_file(learned / f"{case}-rank0-of-1.safetensors")
    both = [load_file(learned / f"{case}-rank{rank}-of-2.safetensors") for rank in (0, 1)]
    assert one["metric.updates"] >= 2 and one["metric.grad_norm"] > 0.05, "and it was clipped"
    assert bool(sharded_runs.CASES[case][0]["kl"]) == bool(one["metric.kl"] > 0)
    for key, value in one.items():
        if key.startswith("bytes."):
            continue
        assert torch.equal(both[0][key], both[1][key]), f"{key} differs between the processes"
        if most < 1e-4:
            assert torch.allclose(value.double(), both[0][key].double(), rtol=1e-3, atol=1e-5), key
    alone, sharded = (
        _weights(learned / f"{case}-{n}" / "checkpoints" / "step-00000001" / "policy")
        for n in (1, 2)
    )
    assert alone.keys() == sharded.keys()
    apart = torch.cat([(alone[k] - sharded[k]).abs().flatten() for k in alone])
    assert apart.max() < most and apart.mean() < mean


@pytest.mark.parametrize("case", sharded_runs.CHUNKED)
def test_a_sharded_model_makes_few_logits_at_a_time(case: str, learned: Path) -> None:
    """Within its one pass, also where the other process makes more of them, or fewer."""
    for rank in (0, 1):
        found = load_file(learned / f"chunks-{case}-rank{rank}-of-2.safetensors")
        assert found["whole.asked"] > 6 and found["chunked.asked"] == 3
        for what in ("logp", "entropy", "gradient", "again"):
            apart = (found[f"whole.{what}"] - found[f"chunked.{what}"]).abs().max()
            largest = found[f"whole.{what}"].abs().max()
            assert largest > 1e-3 and apart < 1e-6 * max(1.0, float(largest)), what


def test_what_is_saved_is_a_model_of_transformers(model: Path, learned: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    saved = learned / "whole-2" / "checkpoints" / "step-00000001"
    names = {path.name for path in (saved / "policy").iterdir()}
    alone = learned / "whole-1" / "checkpoints" / "step-00000001" / "policy"
    assert names == {path.name for path in alone.iterdir()}
    read = AutoModelForCausalLM.from_pretrained(saved / "policy", dtype=torch.float32)
    weights = _weights(saved / "policy")
    for name, parameter in read.named_parameters():
        assert torch.equal(parameter, weights[name]), name
    assert read.lm_head.weight is read.model.embed_tokens.weight
    tokenizer = AutoTokenizer.from_pretrained(saved / "policy")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(model).chat_template
    # An adapter, by peft on its base.
    folder = learned / "adapters-2" / "checkpoints" / "step-00000001" / "policy"
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapter = _weights(folder)
    found = dict(PeftModel.from_pretrained(base, folder).named_parameters())
    assert any(tensor.abs().max() > 0 for name, tensor in adapter.items() if "lora_B" in name)
    for name, tensor in adapter.items():
        assert torch.equal(found[name.replace(".weight", ".default.weight")], tensor), name


def test_a_process_holds_its_part(learned: Path) -> None:
    for case in ("whole", "adapters"):
        one = load_file(learned / f"{case}-rank0-of-1.safetensors")
        both = [load_file(learned / f"{case}-rank{r}-of-2.safetensors") for r in (0, 1)]
        for what in ("weights", "moments"):
            parts = [int(part[f"bytes.{what}"]) for part in both]
            assert sum(parts) == int(one[f"bytes.{what}"])
            assert max(parts) < 0.55 * sum(parts)


@pytest.mark.parametrize("case", ["whole", "bfloat16"])
def test_a_process_takes_what_is_reckoned(case: str, model: Path, learned: Path) -> None:
    config = sharded_runs.config_of(str(model), case, 2)
    found = need(shape_of(config), config, 2, computes=2 if case == "bfloat16" else 4)
    both = [load_file(learned / f"{case}-rank{r}-of-2.safetensors") for r in (0, 1)]
    reference = 2 if config.kl else 1
    assert sum(int(part["bytes.weights"]) for part in both) * reference == 2 * found.weights
    assert sum(int(part["bytes.moments"]) for part in both) == 2 * found.moments
    assert all(int(part["bytes.played"]) == found.played for part in both)


def test_a_number_that_is_none_in_one_process_stops_both(learned: Path) -> None:
    told = [(learned / f"refused-rank{rank}-of-2.txt").read_text() for rank in (0, 1)]
    assert told[0] == told[1] and "a log-probability is not finite" in told[0]


@pytest.mark.parametrize(("wrote", "count"), [(2, 1), (2, 2), (2, 3), (1, 2)])
def test_a_checkpoint_goes_on_in_more_and_in_fewer_processes(
    wrote: int, count: int, model: Path, learned: Path, tmp_path: Path
) -> None:
    """Weights and moments: the step after the checkpoint is that of those who wrote it."""
    saved = learned / f"whole-{wrote}" / "checkpoints" / "step-00000001"
    assert len(list(saved.glob("policy.optimizer/*.distcp"))) == (2 if wrote == 2 else 0)
    if count == 1:
        sharded_runs.main(str(model), learned, saved)
    else:
        fork(count, tmp_path, sharded_runs.main, str(model), learned, saved)
    after = _weights(learned / f"after-{wrote}" / "policy")
    found = _weights(learned / f"resumed-{count}" / "policy")
    before = _weights(saved / "policy")
    assert max(float((after[k] - before[k]).abs().max()) for k in after) > 1e-4, "it was a step"
    assert max(float((after[k] - found[k]).abs().max()) for k in after) < 1e-5


def test_a_part_that_is_missing_is_named(model: Path, learned: Path, tmp_path: Path) -> None:
    saved = tmp_path / "checkpoints" / "step-00000001"
    shutil.copytree(learned / "whole-2" / "checkpoints" / "step-00000001", saved)
    config = sharded_runs.config_of(str(model), "whole", 1)
    policy = load_policies(saved, config, True)["policy"]
    optimizer = Learner(policy, config).optimizer
    other = torch.optim.AdamW([torch.nn.Parameter(p.flatten()) for p in policy.parameters()])
    with pytest.raises(CheckpointError, match="it was saved for another model"):
        checkpoint.restore_optimizer(saved, "policy", other)
    part = next((saved / "policy.optimizer").glob("__1_*.distcp"))
    part.unlink()
    told = rf"optimizer cannot be read: .*{part.name}.*Move {saved} away"
    with pytest.raises(CheckpointError, match=told):
        checkpoint.restore_optimizer(saved, "policy", optimizer)
    (saved / "policy.optimizer" / ".metadata").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.restore_optimizer(saved, "policy", optimizer)


def test_what_cannot_be_sharded_is_refused(model: Path, tmp_path: Path) -> None:
    config = sharded_runs.config_of(str(model), "whole", 2).replace(env="fruit_runs:Brief-v0")
    with pytest.raises(ValueError, match=r"^shard: this run has one process.*es 4 --shard"):
        Trainer(config, tmp_path / "run", console=fruit_runs.QUIET)
    with pytest.raises(ValueError, match="shard needs policy='hf'"):
        config.replace(policy="tiny", model="")
    critic = dataclasses.replace(method_of(config), critic=lambda policy: None)
    with pytest.raises(ValueError, match="has a critic"):
        parts.check_shard(config, critic, 2, resume=False)
    assert "one process" in parts.check_shard(config, method_of(config), 1, resume=True)
    assert parts.check_shard(config, method_of(config), 2, resume=False) == ""
    with pytest.raises(ValueError, match="agent of your own"):
        parts.check_own_agent(config)
    sees = load_policy(save_vision_model(tmp_path / "sees", layers=1), "hf")
    with pytest.raises(ValueError, match="vision-language models"):
        sees.shard()


def test_a_run_goes_on_sharded_or_not_as_asked(model: Path, tmp_path: Path) -> None:
    config = sharded_runs.config_of(str(model), "whole", 1)
    (tmp_path / "config.toml").write_text(config.to_toml())
    asked = ["--resume", str(tmp_path)]
    for words, shard in ([], False), (["--shard"], True), (["--no-shard"], False):
        assert train._resumed([*asked, *words]).config == config.replace(shard=shard)
    with pytest.raises(ValueError, match="beside it are allowed only"):
        train._resumed([*asked, "--lora-rank", "4"])


def test_a_server_in_each_of_several_processes_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Two(distributed.Team):
        size = 2

    monkeypatch.setattr(distributed, "team", Two)
    config = sharded_runs.config_of(str(model), "whole", 2).replace(rollout="vllm")
    with pytest.raises(ValueError, match="himac serve"):
        make_rollouts(config, {})
