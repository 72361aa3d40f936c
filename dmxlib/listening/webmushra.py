"""A listening test for webMUSHRA (Schoeffler and others 2018): the same questions as on our own page."""

import shutil
from pathlib import Path

import yaml


def write_configs(configs: Path, test: dict, samples: Path) -> None:
    """Write what is copied over webMUSHRA's own configs/: one config an aspect, and the samples."""
    resources = configs / "resources" / test["id"]
    shutil.copytree(samples, resources)
    for number, aspect in enumerate(test["aspects"], 1):
        path = configs / f"{test['id']}_{number}_{aspect['name']}.yaml"
        path.write_text(yaml.safe_dump(config(test, aspect), sort_keys=False, allow_unicode=True, width=110))


def config(test: dict, aspect: dict) -> dict:
    """The pages that ask for one aspect, in webMUSHRA's words."""

    def source(name):
        return f"configs/resources/{test['id']}/{name}.wav"

    answers = [{"value": 5 - worse, "label": label} for worse, label in enumerate(aspect["labels"])]

    def page(item, title):
        mixture = f'<audio controls preload="auto" src="{source(item["reference"])}"></audio>'
        return {
            "type": "likert_multi_stimulus",
            "id": item["id"],
            "name": title,
            "content": f"<b>{aspect['question']}</b><br>{aspect['hint']}<br>The song itself: {mixture}",
            "mustRate": True,
            "mustPlayback": "ended",
            "stimuli": {name: source(name) for name in item["samples"]},
            "response": answers,
        }

    welcome = (
        "You hear songs, and several attempts to take the voice out of each. Please use headphones in a "
        "quiet room. Taking part is voluntary; you may stop whenever you like, and then nothing is kept."
    )
    loudness = "Set a volume at which you hear everything well, and leave it there."
    farewell = "One name or number, the same one for each part of the test, then send your ratings, once."
    return {
        "testname": f"Separated singing voices: {aspect['name']}",
        "testId": f"{test['id']}_{aspect['name']}",
        "bufferSize": 2048,
        "stopOnErrors": True,
        "showButtonPreviousPage": False,
        "remoteService": "service/write.php",
        "pages": [
            {"type": "generic", "id": "welcome", "name": "Welcome", "content": welcome},
            {"type": "volume", "id": "volume", "name": "Volume", "content": loudness, "defaultVolume": 0.5,
             "stimulus": source(test["training"]["reference"])},
            page(test["training"], "For practice"),
            ["random", *(page(item, "Please rate") for item in test["items"])],
            {"type": "finish", "name": "Thank you", "content": farewell, "showResults": False,
             "writeResults": True,
             "questionnaire": [{"type": "text", "label": "Participant", "name": "participant_id"}]},
        ],
    }  # fmt: skip
