"""Mean opinion scores: intervals that cover, tests that find what is there and little else."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from made_listening import BANDS, lms_lines, simulate, submission, write_lms
from scipy import stats

from dmxlib.listening import __main__ as command
from dmxlib.listening import analyse, results

pytest_plugins = ["listening_fixtures"]

SYSTEMS = ("good", "fair", "poor")
PLAN = {  # a test of three systems and six items, without sounds
    "id": "listening-planned",
    "systems": list(SYSTEMS),
    "aspects": ["intelligibility", "artifacts"],
    "samples": {
        f"{system}{item}": {
            "system": system,
            "item": f"item{item}",
            "track": "song",
            "span": "",
            "training": item == 6,
        }
        for system in SYSTEMS
        for item in range(7)
    },
}


def expected_rating(quality, deviation):
    """The mean of a normal variable rounded to 1 to 5."""
    return 1 + sum(stats.norm.sf(step + 0.5, quality, deviation) for step in (1, 2, 3, 4))


def test_listening_coverage_of_the_interval(rng):
    """Over 4000 studies of 12 listeners the 95 % interval holds the truth 95 % of the time.

    One that takes each rating for an independent one does not.
    """
    studies, listeners, items = 4000, 12, 6
    offset = rng.normal(0, 0.6, (listeners, studies, 1))
    ratings = np.clip(np.round(3.2 + offset + rng.normal(0, 0.8, (listeners, studies, items))), 1, 5)
    truth = expected_rating(3.2, np.hypot(0.6, 0.8))

    def coverage(observations):
        mean, half = analyse.t_interval(observations)
        return np.mean(np.abs(mean - truth) <= half)

    assert 0.94 < coverage(ratings.mean(axis=2)) < 0.96
    assert coverage(ratings.transpose(0, 2, 1).reshape(-1, studies)) < 0.85


def test_listening_coverage_of_the_bootstrap(rng):
    """The percentile bootstrap covers somewhat less with few listeners: it only stands beside."""
    means = rng.normal(0, 1, (150, 20))
    intervals = np.array([analyse.bootstrap_interval(study) for study in means])
    covered = np.mean((intervals[:, 0] <= 0) & (0 <= intervals[:, 1]))
    assert 0.88 < covered < 0.97


def test_listening_interval_is_students(rng):
    values = rng.normal(3, 1, 9)
    mean, half = analyse.t_interval(values)
    low, high = stats.t.interval(0.95, 8, values.mean(), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert (
        np.isnan(analyse.t_interval(values[:1])[1]) and np.isnan(analyse.bootstrap_interval(values[:1])).all()
    )


def test_listening_analysis_finds_known_means(rng):
    quality = {"good": 4.2, "fair": 3.0, "poor": 2.4}
    ratings = simulate(PLAN, quality, 40, rng)
    assert len(ratings) == 40 * 2 * 3 * 6 and ratings.rating.between(1, 5).all()
    scores = analyse.opinion_scores(ratings, PLAN)
    assert list(scores.system) == list(SYSTEMS) * 2 and set(scores.listeners) == {40}
    for row in scores.itertuples():
        truth = expected_rating(quality[row.system], np.hypot(0.5, 0.8))
        assert abs(row.mos - truth) < 2 * row.half_width < 0.6
        assert row.bootstrap_low < row.mos < row.bootstrap_high
        assert row.bootstrap_high - row.bootstrap_low == pytest.approx(2 * row.half_width, rel=0.2)
    tests = analyse.comparisons(ratings, PLAN)
    assert len(tests) == 2 * (1 + 3) and (tests.p < 0.01).all()
    assert (tests.p_holm.dropna() >= tests.p[tests.p_holm.notna()]).all()


def test_listening_mean_is_over_listeners_of_their_means():
    """A listener counts once, whatever the others do."""
    rows = [("a", "i", "good", 5), ("a", "j", "good", 4), ("b", "i", "good", 1), ("b", "j", "good", 2)]
    ratings = pandas.DataFrame(rows, columns=["listener", "item", "system", "rating"]).assign(
        aspect="artifacts"
    )
    (row,) = analyse.opinion_scores(ratings, {**PLAN, "systems": ["good"]}).itertuples()
    assert row.mos == 3 and row.half_width == pytest.approx(stats.t.ppf(0.975, 1) * 1.5)


def test_listening_equal_systems_rarely_differ(rng):
    """Of 60 studies without any difference Holm lets about three find one."""
    key = {**PLAN, "aspects": ["artifacts"]}
    found = 0
    for _ in range(60):
        tests = analyse.comparisons(simulate(key, dict.fromkeys(SYSTEMS, 3.0), 14, rng), key)
        found += (tests.p_holm < 0.05).any()
    assert found <= 7


def test_listening_holm():
    assert analyse.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert analyse.holm(np.array([0.9, 0.8])).max() == 1
    assert analyse.wilcoxon(np.zeros(5)) == 1


def test_listening_agreement_is_one_for_one_opinion_and_names_the_odd_one_out(rng):
    ratings = simulate(PLAN, {"good": 5, "fair": 3, "poor": 1}, 6, rng, spread=0, noise=0)
    (kendall,) = set(analyse.agreement(ratings).kendall_w.round(6))
    assert kendall == 1
    odd = ratings.listener == "simulated-003"
    ratings.loc[odd, "rating"] = 6 - ratings.loc[odd, "rating"]
    fit = analyse.agreement(ratings)
    assert set(fit.least_listener) == {"simulated-003"} and fit.least_spearman.max() == pytest.approx(-1)
    assert (fit.kendall_w < 0.6).all()
    noise = analyse.agreement(simulate(PLAN, dict.fromkeys(SYSTEMS, 3), 6, rng, spread=0, noise=1.5))
    assert (noise.kendall_w < 0.5).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("listeners", [1, 2])
def test_listening_few_or_flat_listeners_end_in_a_table(listeners, tmp_path, rng):
    ratings = simulate(PLAN, dict.fromkeys(SYSTEMS, 3.0), listeners, rng, spread=0, noise=0)
    text = analyse.report(ratings, PLAN, [], tmp_path)
    assert "| good | 3.00 ±" in text and "Nothing." in text and "None." in text


def test_listening_analyse_writes_table_three(package, key, tmp_path, capsys):
    good = {name for name, sample in key["samples"].items() if sample["system"] == "broad"}
    for listener in range(4):
        document = submission(key, lambda sample, aspect: 5 if sample in good else 2, f"{listener:032x}")
        results.save(document, tmp_path / "results")
    write_lms(tmp_path / "results" / "webmushra" / "lms.csv", lms_lines(key, "anna", 4, ["artifacts"]))
    arguments = ["--key", package / "key.json", "--output_dir", tmp_path / "out"]
    command.main(list(map(str, ["analyse", tmp_path / "results", *arguments])))
    text = capsys.readouterr().out
    assert "| system | intelligibility | interference | artifacts |" in text and "5 listeners" in text
    assert "| broad | 5.00 ± 0.00 (5.00 to 5.00) |" in text and "4.80 ± 0.56" in text
    assert (tmp_path / "out" / "table3.md").read_text().strip() == text.strip()
    assert len(pandas.read_csv(tmp_path / "out" / "ratings.csv")) == 4 * 12 + 4
    assert (tmp_path / "out" / "mos.png").stat().st_size > 5000
    tests = pandas.read_csv(tmp_path / "out" / "comparisons.csv")
    assert list(tests.test) == ["Wilcoxon"] * 3  # two systems: Friedman's test wants three


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (["make", "", "out", "--data_root", "songs"], "ESTIMATES"),
        (["make", "estimates", "", "--data_root", "songs"], "OUT"),
        (["serve", ""], "OUT"),
        (["analyse", ""], "RESULTS"),
        (["analyse", "results", "--output_dir="], "--output_dir"),
    ],
)
def test_listening_takes_no_folder_without_a_name(call, name):
    with pytest.raises(SystemExit, match=f"^error: {name} is empty; name a folder"):
        command.main(call)


def test_listening_proxy_is_named_so(package, key, monkeypatch, capsys):
    def run(wave, rate):
        return {"sig_mos": 1 + len(wave) / rate, "bak_mos": 3.0, "ovrl_mos": 2.0, "p808_mos": 2.0}

    monkeypatch.setitem(sys.modules, "speechmos", SimpleNamespace(dnsmos=SimpleNamespace(run=run)))
    command.main(["proxy", str(package)])
    text = capsys.readouterr().out
    assert text.startswith("# Proxy, not listeners: DNSMOS") and "| broad | 2.20 | 3.00 |" in text
    scores = pandas.read_csv(package / "dnsmos.csv")
    assert len(scores) == 4 and set(scores.system) == set(BANDS)
