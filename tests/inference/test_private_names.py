"""Names that other libraries do not promise to keep, and that this project uses all the same.

Each test says which library has changed, and what, before anything else fails in riddles.
"""

from importlib.metadata import version

import lightning
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from inference.isolation import VARIABLES, isolated
from inference.system import out_of_memory


def changed(library, what, used_by):
    return f"{library} {version(library)} has changed {what}, which {used_by} uses."


def test_a_module_computes_with_what_stands_in_its_dictionary_of_parameters():
    module, ones = torch.nn.Linear(1, 1, bias=False), torch.nn.Parameter(torch.ones(1, 1))
    module._parameters["weight"] = ones
    message = changed("torch", "torch.nn.Module._parameters", "inference.isolation.frozen")
    assert module.weight is ones, message
    assert module(torch.full((1, 1), 3.0)).item() == 3, message


@pytest.mark.parametrize("skip", [0.0, 1.0])
def test_adam_skips_a_step_whose_gradient_is_not_finite(skip):
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([weight], lr=0.1, fused=True)
    weight.grad = torch.ones(2)
    optimizer.found_inf = torch.tensor(skip)
    optimizer.step()
    assert bool(weight.eq(0).all()) == bool(skip), changed(
        "torch", "found_inf of torch.optim.Adam(fused=True)", "inference.training.module.Training"
    )


def test_lightning_keeps_the_counts_of_its_loop_where_they_were():
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    loop = trainer.fit_loop.state_dict()
    message = changed(
        "lightning", "the state of its fit loop", "inference.training.checkpoints.set_loop_counts"
    )
    kinds = {"total", "current"}
    counts = {"ready", "started", "processed", "completed"}
    for name in (
        "epoch_progress",
        "epoch_loop.batch_progress",
        "epoch_loop.val_loop.batch_progress",
    ):
        assert name in loop, message
        assert kinds <= loop[name].keys(), message
        assert all(loop[name][kind].keys() == counts for kind in kinds), message
    assert "is_last_batch" in loop["epoch_loop.batch_progress"], message


def test_lightning_numbers_processes_at_import():
    assert getattr(rank_zero_only, "rank", None) == 0, changed(
        "lightning", "rank_zero_only.rank", "inference.training.fit.train"
    )


def test_lightning_keeps_its_seed_in_the_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    import os

    with isolated():
        lightning.seed_everything(3, workers=True, verbose=False)
        assert all(name in os.environ for name in VARIABLES), changed(
            "lightning", f"the variables {', '.join(VARIABLES)}", "inference.isolation.isolated"
        )


def test_jsonargparse_keeps_the_type_of_a_flag_with_it():
    parser = ArgumentParser()
    parser.add_argument("--numbers", type=list[int])
    hints = [getattr(action, "_typehint", None) for action in parser._actions]
    assert list[int] in hints, changed("jsonargparse", "ActionTypeHint._typehint", "inference.cli")


def test_torch_says_when_there_is_no_memory():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**58)
    assert out_of_memory(raised.value), changed(
        "torch", f"its message about memory ({raised.value})", "inference.system.out_of_memory"
    )
