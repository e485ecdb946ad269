"""The network against the paper's figures and its own promises."""

import pytest
import torch
import torch.nn.functional as F

from loupe.models.rdn import RDN, Residual, ResidualDenseBlock


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_counts_of_the_published_networks() -> None:
    assert count(RDN(D=16, C=8, G=64, G0=64, scale=2)) == 22_123_395
    assert count(RDN(D=20, C=6, G=32, G0=64, scale=2)) == 5_616_515


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("residual", ["none", "nearest", "bicubic"])
def test_any_size_gives_exactly_its_multiple(scale: int, residual: Residual) -> None:
    network = RDN(D=2, C=2, G=4, G0=4, scale=scale, residual=residual).eval()
    for height, width in [(1, 1), (1, 6), (2, 3), (7, 5), (16, 9), (31, 33)]:
        with torch.inference_mode():
            assert network(torch.rand(2, 3, height, width)).shape == (2, 3, height * scale, width * scale)


def test_a_block_is_the_papers() -> None:
    block = ResidualDenseBlock(C=3, G=5, G0=7)
    assert [tuple(layer.weight.shape[:2]) for layer in block.layers] == [(5, 7), (5, 12), (5, 17)]  # type: ignore[union-attr,operator,index]
    assert (block.fusion.in_channels, block.fusion.out_channels, block.fusion.kernel_size) == (22, 7, (1, 1))
    x = torch.rand(1, 7, 6, 6)
    torch.nn.init.zeros_(block.fusion.weight)
    torch.nn.init.zeros_(block.fusion.bias)  # type: ignore[arg-type]
    torch.testing.assert_close(block(x), x)  # local residual learning


def test_the_untrained_residual_network_is_the_enlargement() -> None:
    x = torch.rand(1, 3, 8, 11)
    for mode in ("nearest", "bicubic"):
        network = RDN(D=1, C=1, G=4, G0=4, residual=mode)  # type: ignore[arg-type]
        torch.testing.assert_close(network(x), F.interpolate(x, scale_factor=2, mode=mode))


def test_every_parameter_learns() -> None:
    network = RDN(D=2, C=2, G=4, G0=4, residual="none")
    network(torch.rand(2, 3, 8, 8)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_a_deeper_network_begins_as_a_shallower_one_and_learns_with_all_its_blocks() -> None:
    torch.manual_seed(0)
    shallow, deep = (RDN(D=depth, C=2, G=8, G0=8, residual="bicubic") for depth in (2, 4))
    torch.nn.init.normal_(shallow.output.weight, std=0.1)
    deep.begin_as(shallow)
    x = torch.rand(1, 3, 7, 9)
    assert deep(x).detach().std() > 0.01
    torch.testing.assert_close(deep(x), shallow(x))
    optimizer = torch.optim.Adam(deep.parameters())
    for _ in range(3):  # the first step gives the new blocks weight, the next teaches them
        optimizer.zero_grad()
        F.mse_loss(deep(x), torch.zeros(1, 3, 14, 18)).backward()
        optimizer.step()
    for name, parameter in deep.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_network_does_not_begin_as_one_of_another_kind() -> None:
    network = RDN(D=2, C=2, G=8, G0=8)
    for other in (RDN(D=3, C=2, G=8, G0=8), RDN(D=2, C=3, G=8, G0=8), RDN(D=1, C=2, G=16, G0=8)):
        with pytest.raises(RuntimeError):
            network.begin_as(other)


def test_the_field_of_view_is_no_wider_than_stated() -> None:
    """D * C + 5 low-resolution pixels to each side: what tiles must overlap by."""
    D, C = 2, 3
    network = RDN(D=D, C=C, G=4, G0=4, residual="none").eval()
    side = 2 * (D * C + 5) + 1 + 8
    x = torch.rand(1, 3, side, side, requires_grad=True)
    middle = side // 2
    network(x)[..., 2 * middle : 2 * middle + 2, 2 * middle : 2 * middle + 2].abs().sum().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(dim=(0, 1)).nonzero().flatten()
    assert middle - int(seen.min()) <= D * C + 5
    assert int(seen.max()) - middle <= D * C + 5
