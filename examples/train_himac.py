"""Train HiMAC from Python, and evaluate what came out.

python examples/train_himac.py [--quick]
"""

import sys
import tempfile

from himac_agents.config import TrainConfig
from himac_agents.training.trainer import Trainer

config = TrainConfig.preset("quickstart")
if "--quick" in sys.argv:  # a minute's look at every part; far too short to learn
    config = config.replace(
        demos=24, warm_steps=20, iterations=1, tasks=2, blueprints=2, executions=2,
        eval_episodes=4, lanes=8, baselines=(),
    )  # fmt: skip
result = Trainer(config, tempfile.mkdtemp(prefix="himac-")).run()
print(f"HiMAC: {result['warm_start']['success']:.2f} -> {result['final']['success']:.2f}")
