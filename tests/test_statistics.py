"""Intervals and comparisons: scipy on the same samples, cases by hand, coverage in simulations."""

import numpy as np
import pytest
from scipy import special, stats

from pcbench.results import statistics
from pcbench.results.statistics import holm, interval, iqm, paired_difference, stratified
from pcbench.results.student import quantile, tail


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize("count", [2, 3, 5, 19])
def test_below_twenty_seeds_the_interval_is_students(random, count):
    values = random.normal(3, 2, count)
    expected = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert interval(values) == pytest.approx(expected, rel=1e-12)


def test_from_twenty_seeds_on_it_is_a_bootstrap(random):
    """Of skewed values it is skewed. Between scipy's plain percentiles of the same sample and
    wider by the two corrections, √(n/(n-1)) and t over z, to the noise of the resamples."""
    values = random.exponential(size=40)
    low, high = interval(values)
    plain = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20000, rng=random, axis=-1
    ).confidence_interval
    mean, wider = values.mean(), (40 / 39) ** 0.5 * stats.t.ppf(0.975, 39) / stats.norm.ppf(0.975)
    assert high - mean > mean - low
    assert (high - low) / (plain.high - plain.low) == pytest.approx(wider, rel=0.03)


@pytest.mark.parametrize("count", [19, 25])
def test_the_order_of_the_values_is_nothing(random, count):
    values = random.normal(size=count)
    shuffled = random.permutation(values)
    assert interval(shuffled) == interval(values) and iqm(shuffled) == iqm(values)


def test_degenerate_samples():
    assert interval([0.5]) == (None, None)
    assert interval([0.5] * 3) == (0.5, 0.5)
    assert interval([0.5] * 30) == (0.5, 0.5)


@pytest.mark.parametrize("count", [2, 5, 20])
def test_intervals_cover_what_they_say(random, count):
    """95 ± 1 %, of 3,000 samples: the standard error of the share is 0.4 %."""
    low, high = np.array([interval(v) for v in random.normal(size=(3000, count))]).T
    assert np.mean((low <= 0) & (high >= 0)) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9, 20])
def test_iqm_is_the_trimmed_mean(random, count):
    values = random.normal(size=count)
    assert iqm(values) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-12)


def test_iqm_by_hand():
    assert iqm([100.0, 1.0, 3.0, 2.0, -50.0]) == 2.0


def test_of_seeds_alone_the_paired_difference_is_the_paired_t_test(random):
    a, b = random.normal(size=(2, 7))
    found, oracle = paired_difference(a, b), stats.ttest_rel(a, b)
    assert found.mean == pytest.approx((a - b).mean()) and found.p == pytest.approx(oracle.pvalue)
    assert found[1:3] == pytest.approx(tuple(oracle.confidence_interval(0.95)))
    assert (found.seeds, found.examples) == (7, None)


def test_a_paired_difference_by_hand():
    """d = [[1, 0], [0, 0]]: the seeds' means ½ and 0 have variance ⅛, over two seeds 1/16; so have
    the examples'; d - row - column + mean is ±¼, so the interaction is (4/16)/(2·2·1·1) = 1/16,
    and Var D = 1/16 + 1/16 - 1/16, all of it of the seeds: one degree of freedom."""
    found = paired_difference(np.array([[1, 0], [0, 0]]), np.zeros((2, 2)))
    half = 12.7062047362 / 4
    assert found[:3] == pytest.approx((0.25, 0.25 - half, 0.25 + half))
    assert found.p == pytest.approx(0.5)  # t = 1 with one degree of freedom


def test_its_variance_is_that_of_resampling_with_the_interaction_once(random):
    """20,000 explicit resamples of rows, of columns, and of both: V_rows·S/(S-1) + V_columns -
    V_interaction·S/(S-1), where the last is what both vary by beyond the sum of the two. N is
    large; 4 %: the noise of the resamples."""
    seeds, examples = 6, 400
    d = random.normal(size=(seeds, 1)) / 20 + random.normal(size=examples)
    d = d + 0.8 * random.normal(size=(seeds, examples))
    rows = random.multinomial(seeds, [1 / seeds] * seeds, 20000) / seeds
    columns = random.multinomial(examples, [1 / examples] * examples, 20000) / examples
    of_rows, of_columns = rows @ d.mean(1), columns @ d.mean(0)
    both = np.sum(rows * (columns @ d.T), 1) - of_rows - of_columns
    more = seeds / (seeds - 1)
    expected = more * of_rows.var() + of_columns.var() - more * both.var()
    found = paired_difference(d, np.zeros_like(d))
    by_seed = d.mean(1).var(ddof=1) / seeds
    freedom = (seeds - 1) * (expected / by_seed) ** 2
    half = stats.t.ppf(0.975, freedom) * expected**0.5
    assert found.high - found.mean == pytest.approx(half, rel=0.04)


@pytest.mark.parametrize(
    ("seeds", "deviations"),
    [(5, (0.0, 0.0, 1.0)), (5, (0.1, 0.5, 0.5)), (5, (0.0, 1.0, 0.3)), (20, (0.1, 1.0, 1.0))],
)
def test_paired_differences_cover_what_they_say(random, seeds, deviations):
    """95 ± 1 %, of samples of seeds and examples, whatever varies most: seeds, examples or single
    answers; half a per cent more for the noise of 2,000 samples."""
    hits = 0
    for _ in range(2000):
        of_seed, of_example, rest = (
            s * random.normal(size=shape)
            for s, shape in zip(deviations, [(seeds, 1), 200, (seeds, 200)], strict=True)
        )
        d = of_seed + of_example + rest
        found = paired_difference(d, np.zeros_like(d))
        hits += found.low <= 0 <= found.high
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def test_the_interval_and_the_p_value_say_the_same(random):
    for seeds in (4, 25):
        for shift in np.linspace(0, 0.3, 13):
            d = shift + 0.3 * random.normal(size=(seeds, 50))
            found = paired_difference(d, np.zeros_like(d))
            edge = min(abs(found.low), abs(found.high)) < 0.1 * (found.high - found.low)
            # an edge is known to the noise of the resamples, and of their tails on Φ(±t)
            assert edge or (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_paired_differences_of_degenerate_samples():
    ones = np.ones((3, 8))
    assert paired_difference(ones, ones)[:4] == (0, 0, 0, 1)
    assert paired_difference(ones, 0 * ones)[:4] == (1, 1, 1, 0)
    assert paired_difference(ones[:1], 0 * ones[:1])[:4] == (1, None, None, None)
    columns = np.tile([1.0, 0.0, 0.0, 0.0], (3, 1))  # the seeds agree, the examples do not
    found = paired_difference(columns, 0 * columns)
    assert found.low < 0.25 < found.high and found.p == pytest.approx(2 * stats.norm.sf(1))


def test_swapping_two_rules_turns_the_sign(random):
    for seeds in (5, 25):
        a, b = random.random((2, seeds, 30)) < 0.7
        there, back = paired_difference(a, b), paired_difference(b, a)
        assert there.mean == pytest.approx(-back.mean)
        width = there.high - there.low  # bootstrap tails are mirrored to the noise of resamples
        assert there.low == pytest.approx(-back.high, abs=1e-9 if seeds < 20 else 0.05 * width)


def test_holm_by_hand():
    """Ordered .005, .01, .03, .04 times 4, 3, 2, 1: .02, .03, .06, .04, then never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.7, 0.9]) == [1.0, 1.0]


def test_strata_are_resampled_apart(random):
    """Datasets far apart do not widen the interval; with as many values each, of one stratum it
    is the bootstrap of the interquartile mean."""
    near, far = random.normal(size=8) / 10, 100 + random.normal(size=8) / 10
    mean, (low, high) = stratified({"a": near, "b": far})
    assert mean == iqm([*near, *far]) and high - low < 1
    assert stratified({"a": [0.5], "b": [0.7, 0.8]})[1] == (None, None)
    assert stratified({"a": [1.0] * 3, "b": [1.0] * 4}) == (1.0, (1.0, 1.0))
    assert stratified({"b": far, "a": near}) == stratified({"a": near, "b": far})


def test_resamples_are_the_same_in_every_process():
    counts = statistics._counts(37)
    statistics._counts.cache_clear()
    assert np.array_equal(counts, statistics._counts(37)) and np.all(counts.sum(1) == 37)


@pytest.mark.parametrize("freedom", [1, 1.3, 2, 4, 18.7, 300, 1e5])
def test_students_t_is_scipys(freedom):
    assert quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-11)
    for t in (0, 1e-3, 0.5, 2, 30):
        assert tail(t, freedom) == pytest.approx(special.stdtr(freedom, -t), rel=1e-10, abs=1e-300)


def test_students_t_of_many_degrees_of_freedom_is_normal():
    for freedom in (1e8, np.inf):
        assert quantile(freedom) == pytest.approx(special.ndtri(0.975), rel=1e-12)
        assert tail(2.0, freedom) == pytest.approx(special.ndtr(-2.0), rel=1e-12)
