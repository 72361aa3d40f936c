"""Muon's steps are orthogonal, AdamW's where they have to be, and learn what AdamW learns last."""

import pytest
import torch

from dmxlib.training.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (16, 16)])
def test_singular_values_come_near_one(shape):
    generator = torch.Generator().manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    values = torch.logspace(0, -1, len(vh))  # that span a factor of ten
    update = orthogonalize(u * values @ vh)
    assert update.shape == shape
    spread = torch.linalg.svdvals(update)
    assert spread.min() > 0.6 and spread.max() < 1.3
    assert (u.T @ update @ vh.T).diagonal().min() > 0.6  # the same singular vectors, same signs


def test_a_gradient_of_zero_gives_no_step():
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_kernels_get_steps_of_adamw_s_size_and_vectors_those_of_adamw():
    kernel = torch.nn.Parameter(torch.zeros(6, 4, 3))
    vector, expected = (torch.nn.Parameter(torch.ones(5)) for _ in range(2))
    settings = dict(lr=0.1, weight_decay=0.5)
    optimizer, adamw = Muon([kernel, vector], **settings), torch.optim.AdamW([expected], **settings)
    for _ in range(3):
        kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(0))
        vector.grad = torch.arange(5.0)
        expected.grad = torch.arange(5.0)
        before = kernel.detach().clone()
        optimizer.step()
        adamw.step()
    assert torch.equal(vector, expected)
    step = kernel.detach() - before * (1 - 0.1 * 0.5)
    assert step.square().mean().sqrt() == pytest.approx(0.1 * 0.2, rel=0.3)


def test_it_learns_quiet_directions_as_soon_as_loud_ones():
    """Least squares whose directions differ by 30 dB: AdamW's first steps leave the quiet ones alone."""
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=generator))[0]
    power = torch.logspace(0, -3, 16)

    def quiet_error(optimizer_class):
        weight = torch.nn.Parameter(torch.zeros(16, 16))
        optimizer = optimizer_class([weight], lr=0.03, weight_decay=0.0)
        for _ in range(60):
            optimizer.zero_grad()
            (((weight - rotation) @ rotation.T).square() * power).sum().backward()
            optimizer.step()
        return ((weight - rotation) @ rotation.T)[:, 8:].square().mean().item()

    assert quiet_error(Muon) < 0.5 * quiet_error(torch.optim.AdamW)


def test_a_step_that_is_not_finite_changes_nothing():
    runs = []
    for broken in ((), (1, 2)):
        parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in ((3, 4), (5,))]
        optimizer = Muon(parameters, lr=0.1, fused=True)
        for step in range(5):
            for parameter in parameters:
                gradient = torch.full(parameter.shape, float("nan" if step in broken else 1))
                parameter.grad = gradient
            if step in broken or not broken and step > 2:
                before = [parameter.detach().clone() for parameter in parameters]
            optimizer.found_inf = torch.tensor(float(step in broken))
            if broken or step < 3:
                optimizer.step()
            if step in broken:
                assert all(map(torch.equal, parameters, before))
        runs.append(parameters)
    assert all(map(torch.equal, *runs))
