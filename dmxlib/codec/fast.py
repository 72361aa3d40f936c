"""EnCodec's SEANet without gradients on a processor: the package's modules and weights, in another order.

The package's forward passes over tensors of up to 84 MB (13.65 s of stereo at 48 kHz) some thirty times: to
pad, to measure, to normalise, to activate, to add. Here a convolution's input is normalised, activated and
padded in tiles that stay in the cache, just before it is convolved, and its output is measured while it is
still there. Under `torch.autocast` the products, and what a layer leaves in memory, are in its precision, and
sums and what is read in float32. What bounds it, and what each step gave, is in results/speed;
`python -m dmxlib.studies.codec_speed` measures it again.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from encodec.modules import SLSTM, SConv1d, SConvTranspose1d
from encodec.modules.conv import get_extra_padding_for_conv1d, pad1d
from encodec.modules.seanet import SEANetResnetBlock
from torch import nn
from torch.nn import functional as F

from dmxlib.device import lstm_precision

TILE = 2**19  # values: 2 MB, of which each of two cores keeps its half; at 2**18 it all takes 7 % longer

# Tried and dropped; processor seconds of one thread of a busy machine, so rough. torch.compile: 0.77 times
# as fast as the package after 44 s of compiling, and with freezing it fails in the LSTM's shapes. Kernels
# of 3 as three products: 46 to 56 GFLOP/s, oneDNN in channels last 58 to 68. Channels first in tiles: 30 to
# 45 for products. Huge pages (THP_MEM_ALLOC_ENABLE): no change. The LSTM (0.47 s for 13.65 s) reads 4 MB of
# weights a frame and layer from the L3 cache at 38 GB/s; four excerpts at once take 1.18 s. On two idle cores
# it takes 0.22 s of the encoder's 1.0 s, in bf16 0.08 s of 0.6 s; products take 0.37 s, the rest are passes
# over what lies in the cache. The LSTM's two layers in a thread each, one a block behind the other: 0.49 s.


@dataclass
class Signal:
    """What a layer hands on: the sum of some (tensor * scale), plus shift, through an activation.

    Tensors are (batch, T, channels), scales and shift (batch or 1, 1, channels).
    """

    terms: list[tuple[torch.Tensor, torch.Tensor]]
    shift: torch.Tensor
    activation: nn.Module | None = None

    @property
    def shape(self) -> torch.Size:
        """(batch, T, channels)."""
        return self.terms[0][0].shape

    def read(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Frames `start` to `stop` (None: the end), (batch, stop - start, channels)."""
        x = self.shift
        for tensor, scale in self.terms:
            x = torch.addcmul(x, tensor[:, start:stop], scale)
        return _activate(self.activation, x) if self.activation else x


@torch.no_grad()
def forward(seanet: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a SEANetEncoder or SEANetDecoder makes of x (batch, channels, T), to rounding errors."""
    signal = _signal(x.transpose(1, 2))
    for layer in seanet.model:
        signal = _layer(layer, signal)
    return signal.read().transpose(1, 2)


def _signal(tensor):
    ones = torch.ones(1, 1, tensor.shape[2])
    return Signal([(tensor, ones)], 0 * ones)


def _layer(layer, signal):
    if isinstance(layer, SConv1d):
        return _convolution(layer, signal)
    if isinstance(layer, SConvTranspose1d):
        return _transposed_convolution(layer, signal)
    if isinstance(layer, SLSTM):
        with lstm_precision():
            return _signal(layer(signal.read().transpose(1, 2)).transpose(1, 2))
    if isinstance(layer, SEANetResnetBlock):
        shortcut = signal if isinstance(layer.shortcut, nn.Identity) else _layer(layer.shortcut, signal)
        for inner in layer.block:
            signal = _layer(inner, signal)
        return Signal(shortcut.terms + signal.terms, shortcut.shift + signal.shift)
    return Signal(signal.terms, signal.shift, activation=layer)


def _convolution(layer, signal):
    conv = _with_weight(layer.conv.conv)
    (kernel,), (stride,), (dilation,) = conv.kernel_size, conv.stride, conv.dilation
    total = (kernel - 1) * dilation - (stride - 1)
    right = 0 if layer.causal else total // 2
    extra = get_extra_padding_for_conv1d(signal.terms[0][0].transpose(1, 2), kernel, stride, total)
    padding = (total - right, right + extra)
    output, *moments = _convolve(signal, conv.weight, stride, dilation, padding, layer.pad_mode)
    return _normalize(layer.conv.norm, output, conv.bias, *moments)


def _transposed_convolution(layer, signal):
    """A kernel of two strides: a convolution of kernel 2, each of whose outputs is `stride` frames."""
    conv = _with_weight(layer.convtr.convtr)
    (stride,) = conv.stride
    # (in, out, 2 stride) -> (stride out, in, 2): the later half of the kernel meets the earlier frame
    weight = conv.weight.unflatten(2, (2, stride)).flip(2).permute(3, 1, 0, 2).flatten(0, 1)
    output, sums, squares = _convolve(signal, weight, 1, 1, (1, 1), "constant")
    output, sums = output.unflatten(2, (stride, -1)).flatten(1, 2), sums.unflatten(1, (stride, -1)).sum(1)
    signal = _normalize(layer.convtr.norm, output, conv.bias, sums, squares)
    # the package pads nothing and trims as much
    right = math.ceil(stride * layer.trim_right_ratio) if layer.causal else stride // 2
    ((output, scale),) = signal.terms
    return Signal([(output[:, stride - right : output.shape[1] - right], scale)], signal.shift)


def _with_weight(conv):
    for hook in conv._forward_pre_hooks.values():  # weight_norm computes the weight in one
        hook(conv, None)
    return conv


def _convolve(signal, weight, stride, dilation, padding, pad_mode):
    """Without the bias: (batch, T', out channels), each channel's sum (batch, out channels), and the sum of
    the squares (batch,), in double precision."""
    if torch.is_autocast_enabled("cpu"):
        weight = weight.to(torch.get_autocast_dtype("cpu"))
    (batch, length, channels), (left, right) = signal.shape, padding
    span = (weight.shape[2] - 1) * dilation + 1
    frames = (left + length + right - span) // stride + 1
    output = weight.new_empty(batch, frames, len(weight))
    tiles = batch * frames * max(len(weight), channels * stride) // TILE
    tiles = max(1, min(tiles, length // (2 * span)))  # an end's tile holds what is reflected there
    edges = [frames * tile // tiles for tile in range(tiles + 1)]
    convolve = _products if weight.shape[2] in (stride, 2 * stride) else _convolutions
    convolve = convolve(weight, stride, dilation)
    sums = squares = 0
    for start, stop in pairwise(edges):
        first, last = start * stride - left, (stop - 1) * stride - left + span
        x = signal.read(max(0, first), min(length, last))
        if first < 0 or last > length:
            x = pad1d(x.transpose(1, 2), (max(0, -first), max(0, last - length)), pad_mode)
            x = x.transpose(1, 2).contiguous()
        y = convolve(x.to(weight.dtype), output[:, start:stop])
        wide = y.float()
        sums = sums + wide.sum(1).double()
        squares = squares + torch.linalg.vector_norm(wide, dim=(1, 2)).double().square()
    return output, sums, squares


def _products(weight, stride, dilation):
    """A kernel of one stride or two: as many matrix products, with `stride` frames for a row."""
    # (out, in, taps stride) -> taps (stride in, out)
    taps = weight.unflatten(2, (-1, stride)).permute(2, 3, 1, 0).flatten(1, 2).contiguous()

    def convolve(x, output):
        for rows, y in zip(x.reshape(len(x), -1, stride * x.shape[2]), output, strict=True):
            torch.mm(rows[: len(y)], taps[0], out=y)
            for tap in taps[1:]:
                y.addmm_(rows[1:], tap)
        return output

    return convolve


def _convolutions(weight, stride, dilation):
    """Any other: oneDNN takes channels last as they are."""
    weight = weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)

    def convolve(x, output):
        y = F.conv2d(x.transpose(1, 2).unsqueeze(2), weight, None, (1, stride), dilation=(1, dilation))
        return output.copy_(y.squeeze(2).transpose(1, 2))

    return convolve


def _normalize(norm, output, bias, sums, squares):
    """The signal of a convolution's output and its norm; the bias is added where the signal is read."""
    if isinstance(norm, nn.Identity):
        return Signal([(output, torch.ones_like(bias)[None, None])], bias[None, None])
    frames, count = output.shape[1], output[0].numel()
    wide = bias.double()
    mean = (sums + frames * wide).sum(1) / count
    square = (squares + (2 * sums * wide + frames * wide.square()).sum(1)) / count
    deviation = (square - mean.square() + norm.eps).sqrt()
    scale = norm.weight / deviation[:, None]  # (batch, channels)
    shift = norm.bias + (bias - mean[:, None]) * scale
    return Signal([(output, scale[:, None].to(bias))], shift[:, None].to(bias))


def _activate(activation, x):
    if isinstance(activation, nn.ELU) and activation.alpha == 1:
        # exp takes a third of expm1's time
        return torch.maximum(x, x.clamp(max=0).exp_().sub_(1), out=x)
    return activation(x)
