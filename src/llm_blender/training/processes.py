"""Processes that share a training run, started by ``torchrun`` or ``accelerate launch``.

Both name each process in its environment.
"""

from __future__ import annotations

import os

from llm_blender.errors import InputError

_MPI = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # variables with its number of processes
_LIBRARIES = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "its parallelism config",
}


def number_of_processes() -> int:
    """Return the number of processes that share this run."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def is_main_process() -> bool:
    """Return whether this process is the one that writes and prints."""
    return number_of_processes() == 1 or os.environ.get("RANK", "0") == "0"


def check_processes(accumulate: int) -> None:
    """Check that this run can be shared by its processes.

    Args:
        accumulate: batches per step, of all processes together.

    Raises:
        InputError: the processes cannot share a step evenly, are more than the GPUs, were started by MPI, or with a
            library or a precision of accelerate that training does not support.
    """
    if number_of_processes() == 1 and any(int(os.environ.get(size, "1")) > 1 for size in _MPI):
        raise InputError("Training does not support processes that MPI starts: start them with torchrun.")
    if accumulate % (count := number_of_processes()):
        raise InputError(
            f"{count} processes cannot share the batches of a step evenly: accumulate is {accumulate}. Set it to a "
            f"multiple of {count} (--accumulate {count}), and lower batch_tokens to keep the size of a step."
        )
    for variable, library in _LIBRARIES.items():
        if _is_set(variable):
            raise InputError(f"Training does not support {library} of accelerate: run `accelerate launch` without it.")
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no":
        raise InputError(
            f"The recipe decides the precision (bf16), not accelerate: replace --mixed_precision {precision} by `no`."
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if count > 1 and not on_cpu():
        import torch

        if (gpus := torch.cuda.device_count()) < here:
            raise InputError(
                f"{here} processes need as many GPUs, and this machine shows {gpus}: start {gpus}, or set "
                "CUDA_VISIBLE_DEVICES to nothing to train on the CPU."
            )


def on_cpu() -> bool:
    """Return whether several processes compute on the CPU: there is no GPU, or accelerate forbids it."""
    if number_of_processes() == 1:
        return False  # the trainer's choice
    import torch

    return _is_set("ACCELERATE_USE_CPU") or not torch.cuda.is_available()


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on", "y", "t")
