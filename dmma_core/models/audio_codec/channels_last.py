"""One-dimensional convolution on sequences [B, time, channels] without a transpose.

Each time step is a row of channels in memory: the layout that CPU and GPU convolution kernels prefer, in which a shift
in time is a shift of rows. Kernels are stored in the matching layout, [out, in, 1, taps] in channels-last order.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Conv(nn.Module):
    """Convolution with zero padding that keeps the length; `num_taps` is odd.

    The weight is uninitialised until `load_official`.
    """

    def __init__(self, num_inputs: int, num_outputs: int, num_taps: int, *, dilation: int = 1, bias: bool) -> None:
        super().__init__()
        self.dilation = dilation
        self.padding = dilation * (num_taps - 1) // 2
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs, 1, num_taps), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(num_outputs), requires_grad=False) if bias else None

    def official_shapes(self) -> dict[str, tuple[int, ...]]:
        """Suffixes and shapes in a published state dict."""
        kernel = (self.weight.shape[0], self.weight.shape[1], self.weight.shape[3])
        return {"weight": kernel} if self.bias is None else {"weight": kernel, "bias": tuple(self.bias.shape)}

    def load_official(self, parts: Mapping[str, Tensor]) -> None:
        self.weight.data = kernel_layout(parts["weight"])
        if self.bias is not None:
            self.bias.data = parts["bias"]

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.weight.shape[3] == 1:
            return nn.functional.linear(x_BTD, self.weight[:, :, 0, 0], self.bias)
        return convolve(x_BTD, self.weight, self.bias, self.padding, self.dilation)


def convolve(x_BTD: Tensor, weight: Tensor, bias: Tensor | None, padding: int, dilation: int = 1) -> Tensor:
    """[B, T, in] and kernel [out, in, 1, taps] to [B, T + 2 padding - dilation (taps - 1), out], contiguous."""
    image = x_BTD.transpose(1, 2).unsqueeze(2)
    result = nn.functional.conv2d(image, weight, bias, padding=(0, padding), dilation=(1, dilation))
    return result.squeeze(2).transpose(1, 2).contiguous()


def kernel_layout(weight: Tensor) -> Tensor:
    """Published kernel [out, in, taps] to the layout of `convolve`."""
    return weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
