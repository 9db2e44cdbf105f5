"""A few steps of training on the toy world, as a script: one process of an `accelerate launch`, or all there is.

Usage: toy_training.py OUT ACCUMULATE. Twelve packs, whatever the number of processes; the main process writes the
trained weights to OUT.
"""

import sys
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from conftest import make_catalog, make_interactions, make_model
from safetensors.torch import save_file

from llmrec.data.interactions import leave_one_out
from llmrec.finetune.data.context import TaskContext
from llmrec.finetune.data.packing import pack_stream
from llmrec.finetune.data.tasks import TASKS
from llmrec.finetune.train.fused_lora import fused_lora
from llmrec.finetune.train.loop import Hooks, Schedule, State, optimizer_for, train
from llmrec.finetune.train.objective import Objective
from llmrec.finetune.train.packed_attention import packed_attention
from llmrec.semantic_ids.trie import Trie

PACKS = 12


def main(out: Path, accumulate: int) -> None:
    """Train over `PACKS` packs and save."""
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    model = make_model(seed=3)
    split = leave_one_out(make_interactions())
    histories = [split.train.rows_of(u) for u in range(len(split.train.users))]
    passages = np.random.default_rng(0).integers(0, 200, (4, 12))
    world = TaskContext(make_catalog(), histories, [model.encoder.trajectory(h) for h in histories], 10, 0.5, passages)
    trie = Trie(model.vocab.ids.codes, 4)
    packs = list(islice(pack_stream(world, model.renderer, trie, {n: 1.0 for n in TASKS}, 3000, 200, 0), PACKS))
    schedule = Schedule(tokens=sum(p.tokens for p in packs), accumulate=accumulate, lr_lora=1e-3)
    with packed_attention(model), fused_lora(model):
        hooks = Hooks(save=lambda s: None, report=lambda s, m: None)
        objective, optimizer = Objective(model, 1.0), optimizer_for(model, schedule)
        state = train(objective, iter(packs), schedule, optimizer, State(), hooks, accelerator)
    assert state.packs == PACKS
    if accelerator.is_main_process:
        out.with_suffix(".processes").write_text(str(accelerator.num_processes))
        save_file({n: t.clone().contiguous() for n, t in model.added_state().items()}, out)
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
