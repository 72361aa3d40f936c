"""Muon: the momentum of every matrix and convolution kernel, orthogonalised, before it is a step.

A squared error teaches a network loud things long before quiet ones: after 80 steps AdamW's codec is 0.4 dB
behind Muon's (results/ablations/codec.csv), after 128 its separator has a higher loss, 0.94 against 0.90, and
samples no worse voices of a song left out (ablations.csv). `torch.optim.Muon` takes matrices only and
multiplies in bf16, which a processor without instructions for it does thirty times slower.
"""

import torch

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # five of these steps bring singular values to 0.7..1.2


class Muon(torch.optim.AdamW):
    """AdamW for vectors; orthogonalised Nesterov momentum for all that has more dimensions.

    Source: Jordan and others 2024, kellerjordan.github.io/posts/muon; the factor that makes AdamW's learning
    rates and weight decays serve both kinds is that of Liu and others 2025, arXiv 2502.16982, section 2.2.
    """

    @torch.no_grad()
    def step(self, closure=None):
        """Take one step; the gradients of the kernels are used up by it.

        Where the attribute `found_inf`, a tensor, is 1, nothing changes, as in torch's fused AdamW.
        """
        broken = getattr(self, "found_inf", torch.zeros(()))
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.ndim > 1 and kernel.grad is not None:
                    state = self.state[kernel]
                    if not state:  # AdamW's loading asks for the step
                        state.update(step=torch.zeros(()), momentum=torch.zeros_like(kernel))
                    finite = 1 - broken.to(kernel.device)
                    gradient = kernel.grad.masked_fill(finite == 0, 0)
                    momentum = state["momentum"].lerp_(gradient, finite * (1 - MOMENTUM))
                    update = orthogonalize(gradient.lerp(momentum, MOMENTUM).flatten(1))
                    rate = group["lr"] * 0.2 * max(update.shape) ** 0.5
                    kernel.mul_(1 - finite * group["lr"] * group["weight_decay"])
                    kernel.sub_(finite * rate * update.view_as(kernel))
                    kernel.grad = None  # AdamW leaves out what has no gradient
        return super().step(closure)


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """U V^T of a matrix U S V^T, roughly: every singular value between 0.7 and 1.2."""
    a, b, c = NEWTON_SCHULZ
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / wide.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if wide is not matrix else x
