"""Without the folder of the fast path all else still works, by the plain one."""

import subprocess
import sys

WITHOUT = """
import sys
sys.modules["deepnet_edu.model.fast"] = None  # as if the folder were not there

from deepnet_edu import ModelConfig, TrainConfig, build_model, probe, train
from deepnet_edu.course.doctor import _compiler
from deepnet_edu.data import TokenMap
from deepnet_edu.model import random_batch
from deepnet_edu.model.paths import knows
from deepnet_edu.planning import training_memory, training_time
config = ModelConfig("decoder", "lm", 4, d_model=16, n_heads=2, d_ff=32, vocab_size=11, residual="deepnorm")
model = build_model(config)
assert len(train(model, TokenMap(11, 8, 2), TrainConfig(steps=2, warmup=1), progress=False).loss) == 2
assert model.stacks()["decoder"].path_taken == "plain, since the fast path is not installed"
assert len(probe(model, random_batch(config)).variance) == 8
assert not knows("deepnorm", 0, 4)
assert training_memory(config, 2, 8).path == training_time(config, 2, 8).path == "plain"
assert _compiler().status == "ok"
try:
    with model.running(path="fast"):
        model.loss(random_batch(config))
except ValueError as error:
    assert "The fast path cannot run this: the fast path is not installed." in str(error)
else:
    raise AssertionError("it ran")
"""


def test_everything_goes_by_the_plain_path() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
