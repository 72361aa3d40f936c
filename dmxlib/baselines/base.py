"""What the trained baselines share: settings, saved folder, training step, separation in chunks."""

import inspect
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin

from dmxlib.config import setting, take
from dmxlib.data import PairsConfig, VocalPairs, training_pairs
from dmxlib.errors import InputError
from dmxlib.reproduce import seeded_generator
from dmxlib.streaming import Separator, check_target
from dmxlib.training.loop import TrainerConfig
from dmxlib.weights import Saved, find

PREVIEW_STEPS = 20  # of the separation plotted during training


@dataclass
class BaselineConfig(PairsConfig, TrainerConfig):
    """The loop's settings and the data's. A system adds its model's arguments, under the same names. They
    do not count where `pretrained_model_name_or_path` names weights to go on from."""

    system: str = setting("", "what is trained")
    pretrained_model_name_or_path: str | None = setting(
        None, "saved system to go on from, with its own sizes; none: random weights"
    )
    validation_pairs: int = setting(16, "pairs of validation")


class Baseline(Separator, Saved, ModelMixin, ConfigMixin):
    """A separator that works on chunks of one length: the excerpts it was trained on, or several of them.

    Its config holds sampling_rate in Hz, channels, chunk_samples and the target, the stem that it is trained
    to take out; a system adds `loss` and `extract`.
    """

    num_inference_steps = 1  # iterations for a chunk, where the caller names no other number
    excerpts_a_chunk = 1  # of the training's length; a longer chunk has fewer edges, where little is heard

    def __init__(self):
        super().__init__()
        check_target(self.config.target)  # set before a system's own __init__

    def loss(self, vocals, accompaniment, generator) -> torch.Tensor:
        """The loss of excerpts (batch, channels, samples), with all noise from `generator`."""
        raise NotImplementedError

    def extract(self, mixture, steps, generator) -> torch.Tensor:
        """The vocals of mixtures (batch, channels, samples of a chunk), in the same shape.

        Args:
            steps, generator: of an iterative system, the generator on the mixture's device; the others take
                no notice.
        """
        raise NotImplementedError

    def initialize(self, vocals, accompaniment) -> None:
        """Set what is initialised from data, given the first training batch's waves."""

    @classmethod
    def takes(cls, config: dict) -> bool:
        """Whether a saved config is of this system: it holds its arguments, and no others."""
        wanted = inspect.signature(cls).parameters
        given = {key for key in config if not key.startswith("_")}
        required = {key for key, argument in wanted.items() if argument.default is argument.empty}
        return required <= given <= wanted.keys()

    @classmethod
    def from_pretrained(cls, folder, **kwargs):
        """Load a folder that `save_pretrained` or a training run wrote, ready to separate.

        Raises InputError where it is none, its weights are pickled, or they are another system's.
        """
        if not (Path(str(folder)) / cls.config_name).is_file():
            raise InputError(
                f"{folder} is no folder with {cls.config_name}; give the model/ of a training run, pickles "
                "are not opened."
            )
        if not cls.takes(cls.load_config(str(folder))):
            raise InputError(f"{folder} cannot be loaded by {cls.__module__}: its config is another's.")
        return super().from_pretrained(str(folder), **kwargs)

    @property
    def sampling_rate(self) -> int:
        """In Hz."""
        return self.config.sampling_rate

    @property
    def channels(self) -> int:
        """Audio channels."""
        return self.config.channels

    @property
    def chunk_samples(self) -> int:
        """Length of a chunk of a song."""
        return self.excerpts_a_chunk * self.config.chunk_samples

    @property
    def target(self) -> str:
        """What it takes out."""
        return self.config.target

    @torch.no_grad()
    def generate(self, mixture, num_inference_steps=None, generator=None) -> torch.Tensor:
        """`extract` with all noise from one number of a CPU generator (None: torch's global one)."""
        seed = torch.randint(2**62, (1,), generator=generator).item()
        noise = torch.Generator(mixture.device).manual_seed(seed)
        return self.extract(mixture, num_inference_steps or self.num_inference_steps, noise)


class TrainStep(torch.nn.Module):
    """A system with its loss on {"vocals", "mixture"} waves, for `dmxlib.training.loop.train`.

    Args:
        validation: a dataset of fixed pairs, as the training one's.
    """

    def __init__(self, model: Baseline, validation: torch.utils.data.Dataset):
        super().__init__()
        self.model = model
        self._validation = [validation[index] for index in range(len(validation))]

    def forward(self, batch, generator):
        """The system's loss of a batch of waves (batch, channels, chunk_samples)."""
        return self.model.loss(*sources(batch), generator)

    def validate(self):
        """Mean loss on the validation pairs with fixed noise; the first separated, its rate in Hz."""
        device = self.model.device
        pairs = [{key: wave[None].to(device) for key, wave in pair.items()} for pair in self._validation]
        losses = [self(pair, seeded_generator(1, number, device=device)) for number, pair in enumerate(pairs)]
        steps = min(self.model.num_inference_steps, PREVIEW_STEPS)
        waves = self.preview(pairs[0], steps, seeded_generator(0, device=device))
        waves = dict(zip(("true vocals", "separated vocals"), waves, strict=True))
        waves = {title: wave[0].cpu().numpy() for title, wave in waves.items()}
        return {"loss": torch.stack(losses).mean().item()}, waves, self.model.config.sampling_rate

    def preview(self, pair, steps, generator):
        """The true and the separated vocals of one pair, each (1, channels, chunk_samples)."""
        return pair["vocals"], self.model.extract(pair["mixture"], steps, generator)

    def save(self, folder):
        """Save the system."""
        self.model.save_pretrained(folder)


def sources(batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """{"vocals", "mixture"} -> (vocals, accompaniment)."""
    return batch["vocals"], batch["mixture"] - batch["vocals"]


def new_model(model_class: type[Baseline], config: BaselineConfig) -> Baseline:
    """A system of the config's size with random weights."""
    wanted = inspect.signature(model_class).parameters
    return model_class(**{name: value for name, value in vars(config).items() if name in wanted})


def make_model(model_class: type[Baseline], config: BaselineConfig) -> Baseline:
    """The system that the config names, whose sizes it takes over, or a new one of the config's size."""
    saved = config.pretrained_model_name_or_path
    if not saved:
        return new_model(model_class, config)
    model = model_class.from_pretrained(find(saved, "config.json") or saved)
    take(config, model.config)
    return model


def make_training(
    model_class: type[Baseline], config: BaselineConfig, device
) -> tuple[TrainStep, VocalPairs]:
    """What `dmxlib.training.loop.train` takes: a new or a saved system's step, and its training pairs."""
    model = make_model(model_class, config)
    rate = model.config.sampling_rate
    excerpt = (model.config.chunk_samples / rate, rate, model.config.channels)
    training, validation = training_pairs(config, *excerpt)
    if not config.pretrained_model_name_or_path:
        first = [training[index] for index in range(min(config.train_batch_size, len(training)))]
        model.initialize(*sources(torch.utils.data.default_collate(first)))
    return TrainStep(model.to(device), validation), training
