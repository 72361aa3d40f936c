"""What MSDM has learned of its sources: `python -m dmxlib.studies.prior msdm-mini --data_root FOLDER...`.

At each noise level the training's loss of three denoisers, of excerpts that somebody sings in: the network;
none (`nothing`: EDM's F is 0); and a Wiener filter by the mean spectrum of each source (`spectrum`, taken of
these excerpts). `width` is what of `nothing` no training can take away, because the network's first level has
fewer channels than what it denoises has numbers in a frame. Then what each denoiser separates, as prior in
the sampler.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from dmxlib.baselines import load
from dmxlib.baselines.msdm import SIGMA_DATA
from dmxlib.data import VocalPairs, load_tracks
from dmxlib.errors import exit_on_input_error
from dmxlib.metrics import si_sdr
from dmxlib.plots import lines
from dmxlib.reproduce import facts, together
from dmxlib.weights import find

SIGMAS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SMOOTH = 257  # bins of the mean spectrum


def excerpts(data_root, model, count: int) -> torch.Tensor:
    """Test songs' sources, (count, 2, chunk_samples)."""
    rate = model.sampling_rate
    settings = {"channels": 1, "seed": 0, "augmentations": ()}
    pairs = VocalPairs(load_tracks(data_root, "test"), count, model.chunk_samples / rate, rate, **settings)
    pairs = torch.utils.data.default_collate([pairs[index] for index in range(count)])
    return torch.cat([pairs["vocals"], pairs["mixture"] - pairs["vocals"]], dim=1)


def spectrum(sources) -> torch.Tensor:
    """The sources' mean power at the bins of `rfft`, (2, bins); white noise of deviation s has s^2."""
    power = torch.fft.rfft(sources).abs().square().mean(dim=0) / sources.shape[-1]
    return F.avg_pool1d(power, SMOOTH, stride=1, padding=SMOOTH // 2, count_include_pad=False)


def denoisers(model, power) -> dict:
    """Functions of (sources, sigma), as `MSDM.denoise` is."""

    def nothing(sources, sigma):
        return SIGMA_DATA**2 / (sigma[:, None, None] ** 2 + SIGMA_DATA**2) * sources

    def stationary(sources, sigma):
        gain = power / (power + sigma[:, None, None] ** 2)
        return torch.fft.irfft(gain * torch.fft.rfft(sources), n=sources.shape[-1])

    return {"network": model.denoise, "nothing": nothing, "spectrum": stationary}


def left_by_width(sources, sigma: float, patch: int, width: int) -> float:
    """Mean square that any denoiser leaves whose F has `width` dimensions in a frame of 2 * patch numbers.

    At each frequency of the frames the patch folds as many of the sources' frequencies into one; of these
    modes, which a stationary source has apart, the least important are given up.
    """
    skip = SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)
    power = torch.fft.fft(sources).abs().square().mean(dim=0) / sources.shape[-1]
    error = (1 - skip) ** 2 * power + skip**2 * sigma**2  # of `nothing`
    modes = error.unflatten(1, (patch, -1)).flatten(0, 1).sort(dim=0).values  # (2 patch, frames)
    return (modes[: max(0, 2 * patch - width)].sum() / error.numel()).item()


@torch.no_grad()
def losses(model, sources) -> pd.DataFrame:
    """A row for each noise level."""
    generator, rows = torch.Generator().manual_seed(0), []
    for sigma in SIGMAS:
        weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
        noisy = sources + sigma * torch.randn(sources.shape, generator=generator)
        row = {"sigma": sigma}
        for name, denoise in denoisers(model, spectrum(sources)).items():
            error = denoise(noisy, torch.full((len(sources),), sigma)) - sources
            row[name] = weight * error.square().mean().item()
        width = model.config.level_channels[0]
        row["width"] = weight * left_by_width(sources, sigma, model.config.patch, width)
        rows.append(row)
    return pd.DataFrame(rows)


@torch.no_grad()
def separations(model, sources, steps: int) -> dict:
    """Median SI-SDR in dB of the mixture and of what each prior samples."""
    mixture, results = sources.sum(dim=1, keepdim=True), {}
    separated = {"mixture": mixture}
    for name, denoise in denoisers(model, spectrum(sources)).items():
        model.denoise = denoise
        separated[name] = model.extract(mixture, steps, torch.Generator().manual_seed(0))
    del model.denoise  # the class's own again
    for name, waves in separated.items():
        scores = [si_sdr(*pair) for pair in zip(sources[:, :1].numpy(), waves.numpy(), strict=True)]
        results[name] = float(np.median(scores))
    return results


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m dmxlib.studies.prior", description=__doc__)
    parser.add_argument("model", help="a name or folder of a trained MSDM")
    parser.add_argument("--data_root", nargs="+", required=True, help="prepared data sets; test songs")
    parser.add_argument("--excerpts", type=int, default=8, help="of each data set")
    parser.add_argument("--steps", type=int, default=10, help="of the sampler")
    parser.add_argument("--output_dir", default="results/prior", help="folder to write to")
    options = parser.parse_args(argv)
    model = load("msdm").from_pretrained(find(options.model, "config.json") or options.model)
    folder, tables, scores = Path(options.output_dir), [], []
    for root in options.data_root:
        sources = excerpts(root, model, options.excerpts)
        about = {"model": Path(options.model).name, "data": Path(root).name}
        tables.append(losses(model, sources).assign(**about))
        scores.append(about | {"steps": options.steps} | separations(model, sources, options.steps))
    table = pd.concat(tables)
    mean = table.groupby("sigma").mean(numeric_only=True)
    curves = {name: (mean.index, mean[name]) for name in mean}
    with together(folder) as part:
        table.round(4).to_csv(part / "prior.csv", index=False)
        pd.DataFrame(scores).round(2).to_csv(part / "prior_si_sdr.csv", index=False)
        (part / "run.json").write_text(json.dumps(facts(), indent=2) + "\n")
        lines(curves, "sigma", "loss", xscale="log", yscale="log").savefig(part / "prior.png", dpi=110)
    print(table.to_string(index=False), pd.DataFrame(scores).to_string(index=False), sep="\n")


if __name__ == "__main__":
    main()
