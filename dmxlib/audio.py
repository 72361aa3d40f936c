"""Read, write, resample and overlap-add audio: arrays are float32 `(channels, samples)` in [-1, 1]."""

import contextlib
import errno
import math
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from dmxlib.errors import InputError
from dmxlib.reproduce import whole

EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".aif", ".wma", ".mp4")
LEAST_RATE = 1000  # in Hz: less is no sound, and no STFT has a window for it
SILENCE_DBFS = -60.0  # RMS below which nobody sings
OVERLAP = 0.2  # share of a chunk that is cross-faded with the next: the paper's


@contextlib.contextmanager
def open_audio(path, track: int = 1) -> Iterator[sf.SoundFile]:
    """Open any audio file for reading; ffmpeg first decodes what soundfile does not know to a temporary file.

    More than two channels are mixed down by ffmpeg's standard matrix, with a warning, where the file says
    which loudspeakers they are for.

    Args:
        track: which of the audio tracks of a video, from 1.

    Raises InputError for a file that is missing, empty, without a sample or that track, not audio, or a wav
    that is longer than its header can say.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file; check the path.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is an empty file; export or download it again.")
    with contextlib.ExitStack() as stack:

        def decode(*options):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            decoded = _decode(path, Path(folder) / "decoded.wav", track, options)
            return stack.enter_context(_soundfile(decoded, path))

        file = None
        with contextlib.suppress(sf.LibsndfileError):
            file = stack.enter_context(_soundfile(path, path))
        if file is not None and file.format.startswith("WAV"):  # RF64 and W64 have longer numbers
            width = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "DOUBLE": 8}.get(file.subtype, 4)
            if path.stat().st_size - width * file.channels * file.frames > 2**31:
                raise InputError(
                    f"{path} is longer than a wav's header can say, 4 GB; export it as flac or RF64."
                )
        if file is None or track != 1 or not _says_its_length(file, path):
            file = decode()
        if file.channels > 2 and (layout := _layout(path, track)):
            with contextlib.suppress(InputError):  # a layout that there is no matrix for
                file = decode("-ac", "2", "-rematrix_maxval", "1")
                warnings.warn(f"its channels, {layout}, are mixed down to two.", stacklevel=3)
        if file.samplerate < LEAST_RATE:
            raise InputError(
                f"{path} has {file.samplerate} samples a second; export it again with {LEAST_RATE} or more."
            )
        if file.frames == 0:
            raise InputError(f"{path} holds no audio frames; export or download it again.")
        yield file


def _soundfile(path: Path, name: Path, *settings) -> sf.SoundFile:
    """soundfile's own, whatever letters the locale knows; errors about its samples name the file `name`."""
    file = sf.SoundFile(os.fsencode(path), *settings)
    file._name = str(name)
    return file


def _says_its_length(file: sf.SoundFile, path: Path) -> bool:
    """Whether the number of samples is no guess: a stream's header was written before its end was known."""
    if file.format != "MP3":
        return file.frames < 2**62
    with open(path, "rb") as raw:
        head = raw.read(10)
        if head.startswith(b"ID3"):
            raw.seek(10 + sum(byte << 7 * place for place, byte in enumerate(head[:5:-1])))
        else:
            raw.seek(0)
        frame = raw.read(2048)
    return any(tag in frame for tag in (b"Xing", b"Info", b"VBRI"))


def _layout(path: Path, track: int) -> str:
    """The loudspeakers that a track's channels are for, such as "5.1"; "" where that is not known."""
    if shutil.which("ffprobe") is None:
        return ""
    command = ["ffprobe", "-v", "error", "-select_streams", f"a:{track - 1}"]
    command += ["-show_entries", "stream=channel_layout", "-of", "default=nk=1:nw=1", str(path)]
    layout = subprocess.run(command, capture_output=True, text=True, errors="replace").stdout.split("\n")[0]
    return "" if "unknown" in layout else layout


def _decode(path: Path, destination: Path, track: int, options: tuple) -> Path:
    if shutil.which("ffmpeg") is None:
        raise InputError(f"{path} cannot be read by soundfile and ffmpeg is not installed; install ffmpeg.")
    # 32-bit float keeps what a lossy decoder puts above full scale; RF64 has no 4-GiB limit, and w64, which
    # has none either, comes out as noise: libsndfile takes ffmpeg's floats there for integers. Without
    # -xerror half a file is decoded without a word.
    command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-i", str(path), "-map", f"0:a:{track - 1}"]
    command += ["-c:a", "pcm_f32le", *options, "-rf64", "auto", "-y", str(destination)]
    done = subprocess.run(command, capture_output=True)
    if b"matches no streams" in done.stderr and track != 1:
        raise InputError(f"{path} has no audio track {track}; choose an earlier one.")
    if any(os.strerror(code).encode() in done.stderr for code in (errno.ENOSPC, errno.EDQUOT)):
        raise InputError(
            f"{path} cannot be decoded (no space left in {destination.parent}); set TMPDIR to another folder."
        )
    if done.returncode or not destination.exists():
        raise InputError(
            f"{path} is damaged, or not audio that soundfile or ffmpeg reads; convert it to wav."
        )
    return destination


def read(path, start: int = 0, samples: int = -1) -> tuple[np.ndarray, int]:
    """Read `samples` samples from sample `start` (-1: to the end) as stereo: ((2, samples), rate in Hz).

    Fewer where the file ends, none where it ends before `start`.

    Raises InputError as `open_audio` and `read_blocks` do.
    """
    with open_audio(path) as file:
        left = max(0, file.frames - start)
        file.seek(file.frames - left)
        count = left if samples < 0 else min(samples, left)
        return next(read_blocks(file, count, count), np.empty((2, 0), np.float32)), file.samplerate


def read_blocks(file: sf.SoundFile, size: int, samples: int = -1) -> Iterator[np.ndarray]:
    """Read on from the file's position in stereo blocks of `size` samples, the last one shorter.

    Raises InputError where the file ends before its header says so, or holds a sample that is not a number.
    """
    remaining = file.frames - file.tell() if samples < 0 else samples
    while remaining > 0:
        count = min(size, remaining)
        try:
            block = file.read(count, dtype="float32", always_2d=True).T
        except sf.LibsndfileError:
            block = np.empty((file.channels, 0), np.float32)
        if block.shape[1] < count:
            raise InputError(f"{file.name} is truncated or damaged; export or download it again.")
        if not np.isfinite(block).all():
            raise InputError(f"{file.name} holds samples that are NaN or infinite; export it again.")
        if (peak := np.abs(block).max()) > 2**32:  # more than any integers taken for floats; squares overflow
            raise InputError(f"{file.name} holds a sample of {peak:.0e} times full scale; export it again.")
        remaining -= count
        yield stereo(block)


def stereo(audio: np.ndarray) -> np.ndarray:
    """(channels, samples) -> (2, samples): mono is doubled; of more channels the first two are taken."""
    if audio.shape[0] > 2:
        warnings.warn(f"{audio.shape[0]} channels: the first two are used, the others ignored.", stacklevel=2)
    return np.ascontiguousarray(np.repeat(audio, 2, axis=0) if audio.shape[0] == 1 else audio[:2])


def match_channels(audio: np.ndarray, channels: int) -> np.ndarray:
    """Stereo (2, samples) -> (channels, samples): one channel is the mid, their mean."""
    return audio.mean(axis=0, keepdims=True) if channels == 1 else audio


def resample(audio: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """(channels, samples) at `rate` -> (channels, ceil(samples * new_rate / rate)) at `new_rate`, by soxr."""
    if rate == new_rate:
        return audio
    resampled = np.ascontiguousarray(soxr.resample(audio.T, rate, new_rate).T, dtype=np.float32)
    return fit(resampled, math.ceil(audio.shape[1] * new_rate / rate))


def fit(audio: np.ndarray, samples: int) -> np.ndarray:
    """(channels, any) -> (channels, samples): cut, or padded with silence, at the end."""
    return np.pad(audio[:, :samples], ((0, 0), (0, max(0, samples - audio.shape[1]))))


def to_model(wave: np.ndarray, rate: int, model_rate: int, channels: int) -> np.ndarray:
    """A song's stereo (2, samples) at `rate` -> (channels, samples) at a model's rate."""
    return match_channels(resample(wave, rate, model_rate), channels)


def from_model(wave: np.ndarray, model_rate: int, rate: int, samples: int) -> np.ndarray:
    """What a model makes of it, (channels, any) at the model's rate -> the song's (2, samples) at `rate`."""
    return fit(resample(stereo(wave), model_rate, rate), samples)


def level_dbfs(wave: np.ndarray) -> float:
    """RMS of (channels, samples) in dB relative to full scale; silence is -inf."""
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.mean(np.square(wave, dtype=np.float64))))


@contextlib.contextmanager
def open_for_writing(path, rate: int, subtype: str | None = None, samples: int = 0) -> Iterator[sf.SoundFile]:
    """A stereo file whose format follows its ending; it gets its name only when all is written.

    `samples` are as many as there will be, where that is known: a full disk is told the size.

    Raises InputError where the folder or the format cannot be written, or the disk is full. An error of the
    body keeps its type.
    """
    try:
        with whole(path, 2 * samples * BITS.get(subtype or "PCM_16", 32) / 8) as part:
            try:
                file = _soundfile(part, path, "w", rate, 2, subtype)
            except ValueError as error:
                raise InputError(f"{path} cannot be written ({error}); choose another format.") from error
            except TypeError as error:
                raise InputError(f"{path} cannot be written: its ending names no format of audio.") from error
            with file:
                yield file
    except sf.LibsndfileError as error:
        raise InputError(
            f"{path} cannot be written ({error.error_string}); choose another folder or format."
        ) from error


BITS = {"PCM_16": 16, "PCM_24": 24}  # of a sample, by soundfile's subtype


def quantize(wave: np.ndarray, subtype: str) -> np.ndarray:
    """Clamp (2, samples) to full scale, with a warning, and round to what `subtype` holds; float stays."""
    if subtype == "FLOAT":
        return wave
    scale = 2.0 ** (BITS.get(subtype, 24) - 1)
    if np.abs(wave).max(initial=0) > 1:
        warnings.warn(
            "the output passes full scale and is clamped; 32-bit float wav would keep it.", stacklevel=2
        )
    return (np.clip(np.round(wave * scale), -scale, scale - 1) / scale).astype(np.float32)


def write_block(file: sf.SoundFile, wave: np.ndarray) -> None:
    """Append a (2, samples) block to an open file, quantized to its subtype."""
    wave = quantize(wave, file.subtype)
    if file.subtype in BITS:  # as integers: soundfile scales floats by 32767, but reads them back by 1/32768
        wave = (wave.astype(np.float64) * 2**31).astype(np.int32)
    file.write(wave.T)


def write(path, wave: np.ndarray, rate: int, subtype: str | None = None) -> None:
    """Write (2, samples) to wav, flac, ogg or mp3 by the path's ending; `subtype` is soundfile's."""
    with open_for_writing(path, rate, subtype) as file:
        write_block(file, wave)


def in_chunks(
    function: Callable[[Iterator[np.ndarray]], Iterable[np.ndarray]],
    blocks: Iterable[np.ndarray],
    length: int,
    overlap: float = OVERLAP,
) -> Iterator[np.ndarray]:
    """Long audio, once, for every model: a stream of blocks in overlapping chunks through a function, and
    cross-faded.

    Args:
        function: of the stream of chunks (channels, length), to a stream of as many parts of that length.
        blocks: (channels, any) each.
        overlap: share of a chunk that it is cross-faded over with the next, 0 to 0.5.

    The blocks that come out add up to what went in.
    """
    hop, went_in, came_out = length - int(length * overlap), 0, 0

    def counted():
        nonlocal went_in
        for block in blocks:
            went_in += block.shape[1]
            yield block

    for part in overlap_add(function(chunks(counted(), length, hop)), hop):
        part = part[:, : went_in - came_out]  # the last chunk is padded
        came_out += part.shape[1]
        yield part


def chunks(blocks: Iterable[np.ndarray], length: int, hop: int) -> Iterator[np.ndarray]:
    """Cut a stream of (channels, any) blocks into overlapping (channels, length) chunks, the last one padded.

    Chunk k starts at sample k * hop; as few chunks as cover the stream, and at least one.
    """
    held, covered = None, False
    for block in blocks:
        held = block if held is None else np.concatenate([held, block], axis=1)
        while held.shape[1] >= length:
            yield held[:, :length]
            held, covered = held[:, hop:], True
    # What is held now reaches length - hop samples back into the last chunk.
    if held is not None and not (covered and held.shape[1] <= length - hop):
        yield fit(held, length)


def overlap_add(parts: Iterable[np.ndarray], hop: int) -> Iterator[np.ndarray]:
    """Cross-fade a stream of (channels, length) chunks that start `hop` samples apart, block by block.

    The fades are linear over the overlap and sum to one, so unchanged chunks give back the signal they were
    cut from. Past the middle of a chunk a second overlap begins only for hop < length / 2: hop must be at
    least that.
    """
    tail = None
    for part in parts:
        overlap = part.shape[1] - hop
        if tail is not None and overlap:
            fade = (np.arange(overlap, dtype=np.float32) + 0.5) / overlap
            head = tail + fade * (part[:, :overlap] - tail)  # in this form exact where the two are equal
            part = np.concatenate([head, part[:, overlap:]], axis=1)
        yield part[:, :hop]
        tail = part[:, hop:]
    if tail is not None and tail.shape[1]:
        yield tail
