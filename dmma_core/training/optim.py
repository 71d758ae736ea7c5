"""The optimiser: AdamW over every trainable parameter in one group, and gradient clipping by the total norm."""

import torch
from torch import Tensor, nn

from dmma_core.errors import CheckpointError
from dmma_core.recipe import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the parameters of `model` that require a gradient; with the fused kernel on a GPU."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=parameters[0].is_cuda,
        foreach=not parameters[0].is_cuda,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Scale all gradients so that their total norm is at most `max_norm`; returns the norm before scaling [scalar]."""
    return torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm, error_if_nonfinite=False)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors: `<quantity>/<parameter name>`. Empty before the first step."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{quantity}/{names[parameter]}": value
        for parameter, state in optimizer.state.items()
        for quantity, value in state.items()
    }


def load_optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the result of `optimizer_tensors`. Raises CheckpointError unless the parameters are exactly the same."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    saved = {key.partition("/")[2] for key in tensors}
    if tensors and saved != set(parameters):
        differing = sorted(saved ^ set(parameters))
        raise CheckpointError(
            f"The optimiser state is of other parameters: {', '.join(differing[:5])}.",
            remedy="Continue with the configuration the run was started with, or start a new run.",
        )
    optimizer.state.clear()
    for key, value in tensors.items():
        quantity, _, name = key.partition("/")
        parameter = parameters[name]
        # AdamW keeps its step counter on the CPU, except in the fused kernel.
        on_cpu = quantity == "step" and not optimizer.param_groups[0]["fused"]
        optimizer.state[parameter][quantity] = value.clone().to("cpu" if on_cpu else parameter.device)
