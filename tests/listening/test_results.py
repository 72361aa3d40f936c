"""What listeners send: checked, kept once, and read again from every form of the test."""

import json
import os

import pytest
from made_listening import DOCTORED, lms_lines, submission, write_lms, write_page_csv

from dmxlib.errors import InputError
from dmxlib.listening import __main__ as command
from dmxlib.listening import results

pytest_plugins = ["listening_fixtures"]


@pytest.mark.parametrize("name", DOCTORED)
def test_listening_doctored_ratings_are_refused(name, key, tmp_path):
    results.check(submission(key), key)
    with pytest.raises(InputError):
        results.check(DOCTORED[name](submission(key)), key)
    (tmp_path / "doctored.json").write_text(json.dumps(DOCTORED[name](submission(key))))
    sentence = "holds no complete ratings" if name == "another test" else "doctored.json: "
    with pytest.raises(InputError, match=sentence):
        results.read_results(tmp_path, key)


def test_listening_save_never_overwrites_and_survives_a_failure(key, tmp_path, monkeypatch):
    first, second = submission(key, 3), submission(key, 4)
    assert results.save(first, tmp_path) and results.save(first, tmp_path)
    assert not results.save(second, tmp_path)
    assert json.loads((tmp_path / f"{'0' * 32}.json").read_text()) == first
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        results.save(submission(key, listener="1" * 32), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{'0' * 32}.json"]


def test_listening_json_and_csv_say_the_same(key, tmp_path):
    grade = {name: 1 + number % 5 for number, name in enumerate(results.rated_samples(key))}
    document = submission(key, lambda sample, aspect: grade[sample])
    write_page_csv(document, tmp_path / "sent.csv")
    ratings, notes = results.read_results(tmp_path, key)
    assert not notes and len(ratings) == len(document["ratings"])
    assert all(row.rating == grade[row.sample] for row in ratings.itertuples())
    assert all(row.system == key["samples"][row.sample]["system"] for row in ratings.itertuples())
    results.save(document, tmp_path)
    both, notes = results.read_results(tmp_path, key)
    assert len(both) == len(ratings) and notes == ["12 ratings were sent more than once and count once."]


def test_listening_webmushra_results(key, tmp_path):
    anna, ben = lms_lines(key, "anna", 4, sends=2), list(lms_lines(key, "ben", 2, training=False))
    ben[0][-3] = " NA "
    nobody = list(lms_lines(key, " ", 3, ["artifacts"], training=False))
    other = [["somebody-elses-test", "cleo", "page1", " 3 ", "C1", 1]]
    write_lms(tmp_path / "listening" / "lms.csv", [*anna, *ben, *nobody, *other])
    ratings, notes = results.read_results(tmp_path, key)
    assert len(ratings[ratings.listener == "anna"]) == 12 and set(ratings.rating) == {2, 4}
    assert set(ratings["sample"]) == set(results.rated_samples(key))
    assert set(ratings[ratings.listener == "ben"].aspect) == set(key["aspects"][1:])
    said = " ".join(notes)
    assert '1 ratings are missing ("NA")' in said and "12 ratings were sent more than once" in said
    assert "ben rated 3 of 4 samples on intelligibility; that listener is left out there." in said
    assert "1 x a rating of another test." in said and "4 x a rating without participant_id." in said


def test_listening_webmushra_with_session_numbers_and_a_second_try(key, tmp_path):
    first, second = lms_lines(key, "anna", 5), lms_lines(key, "anna", 1)
    lines = [[*line[:2], "uuid", *line[2:]] for line in [*first, *second]]
    write_lms(tmp_path / "lms.csv", lines, ("session_test_id", "participant_id", "session_uuid"))
    ratings, notes = results.read_results(tmp_path, key)
    assert set(ratings.rating) == {5} and notes == [
        "12 ratings differ from an earlier one of the same listener; that counts."
    ]


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (lambda line: line[:-4] + ["item", " 9 ", *line[-2:]], "lms.csv: the rating '9' is not 1 to 5"),
        (lambda line: [*line[:-2], "C1", 1], "no sample 'C1'"),
        (lambda line: [line[0] + "x", *line[1:]], "no aspect 'intelligibilityx'"),
        (lambda line: line[:3], "a line has 3 fields"),
    ],
)
def test_listening_doctored_webmushra_results_are_refused(key, tmp_path, spoil, sentence):
    lines = list(lms_lines(key, "anna", 4))
    write_lms(tmp_path / "lms.csv", [spoil(lines[0]), *lines[1:]])
    with pytest.raises(InputError, match=sentence):
        results.read_results(tmp_path, key)


def test_listening_wrong_folders_are_one_sentence(package, key, tmp_path):
    for arguments, sentence in {
        ("analyse", "nowhere"): "nowhere is no folder",
        ("analyse", tmp_path): "key.json does not exist; name the test's key.json",
        ("analyse", tmp_path, "--key", package / "key.json"): "holds no complete ratings of the test",
        ("analyse", tmp_path, "--key", package / "page" / "test.json"): "is not the key",
        ("serve", tmp_path): "key.json does not exist",
        ("proxy", tmp_path): "key.json does not exist",
    }.items():
        with pytest.raises(SystemExit, match=f"^error: .*{sentence}"):
            command.main(list(map(str, arguments)))
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    for line in ("x,y,z", f"{key['id']},{'0' * 32},x,artifacts,{'9' * 5000}"):
        (tmp_path / "sent.csv").write_text(",".join(results.PAGE_COLUMNS) + f"\n{line}\n")
        with pytest.raises(InputError, match="sent.csv: a line is not"):
            results.read_results(tmp_path, key)
