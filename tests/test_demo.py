"""The demo and the report: the real commands with small numbers."""

import json

import pytest

from dmxlib import audio, demo, report, separate


def test_demo_separates_and_plots(tmp_path, monkeypatch, model_folder, toy_root, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(separate, "DEFAULT_MODEL", str(model_folder))
    demo.main([str(toy_root / "test" / "Toy Song 3"), "--start", "1"])
    folder = tmp_path / "separated" / "tiny" / "Toy Song 3"
    waves = {path.stem: audio.read(path)[0] for path in folder.glob("*.wav")}
    assert waves.keys() == {"mixture", "vocals", "no_vocals", "true_vocals"}
    assert {wave.shape for wave in waves.values()} == {(2, 5 * 44_100)}
    assert (folder / "spectrograms.png").stat().st_size > 10_000
    told = capsys.readouterr().out
    assert "spectrograms.png" in told and "separated/tiny/Toy Song 3" in told
    assert [path.name for path in tmp_path.iterdir()] == ["separated"]


def test_demo_of_a_folder_without_stems_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="mixture and vocals"):
        demo.main([str(tmp_path)])


@pytest.mark.parametrize("start", ["6", "-1", "nan", "inf"])
def test_demo_of_what_lies_outside_of_the_song_is_one_sentence(toy_root, start):
    with pytest.raises(SystemExit, match=f"^error: --start {float(start)} lies outside of .*Song 3.$"):
        demo.main([str(toy_root / "test" / "Toy Song 3"), f"--start={start}"])


def test_report_redraws_the_curves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "results/training/some_run"
    run.mkdir(parents=True)
    records = [{"step": 0, "validation_loss": 1.0}, {"step": 1, "loss": 0.9}, {"step": 2, "loss": 0.8}]
    (run / "log.jsonl").write_text("\n".join(map(json.dumps, records)))
    report.main()
    assert (run / "curve.png").stat().st_size > 5_000
    with pytest.raises(SystemExit, match="holds no log"):
        monkeypatch.chdir(run)
        report.main()
