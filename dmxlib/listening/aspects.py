"""What listeners are asked."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Aspect:
    """One question with five anchored answers, best first: they count 5 to 1."""

    name: str
    question: str
    hint: str
    labels: tuple[str, str, str, str, str]


# The answers of the last two are those of ITU-T P.835 (2003) for "background" and "speech signal", with the
# accompaniment for background and the voice for speech. P.835 has no scale of intelligibility: its wording is
# ours, and so are all questions and hints.
ASPECTS = (
    Aspect(
        "intelligibility",
        "How well can you understand the words?",
        "Attend only to the words, not to how the voice sounds or what else there is to hear.",
        ("Every word is clear", "Almost every word is clear", "About half of the words are clear",
         "A few words are clear", "No word is clear"),
    ),
    Aspect(
        "interference",
        "How noticeable are the other instruments?",
        "Attend only to what is left of the accompaniment: drums, bass, guitars, keys. It should be gone.",
        ("Not noticeable", "Slightly noticeable", "Noticeable but not intrusive", "Somewhat intrusive",
         "Very intrusive"),
    ),
    Aspect(
        "artifacts",
        "How distorted is the voice itself?",
        "Attend only to the voice: is it muffled, metallic, broken up, or otherwise not as in the song?",
        ("Not distorted", "Slightly distorted", "Somewhat distorted", "Fairly distorted", "Very distorted"),
    ),
)  # fmt: skip
