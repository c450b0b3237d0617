"""Run by test_several.py: trains without noise, as one process or two that share a batch."""

import os
import signal
import sys
from pathlib import Path

import torch

import inference.config
from inference.cli import run
from inference.config import TrainConfig
from inference.data import ImageSet, Splits, load_data
from inference.training import train
from inference.training.callbacks import Progress
from inference.training.module import Training
from pyro_rnp import RNPConfig

MODEL = RNPConfig(
    patch_size=6,
    steps=(2, 2),
    program_size=3,
    hypernet_units=5,
    network_units=4,
    encoder_channels=3,
    encoder_units=6,
)


def main(folder: str, processes: int, dies_at: int) -> None:
    """Two epochs of four batches of 16 images, 8 for each of two processes."""
    torch.set_default_dtype(torch.float64)  # here: pytest imports this file to look for doctests
    torch.set_num_threads(1)
    data = load_data("digits")
    train_on, validation, test = (
        ImageSet(part.images[:n].double(), part.labels[:n])
        for part, n in ((data.train, 64), (data.validation, 8), (data.test, 8))
    )
    inference.config.load_data = lambda *_, **__: Splits(train_on, validation, test)
    torch.distributions.Normal.rsample = lambda self, shape=(): self.loc.expand(
        self._extended_shape(shape)
    )
    count = Progress.on_train_batch_end

    def noted(callback: Progress, trainer: object, module: Training, *args: object) -> None:
        with Path(f"{folder}-{module.global_rank}").open("a") as file:
            file.write(f"{module.loss.item()!r}\n")
        if module.batches_seen == dies_at and module.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        count(callback, trainer, module, *args)

    Progress.on_train_batch_end = noted
    train(
        TrainConfig(
            out=folder,
            epochs=2,
            batch_size=16 // processes,
            warmup=3,
            accelerator="cpu",
            devices=str(processes),
            strategy="ddp" if processes > 1 else "auto",
            model=MODEL,
        )
    )


if __name__ == "__main__":
    run(lambda: main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
