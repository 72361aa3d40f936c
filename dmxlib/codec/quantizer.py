"""A codec with EnCodec's residual vector quantiser: the robustness study needs it, separation does not."""

import torch
from diffusers.configuration_utils import register_to_config
from encodec.quantization import ResidualVectorQuantizer
from tqdm import tqdm

from dmxlib.codec import Codec
from dmxlib.errors import InputError

AVERAGE = ("embed_avg", "cluster_size", "inited")  # what EnCodec's moving average keeps of a codebook


class QuantizedCodec(Codec):
    """A codec whose latents can be coded as integers.

    The codebooks are fitted or loaded, never trained: EnCodec's moving average replaces every code that is
    chosen less than twice a batch, and in small batches that is each of them; a tenth of the entries were in
    use. So its state is neither saved nor loaded.

    Args:
        sampling_rate, seanet, normalize: as in `Codec`.
        n_q, bins: codebooks, and entries in each.
    """

    _keys_to_ignore_on_load_unexpected = [rf"_codebook\.({'|'.join(AVERAGE)})$"]

    @register_to_config
    def __init__(
        self,
        sampling_rate: int,
        seanet: dict,
        n_q: int = 16,
        bins: int = 1024,
        normalize: bool = True,
    ):
        super().__init__(sampling_rate=sampling_rate, seanet=seanet, normalize=normalize)
        self.quantizer = ResidualVectorQuantizer(self.dimension, n_q, bins, kmeans_init=False)
        for layer in self.quantizer.vq.layers:
            for name in AVERAGE:
                layer._codebook.register_buffer(name, layer._codebook.get_buffer(name), persistent=False)

    def quantize(self, latents: torch.Tensor, n_q: int | None = None) -> torch.Tensor:
        """Normalised latents -> integer codes (batch, n_q, F) of the first `n_q` codebooks (None: all)."""
        return self.quantizer.vq.encode(self.normalization.inverse(latents), n_q=n_q).transpose(0, 1)

    def dequantize(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (batch, n_q, F) -> normalised latents (batch, dimension, F)."""
        return self.normalization(self.quantizer.decode(codes.transpose(0, 1)))

    @torch.no_grad()
    def fit_quantizer(self, waves) -> None:
        """Learn the codebooks from an iterable of waves (batch, channels, T): each by k-means on what those
        before it leave of the latents.

        Raises InputError for fewer latent frames than a codebook has entries.
        """
        from sklearn.cluster import MiniBatchKMeans  # a second to import

        latents = [self._raw(wave).transpose(1, 2).flatten(0, 1).cpu() for wave in waves]
        residual = torch.cat(latents).numpy()
        bins = self.config.bins
        if len(residual) < bins:
            raise InputError(f"{len(residual)} latent frames cannot fill {bins} codes; give more audio.")
        for layer in tqdm(self.quantizer.vq.layers, desc="fit codebooks", unit="codebook", disable=None):
            means = MiniBatchKMeans(
                bins, init="random", batch_size=4096, max_iter=10, n_init=1, random_state=0
            )
            nearest = means.fit_predict(residual)
            residual = residual - means.cluster_centers_[nearest]
            layer._codebook.embed.copy_(torch.from_numpy(means.cluster_centers_))
