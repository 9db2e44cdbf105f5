"""Promise 24 across processes: two under `accelerate launch` follow one that accumulates twice as much."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("toy_training.py")


def test_two_processes_give_the_trajectory_of_twice_the_accumulation(tmp_path):
    # with --cpu alone accelerate starts one process unless mpirun is there: the environment says CPU instead
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    commands = ([*launch, SCRIPT, tmp_path / "two", "1"], [sys.executable, SCRIPT, tmp_path / "one", "2"])
    started = [
        subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True)
        for command in commands  # both at once: they mostly import
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
    assert (tmp_path / "two.processes").read_text() == "2"
    one, two = load_file(tmp_path / "one"), load_file(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-5)
