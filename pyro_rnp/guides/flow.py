"""A normalising flow as the guide."""

from __future__ import annotations

import pyro.distributions as dist
from jaxtyping import Float
from pyro.distributions import transforms
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp.activations import elu
from pyro_rnp.arguments import whole
from pyro_rnp.config import RNPConfig
from pyro_rnp.couplings import ConditionalDense, permuted, start_as_identity
from pyro_rnp.encoder import Encoder
from pyro_rnp.guides.base import positive
from pyro_rnp.guides.diagonal_normal import DiagonalNormal
from pyro_rnp.precision import full_precision
from pyro_rnp.registry import GUIDES


@GUIDES.add("flow")
class FlowGuide(DiagonalNormal):
    """A diagonal normal through affine coupling layers that see features of the image too.

    The couplings start as the identity.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017.

    Args:
        config: gives the encoder's shape, the number of features (`encoder_units`) and |z|.
        layers: number of coupling layers, in [1, 10,000].
        units: hidden units in each layer's network, in [1, 10,000].

    Raises:
        ValueError: if an option is out of its range, or |z| is 1, which leaves nothing to couple.
    """

    def __init__(self, config: RNPConfig, *, layers: int = 4, units: int = 64) -> None:
        super().__init__(config)
        whole(1, 10_000, layers=layers, units=units)
        z, seen = config.program_size, config.encoder_units
        if z < 2:
            raise ValueError("A flow guide needs program_size of at least 2.")
        self.encoder = Encoder(config, 2 * z + seen)
        self.sizes = [z, z, seen]
        made = []
        for _ in range(layers):
            network = ConditionalDense(z // 2, seen, [units], [z - z // 2] * 2)
            start_as_identity(network.layers[-1])
            made.append(transforms.ConditionalAffineCoupling(z // 2, network))
        self.couplings = nn.ModuleList(made)

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        loc, raw_scale, seen = full_precision(self.encoder(images)).split(self.sizes, -1)
        couplings = [coupling.condition(elu(seen)) for coupling in self.couplings]  # type: ignore[operator]
        base = dist.Normal(loc, positive(raw_scale)).to_event(1)
        return dist.TransformedDistribution(base, permuted(couplings, loc))
