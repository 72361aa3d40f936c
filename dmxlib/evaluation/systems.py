"""Every system of the tables, one row each: its name, its title and how to build it.

Nothing is loaded before it is asked for. A new system is one more line of ROWS, or of dmxlib/baselines.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from dmxlib import baselines, weights
from dmxlib.data import Track
from dmxlib.ensemble import Ensemble, load_separator
from dmxlib.errors import InputError
from dmxlib.evaluation import references
from dmxlib.evaluation.references import Separator
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.refine import wiener


@dataclass(frozen=True)
class System:
    """A separator with its number of parameters and of sampling steps, where it has any, and the frequency in
    Hz up to which it gives a voice. An iterative one's `separate` takes another number as `steps`.

    Where its vocals of a track are made of other systems', `parts` are their names, and `combine(track,
    *vocals)` makes them.
    """

    separate: Separator
    parameters: int | None = None
    steps: int | None = None
    bandwidth: float = math.inf
    parts: tuple[str, ...] = ()
    combine: Callable[..., np.ndarray] | None = None


@dataclass(frozen=True)
class Options:
    """What a system is made with; one that has no use for a value ignores it.

    Args:
        model: the weights, in place of those that ship with the system: what LDM-dmx's `from_pretrained`
            takes, or the model folder of another system's training run.
        steps: of sampling; None is each iterative system's own number.
        seed: of all noise; every track starts from it.
        training: songs to learn a fixed filter from.
        device: what networks compute on.
    """

    model: str | None = None
    steps: int | None = None
    seed: int = 0
    training: tuple[Track, ...] = ()
    device: str | torch.device = "cpu"


def make_system(label: str, options: Options) -> System:
    """Load a system by its name in `SYSTEMS`, or NAME@STEPS; InputError where there is none."""
    row, steps = find_row(label)
    return row.build(replace(options, steps=steps) if steps else options)


def of_one_model(systems: dict[str, System], models: dict[str, str | None]) -> dict[str, System]:
    """The systems; one whose parts have another model than its own is not made of them."""

    def strange(name, system):
        return any(models.get(part, models[name]) != models[name] for part in system.parts)

    return {
        name: replace(system, parts=()) if strange(name, system) else system
        for name, system in systems.items()
    }


def find_row(label: str) -> tuple["Row", int | None]:
    """What stands in `SYSTEMS` under NAME, and the steps of NAME@STEPS; InputError for anything else."""
    name, at, steps = label.partition("@")
    if name not in SYSTEMS or (at and not (steps.isdecimal() and int(steps))):
        raise InputError(f"system {label} is unknown; choose from {', '.join(SYSTEMS)}, or NAME@STEPS.")
    return SYSTEMS[name], int(steps) if at else None


def full_title(label: str, steps: int | None) -> str:
    """A system's title in the tables, with its number of sampling steps where it has any."""
    row, _ = find_row(label)
    parts = [row.title]
    if steps and row.samples:
        parts.append("1 step (the mean)" if steps == 1 else f"{steps} steps (sampled)")
    elif steps:
        parts.append(f"{steps} steps")
    return ", ".join(parts) + (" ◇" if row.sees_vocals else "")


def choose_models(labels: list[str], given: list[str]) -> dict[str, str | None]:
    """The model of each system, from values PATH (of all) and NAME=PATH (of one, and of it refined).

    Raises InputError where a NAME is none of the systems.
    """
    named, shared = {}, None
    for value in given:
        name, sign, path = value.partition("=")
        if sign and name in SYSTEMS:
            named[name] = path
        else:
            shared = value
    names = {label: label.partition("@")[0] for label in labels}
    raw = {label: name.removesuffix("-refined") for label, name in names.items()}
    if lost := sorted(named.keys() - {*names.values(), *raw.values()}):
        raise InputError(f"--model names {', '.join(lost)}, which is not among the systems to score.")
    return {label: named.get(names[label], named.get(raw[label], shared)) for label in labels}


def trained(separator, networks, options: Options, refine=None, iterative=True, **more) -> System:
    """A separator with the options' steps and seed.

    Args:
        networks: whose parameters count.
        refine: as the separator takes it.
        iterative: whether it has steps.
    """
    own_steps = (options.steps or separator.num_inference_steps) if iterative else None

    def separate(track, steps=own_steps):
        generator = torch.Generator().manual_seed(options.seed)
        settings = dict(num_inference_steps=steps, generator=generator, refine=refine)
        return separator(track.mixture(), track.rate, **settings).vocals

    parameters = sum(network.num_parameters() for network in networks)
    bandwidth = math.inf if refine else separator.sampling_rate / 2
    return System(separate, parameters, own_steps, bandwidth, **more)


def latent_diffusion(options: Options, refine: str | None = None) -> System:
    """The pipeline, raw or refined."""
    pipeline = load_pipeline(options)
    return trained(pipeline, (pipeline.unet, pipeline.conditioner), options, refine)


def recipe(name: str, options: Options, refine: str | None = None) -> System:
    """LDM-dmx by one of the two recipes that are held side by side; neither's weights ship.

    Raises InputError where no model is given.
    """
    if not options.model:
        raise InputError(
            f"{name} does not ship; train it as dmxlib/configs/README.md says and give --model {name}=FOLDER."
        )
    return latent_diffusion(options, refine)


def load_pipeline(options: Options) -> VocalSeparationPipeline:
    """The model, quiet, on its device."""
    pipeline = VocalSeparationPipeline.from_pretrained(options.model or SHIPPED).to(options.device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def codec_ceiling(options: Options) -> System:
    """The true vocals through the codec (sees the target): what is lost before anything is generated."""
    pipeline = load_pipeline(options)
    separate = partial(references.through_codec, pipeline)
    return System(separate, pipeline.codec.num_parameters(), bandwidth=pipeline.sampling_rate / 2)


def baseline(name: str, options: Options) -> System:
    """One of the paper's other systems, of the options' model or as it ships: dmxlib/pretrained/<name>-mini.

    Raises InputError where neither is there.
    """
    shipped = f"{name}-mini"
    folder = weights.find(options.model or shipped, "config.json") or options.model
    if not folder:
        raise InputError(
            f"{name} has no trained weights, {weights.FOLDER / shipped} is missing; train it (accelerate "
            f"launch dmxlib/train.py --config dmxlib/configs/mini_{name}.yaml) and copy its model there."
        )
    model = baselines.load(name).from_pretrained(folder).to(options.device)
    return trained(model, (model,), options, iterative=model.num_inference_steps > 1)


def guided(options: Options) -> System:
    """The pipeline with a guide, refined. Raises InputError where the model is no `Ensemble`."""
    name = options.model or "ldm-dmx-guided-mini"
    system = load_separator(name).to(options.device)
    if not isinstance(system, Ensemble):
        raise InputError(f"{name} has no guide; give a folder with ensemble.json.")

    def combine(track, vocals, guide):
        return system.finish(track.mixture(), system.mix(vocals, guide), track.rate)

    return trained(
        system,
        (system.separator.unet, system.separator.conditioner, system.guide),
        options,
        refine="wiener",
        parts=() if options.model or options.steps else ("ldm-dmx-refined", "bsrnn"),
        combine=combine,
    )


def refined(name: str, options: Options) -> System:
    """Another system with LDM-dmx's refinement."""
    raw = make_system(name, options)

    def refine(track, vocals):
        return wiener(track.mixture(), vocals, track.rate, raw.bandwidth)

    def separate(track, **settings):
        return refine(track, raw.separate(track, **settings))

    own = f"{name}@{options.steps}" if options.steps else name
    return System(separate, raw.parameters, raw.steps, parts=(own,), combine=refine)


SHIPPED = "ldm-dmx-mini"


@dataclass(frozen=True)
class Row:
    """A system: its name and title, how to build it, and what to know of it.

    Args:
        generative: whether it models the voice's distribution.
        samples: whether its steps sample from that; one step then gives the mean.
        sees_vocals: whether it is given the true vocals.
    """

    name: str
    title: str
    build: Callable[[Options], System]
    generative: bool = False
    samples: bool = False
    sees_vocals: bool = False


def reference(separate: Separator) -> Callable[[Options], System]:
    """How to build what has no weights."""
    return lambda options: System(separate)


def baselines_that_are(generative: bool) -> Iterator[Row]:
    """Their rows; of a generative one another, refined."""
    for name, known in baselines.SYSTEMS.items():
        if known.generative == generative:
            kind = {"generative": generative, "samples": known.samples}
            yield Row(name, known.title, partial(baseline, name), **kind)
            if generative:
                yield Row(f"{name}-refined", f"{known.title}, refined", partial(refined, name), **kind)


SAMPLED = {"generative": True, "samples": True}

# To be trained for equally long, at mini size.
RECIPES = {
    "ldm-dmx-paper": "LDM-dmx by the paper's recipe",
    "ldm-dmx-plus": "LDM-dmx (our recipe), trained as long",
}

# In the tables' order: what the others are compared with, two oracles, the paper's systems in its order.
ROWS = (
    Row("mixture", "mixture", reference(references.identity)),
    Row("best-gain", "mixture at its best gain", reference(references.best_gain), sees_vocals=True),
    Row("equalizer", "fixed equaliser", lambda options: System(references.equalizer(options.training))),
    Row("repet", "REPET-SIM at its best gain", reference(references.repet), sees_vocals=True),
    Row("codec-ceiling", "true vocals through the codec", codec_ceiling, sees_vocals=True),
    Row("irm", "IRM", reference(references.ideal_ratio_mask), sees_vocals=True),
    *baselines_that_are(generative=True),
    Row("ldm-dmx", "LDM-dmx (our recipe)", latent_diffusion, **SAMPLED),
    Row(
        "ldm-dmx-refined",
        "LDM-dmx (our recipe), refined",
        partial(latent_diffusion, refine="wiener"),
        **SAMPLED,
    ),
    *(
        Row(name + ending, title + more, partial(recipe, name, refine=refine), **SAMPLED)
        for name, title in RECIPES.items()
        for ending, more, refine in (("", "", None), ("-refined", ", refined", "wiener"))
    ),
    Row("ldm-dmx-guided", "LDM-dmx with BS-RNN as its guide, refined", guided, **SAMPLED),
    *baselines_that_are(generative=False),
)
SYSTEMS = {row.name: row for row in ROWS}
