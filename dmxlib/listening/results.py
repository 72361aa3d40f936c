"""What one listener sent: checked, saved once and for all, and read again from every form of the test."""

import csv
import json
import os
import re
from pathlib import Path

import pandas

from dmxlib.errors import InputError
from dmxlib.reproduce import remove_parts_of_the_killed

PAGE_COLUMNS = ["test", "listener", "sample", "aspect", "rating"]  # of the CSV that our page offers
WEBMUSHRA_COLUMNS = ["trial_id", "stimuli_rating", "stimuli", "rating_time"]  # the last ones of its lms.csv
RATINGS = {"1": 1, "2": 2, "3": 3, "4": 4, "5": 5}  # as text


def read_json(path: Path) -> dict:
    """A JSON file's content. Raises InputError where there is none."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; name a folder that `python -m dmxlib.listening make` made.")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: it is not JSON.") from error


def read_key(path: Path) -> dict:
    """key.json of a test. Raises InputError where it is none."""
    key = read_json(path)
    if not isinstance(key, dict) or not {"id", "systems", "aspects", "samples"} <= key.keys():
        raise InputError(f"{path} is not the key of a listening test.")
    return key


def rated_samples(key: dict) -> dict[str, dict]:
    """The samples whose ratings count: all but those of the practice item."""
    return {name: sample for name, sample in key["samples"].items() if not sample["training"]}


def check(document, key: dict) -> None:
    """Raise InputError unless this is what the page sends: each sample rated 1 to 5 once on each aspect.

    {"test": id, "listener": 32 hexadecimal digits, "ratings": [{"sample", "aspect", "rating"}, ...]}
    """
    if not isinstance(document, dict) or document.keys() != {"test", "listener", "ratings"}:
        raise InputError("not the ratings of a listener.")
    if document["test"] != key["id"]:
        raise InputError("ratings of another test.")
    listener, ratings = document["listener"], document["ratings"]
    if not isinstance(listener, str) or not re.fullmatch("[0-9a-f]{32}", listener):
        raise InputError("the listener's number is not 32 hexadecimal digits.")
    entry = {"sample": str, "aspect": str, "rating": int}
    if not isinstance(ratings, list) or not all(
        isinstance(rating, dict) and {name: type(value) for name, value in rating.items()} == entry
        for rating in ratings
    ):
        raise InputError("a rating is not a sample, an aspect and a whole number.")
    if not all(rating["rating"] in RATINGS.values() for rating in ratings):
        raise InputError("a rating lies outside 1 to 5.")
    rated = sorted((rating["sample"], rating["aspect"]) for rating in ratings)
    if rated != sorted((sample, aspect) for sample in rated_samples(key) for aspect in key["aspects"]):
        raise InputError("not each sample is rated once on each aspect.")


def save(document: dict, folder: Path) -> bool:
    """Write FOLDER/<listener>.json; True once it is safe on the disk, False where that listener's differs.

    The same ratings again, after an answer that got lost, are as good as saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{document['listener']}.json"
    temporary = folder / f".{path.stem}.part{os.getpid()}"
    try:
        with open(temporary, "w") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # which, other than os.replace, never overwrites
        directory = os.open(folder, os.O_RDONLY)
        os.fsync(directory)  # the name too is safe
        os.close(directory)
    except FileExistsError:
        return json.loads(path.read_bytes()) == document
    finally:
        temporary.unlink(missing_ok=True)
    return True


def tidy(folder: Path) -> None:
    """Remove what a killed server left half saved; its listener got no answer and sends again."""
    for part in folder.glob(".*.part*"):
        remove_parts_of_the_killed(folder / part.stem[1:])


# -- reading -------------------------------------------------------------------------------------------------


def read_results(folder: Path, key: dict) -> tuple[pandas.DataFrame, list[str]]:
    """All ratings below a folder, and notes on what was dropped.

    Columns: listener, item, system, aspect, rating (1 to 5), sample.

    Reads the JSON files of `serve`, the CSV files that our page offers, and webMUSHRA's lms.csv. Dropped are
    ratings of other tests, "NA", repeated sends, and of a listener who left samples out the aspect where that
    happened. Practice does not count.

    Raises InputError where there is nothing to read, or a file is not what its form writes.
    """
    rows, notes = [], []
    for path in sorted(folder.rglob("*")):
        if path.suffix in READERS:
            try:
                rows += READERS[path.suffix](path, key, notes)
            except InputError as error:
                raise InputError(f"{path}: {str(error).removeprefix(f'{path} ')}") from error
    ratings = pandas.DataFrame(rows, columns=["listener", "sample", "aspect", "rating"])
    notes = [f"{count} x {note}" for note, count in pandas.Series(notes, dtype=str).value_counts().items()]

    def drop(which, why):
        if which.any():
            notes.append(f"{which.sum()} {why}")
        return ratings[~which]

    ratings = drop(ratings.rating.isna(), 'ratings are missing ("NA").')
    ratings = drop(ratings.duplicated(), "ratings were sent more than once and count once.")
    place = ["listener", "sample", "aspect"]
    ratings = drop(
        ratings.duplicated(place), "ratings differ from an earlier one of the same listener; that counts."
    )
    count = ratings.groupby(["listener", "aspect"]).rating.transform("size")
    incomplete = ratings[count < len(rated_samples(key))]
    for (listener, aspect), group in incomplete.groupby(["listener", "aspect"]):
        notes.append(
            f"{listener} rated {len(group)} of {len(rated_samples(key))} samples on {aspect}; "
            "that listener is left out there."
        )
    ratings = ratings.drop(incomplete.index)
    if ratings.empty:
        raise InputError(f"{folder} holds no complete ratings of the test {key['id']}.")
    for column in ("item", "system"):
        ratings[column] = [key["samples"][sample][column] for sample in ratings["sample"]]
    order = ["listener", "item", "system", "aspect", "rating", "sample"]
    return ratings[order].astype({"rating": int}).reset_index(drop=True), notes


def read_page_json(path: Path, key: dict, notes: list[str]) -> list[dict]:
    """The ratings of the one listener in a file of `serve`."""
    document = read_json(path)
    if isinstance(document, dict) and document.get("test", key["id"]) != key["id"]:
        notes.append("a listener's file of another test.")
        return []
    check(document, key)
    return [{"listener": document["listener"], **rating} for rating in document["ratings"]]


def read_csv(path: Path, key: dict, notes: list[str]) -> list[dict]:
    """The ratings in a CSV file, our page's or webMUSHRA's; other CSV files hold none."""
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (ValueError, csv.Error) as error:
        raise InputError("not a CSV file.") from error
    header = lines[0] if lines else []
    if header == PAGE_COLUMNS:
        return read_page_csv(lines[1:], key, notes)
    if header[-4:] == WEBMUSHRA_COLUMNS:
        return read_webmushra(header, lines[1:], key, notes)
    notes.append("a CSV file that holds no ratings.")
    return []


def read_page_csv(lines: list[list[str]], key: dict, notes: list[str]) -> list[dict]:
    """One listener or several, each as complete as the page makes it."""
    if any(len(line) != len(PAGE_COLUMNS) or line[-1] not in RATINGS for line in lines):
        raise InputError("a line is not a test, a listener, a sample, an aspect and a rating of 1 to 5.")
    rows = []
    for (test, listener), group in pandas.DataFrame(lines, columns=PAGE_COLUMNS).groupby(
        ["test", "listener"]
    ):
        if test != key["id"]:
            notes.append("a listener's file of another test.")
            continue
        ratings = group[["sample", "aspect", "rating"]].drop_duplicates().astype({"rating": int})
        check({"test": test, "listener": listener, "ratings": ratings.to_dict("records")}, key)
        rows += ratings.assign(listener=listener).to_dict("records")
    return rows


def read_webmushra(header, lines: list[list[str]], key: dict, notes: list[str]) -> list[dict]:
    """lms.csv: the test's id ends in the aspect, ratings are padded with blanks, " NA " is none.

    A listener who presses "send" again gets a second participant_id into each line: only the places from
    both ends can be trusted.
    """
    if "participant_id" not in header:
        raise InputError("it has no column participant_id; ask for it on the last page.")
    rows = []
    for line in lines:
        if len(line) < len(header):
            raise InputError(f"a line has {len(line)} fields, the header {len(header)}.")
        test, _, aspect = line[0].rpartition("_")
        listener, (_, rating, sample, _) = line[header.index("participant_id")].strip(), line[-4:]
        rating = rating.strip()
        if test != key["id"]:
            notes.append("a rating of another test.")
        elif not listener:
            notes.append("a rating without participant_id.")
        elif aspect not in key["aspects"] or sample not in key["samples"]:
            raise InputError(f"the test has no aspect {aspect!r} or no sample {sample!r}.")
        elif rating not in RATINGS and rating != "NA":
            raise InputError(f"the rating {rating!r} is not 1 to 5.")
        elif not key["samples"][sample]["training"]:
            value = RATINGS.get(rating)
            rows.append({"listener": listener, "sample": sample, "aspect": aspect, "rating": value})
    return rows


READERS = {".json": read_page_json, ".csv": read_csv}
