"""The list for a GPU: every command in it is one that there is, with settings that there are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmxlib import train
from dmxlib.config import parse_config
from dmxlib.data.on_device import SUPPORTED
from dmxlib.studies import benchmark
from dmxlib.training.codec import CodecTrainConfig
from dmxlib.training.separator import TrainConfig

ROOT = Path(__file__).parents[2]
RUN = ROOT / "results" / "benchmark-gpu" / "run.sh"
PYTHON = f"""#!{sys.executable}
# notes what it is called with; a training leaves a checkpoint and a log, a script the folder that it is told
import json, sys
from pathlib import Path
with open("calls.jsonl", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if "--output_dir" in sys.argv and sys.argv[2] == "dmxlib.train":
    run = Path(sys.argv[sys.argv.index("--output_dir") + 1])
    (run / "checkpoint-7").mkdir(parents=True)
    (run / "log.jsonl").touch()
elif sys.argv[1] == "-" and len(sys.argv) == 4:
    Path(sys.argv[3]).mkdir(parents=True)
"""


@pytest.fixture
def calls(tmp_path):
    """Run a part of the list with a Python that only notes: its calls."""

    def run(part, **environment):
        (tmp_path / "python").write_text(PYTHON)
        (tmp_path / "python").chmod(0o755)
        environment |= {"PYTHON": str(tmp_path / "python"), "OUT": "out", "DEVICE": "cpu"}
        subprocess.run(
            ["bash", RUN, part], cwd=tmp_path, env={**os.environ, **environment}, check=True, timeout=300
        )
        return [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]

    return run


@pytest.mark.parametrize("environment", [{}, {"TINY": "1"}], ids=["whole", "rehearsed"])
def test_trainings_have_settings_that_there_are(calls, environment, monkeypatch):
    monkeypatch.chdir(ROOT)
    trained, resumed = [], []
    for argv in calls("mini", **environment) + calls("paper", **environment):
        if argv[1] == "dmxlib.train_codec":
            config = parse_config(CodecTrainConfig, argv[2:])
            assert (config.init, config.sampling_rate, config.channels) == (None, 48_000, 2)
        elif argv[1] == "dmxlib.train" and "--resume_from_checkpoint" in argv:
            resumed.append(argv[argv.index("--max_train_steps") + 1])
        elif argv[1] == "dmxlib.train":
            assert train.chosen(argv[2:]) == "ldm-dmx"
            trained.append(parse_config(TrainConfig, argv[2:]))
    mini, _, stage1, stage2 = trained  # calls are noted in one file, so the first part's come twice
    assert all(config.data_on_device and config.latent_cache is None for config in trained)
    assert {*mini.augmentations} <= {*SUPPORTED}
    assert not stage1.train_conditioner and stage2.train_conditioner
    assert stage2.pretrained_model_name_or_path == f"{stage1.output_dir}/model"
    assert resumed == ["7"] * len(trained)


def test_the_benchmark_is_asked_for_kinds_that_there_are(calls):
    for part in ("systems", "peers", "steps"):
        recorded = calls(part)
    asked = []
    for argv in recorded:
        assert argv[:2] == ["-m", "dmxlib.studies.benchmark"]
        asked += benchmark.asked(argv[2:])[1]
    everything = {case.measure for case in benchmark.all_cases("cuda", able=["fp32"])}
    assert {case.measure for case in asked} >= everything and len(recorded) == 3


def test_a_part_is_carried_with_its_code_weights_and_data_alone(tmp_path):
    for name in (
        "dmxlib/code.py",
        "dmxlib/pretrained/ldm-dmx-mini/unet/a.safetensors",
        "dmxlib/pretrained/instglow-mini/config.json",
        "dmxlib/pretrained/instglow-mini/a.safetensors",
        "results/benchmark-gpu/run.sh",
        "results/training/log.jsonl",
        "data/packed/mono/pack.json",
        "data/packed/stereo/pack.json",
        "data/wheels/a.whl",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "results/benchmark-gpu/run.sh").write_bytes(RUN.read_bytes())
    subprocess.run("git init -q && git add dmxlib results", shell=True, cwd=tmp_path, check=True)
    subprocess.run(["bash", RUN, "carry", "mini"], cwd=tmp_path, check=True)
    carried = tmp_path / "data" / "carry"
    assert {str(path.relative_to(carried)) for path in carried.rglob("*") if path.is_file()} == {
        "dmxlib/code.py",
        "dmxlib/pretrained/ldm-dmx-mini/unet/a.safetensors",
        "dmxlib/pretrained/instglow-mini/config.json",
        "results/benchmark-gpu/run.sh",
        "data/packed/mono/pack.json",
        "wheels/a.whl",
    }
