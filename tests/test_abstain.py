"Scores are what the textbooks say, bad arrays end in one sentence, and promises of thresholds and sets are kept"
import itertools
import json
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import betabinom
from sklearn.metrics import log_loss, roc_auc_score

from snakeid.core import SnakeidError, make_rng
from snakeid.predict.abstain import (Conformal, apply_temperature, choose_threshold, find_unknown, fit_conformal,
                                     fit_temperature, name_unknown, predict_sets, recover_scores, score_known)
from snakeid.scores import (check_probabilities, list_bins, list_risk_coverage, plot_reliability, plot_risk_coverage,
                            score_auroc, score_aurc, score_ece, score_nll, score_sets, score_snakeclef)

quiet = pytest.mark.filterwarnings('ignore::UserWarning')
# The same examples on every machine, and nothing written beside the tests
many = settings(max_examples=60, deadline=None, derandomize=True, database=None,
                phases=(Phase.generate, Phase.shrink))

shares = st.floats(.01, .99)
coarse = st.integers(0, 8).map(lambda k: k/8)           # so that there are ties


@st.composite
def cases(draw, most=40, species=6):
    "Scores [n,species] as small whole numbers, so that there are ties, and the truth"
    n, s = draw(st.integers(1, most)), draw(st.integers(2, species))
    scores = draw(st.lists(st.lists(st.integers(-4, 4), min_size=s, max_size=s), min_size=n, max_size=n))
    return np.array(scores, float), np.array(draw(st.lists(st.integers(0, s-1), min_size=n, max_size=n)))


def draw_scores(n, seed, species=8, sharpness=1.):
    "Scores whose softmax, at sharpness 1, is the chance of each species, and the truth"
    rng = make_rng(seed, 'test abstain')
    fair = rng.gamma(2, 2, (n, 1))*rng.normal(size=(n, species)) + np.log(np.arange(species, 0, -1))
    return sharpness*fair, (softmax(fair, 1).cumsum(1) < rng.random((n, 1))).sum(1).clip(max=species-1)


# ---- Bad input: one clear sentence ----

GOOD, TRUTH = np.full((12, 3), 1/3), np.arange(12) % 3
# What takes probabilities and truth
BOTH = {'score_nll': score_nll, 'fit_conformal': fit_conformal}
# What takes probabilities
ONE = {**{name: lambda p, f=f: f(p, TRUTH[:len(p)]) for name, f in BOTH.items()},
       'recover_scores': recover_scores, 'score_known': score_known, 'check_probabilities': check_probabilities,
       'predict_sets': lambda p: predict_sets(p, fit_conformal(GOOD, TRUTH))}
# What takes scores
RAW = {'fit_temperature': lambda z: fit_temperature(z, TRUTH[:len(z)]),
       'apply_temperature': lambda z: apply_temperature(z, 1),
       'energy': lambda z: score_known(z, 'energy'), 'score': lambda z: score_known(z, 'score')}


def spoilt(row, value):
    p = GOOD.copy()
    p[row, 0] = value
    return p


PROBS = {
    'NaN': (spoilt(3, np.nan), r'1 photos are missing or infinite \(rows 3\)'),
    'infinite': (spoilt(3, np.inf), r'missing or infinite'),
    'no photos': (np.empty((0, 3)), 'empty'),
    'no species': (np.empty((3, 0)), 'empty'),
    'one species': (np.ones((3, 1)), 'found one species'),
    'three axes': (np.ones((2, 3, 4))/4, r'\[2, 3, 4\]'),
    'text': (np.array([['a', 'b']]), 'must be numbers'),
    'ragged': ([[.5, .5], [1.]], 'rows of one length')}
SUMS = {
    'logits': (np.arange(36.).reshape(12, 3) - 9, 'apply a softmax first'),
    'sums of 2': (GOOD*2, 'sum to 1, found 2 in row 0'),
    'one bad row': (spoilt(5, 0), 'sum to 1, found 0.667 in row 5'),
    'negative': (np.tile([1.2, -.2], (12, 1)), 'must lie in 0 to 1')}


@quiet
@pytest.mark.parametrize('name', ONE)
@pytest.mark.parametrize('case', PROBS | SUMS)
def test_bad_probabilities(name, case):
    probs, says = (PROBS | SUMS)[case]
    with pytest.raises(SnakeidError, match=says): ONE[name](probs)


@pytest.mark.parametrize('case', ['NaN', 'infinite', 'no photos', 'one species', *SUMS])
@pytest.mark.parametrize('f', [score_ece, score_aurc, plot_risk_coverage])
def test_bad_probabilities_for_confidence(f, case):
    probs, says = (PROBS | SUMS)[case]
    with pytest.raises(SnakeidError, match=says): f(probs, np.ones(len(probs), bool))


@quiet
@pytest.mark.parametrize('name', RAW)
@pytest.mark.parametrize('case', PROBS)
def test_bad_scores(name, case):
    scores, says = PROBS[case]
    with pytest.raises(SnakeidError, match=says): RAW[name](scores)


@pytest.mark.parametrize('name', RAW)
def test_probabilities_are_no_scores(name):
    with pytest.raises(SnakeidError, match='recover_scores'): RAW[name](softmax(draw_scores(12, 1, 3)[0], 1))


@pytest.mark.parametrize('f', [*BOTH.values(), lambda p, t: fit_temperature(p*9, t), lambda p, t: score_sets(p > 0, t)])
@pytest.mark.parametrize('truth, says', [
    (TRUTH[:-1], r'12 in all, found shape \[11\]'), (TRUTH + 1, '0 to 2, found 3'), (TRUTH - 1, 'found -1'),
    (TRUTH.astype(float), 'look names up first'), (np.array(['asp']*12), 'look names up first'),
    (TRUTH[:, None], r'\[12, 1\]')])
def test_bad_truth(f, truth, says):
    with pytest.raises(SnakeidError, match=says): f(GOOD, truth)


@pytest.mark.parametrize('share', [0, 1, -.1, 1.5, 90, np.nan])
def test_bad_share(share):
    with pytest.raises(SnakeidError, match='coverage must lie between 0 and 1'): fit_conformal(GOOD, TRUTH, share)
    with pytest.raises(SnakeidError, match='keep must lie between 0 and 1'): choose_threshold(np.arange(50.), share)


@pytest.mark.parametrize('known, says', [
    ([], 'no photos'), ([[.5]], r'\[1, 1\]'), ([np.nan, 1], 'no finite score'), ([np.inf], 'no finite score'),
    (['a'], 'one number a photo'), (.5, 'one number a photo'), ([None, 1], 'one number a photo')])
def test_bad_known_scores(known, says):
    for f in (choose_threshold, lambda k: find_unknown(k, .5), lambda k: name_unknown(['asp'], k, .5)):
        with pytest.raises(SnakeidError, match=says): f(known)


@pytest.mark.parametrize('confidence, right, says', [
    ([], [], 'empty'), ([.5], [True, False], 'shapes'), ([1.5], [True], 'lie in 0 to 1'),
    ([-.1], [True], 'lie in 0 to 1'), ([np.nan], [True], 'missing'), ([.5, .5], [0, 2], 'True or False'),
    ([.5], ['asp'], 'True or False'), (.5, True, 'shapes')])
def test_bad_confidence(confidence, right, says):
    for f in (score_ece, list_bins, plot_reliability):
        with pytest.raises(SnakeidError, match=says): f(confidence, right)


@pytest.mark.parametrize('bad, says', [
    (dict(kind='x'), "'lac', 'aps' or 'raps'"), (dict(bounds={}), 'no bound for group all'),
    (dict(bounds=3), 'not the numbers'),
    (dict(bounds=dict(all='x')), 'not the numbers'), (dict(groups=None), 'not the numbers'),
    (dict(more=1), 'found .*more')])
def test_bad_json(bad, says):
    numbers = fit_conformal(GOOD, TRUTH).to_json()
    with pytest.raises(SnakeidError, match=says): Conformal.from_json(numbers | bad)
    with pytest.raises(SnakeidError, match='expected a dict'):
        Conformal.from_json({k: v for k, v in numbers.items() if k != 'coverage'})


@pytest.mark.parametrize('kind', [np.float16, np.float32, np.float64, 'table', 'read-only'])
def test_arrays_of_all_kinds(kind):
    scores, truth = draw_scores(300, 2, sharpness=2)
    probs = softmax(scores, 1)
    if kind == 'table': probs, truth = pd.DataFrame(probs), pd.Series(truth, index=range(300, 600))
    elif kind == 'read-only': probs.flags.writeable = truth.flags.writeable = False
    else: probs = probs.astype(kind)
    before = np.array(probs, copy=True)
    expected = fit_temperature(scores, np.asarray(truth))
    assert fit_temperature(recover_scores(probs), truth) == pytest.approx(expected, rel=.02)
    assert predict_sets(probs, fit_conformal(probs, truth, kind='raps')).shape == (300, 8)
    assert score_ece(probs, np.asarray(probs).argmax(1) == truth) < .5
    assert (np.asarray(probs) == before).all()


def test_no_torch():
    code = "import sys, snakeid.scores, snakeid.predict.abstain; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


# ---- Scores ----

@many
@given(st.lists(st.tuples(coarse, st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_ece_by_hand(photos, bins):
    confidence, right = map(np.array, zip(*photos))
    total = 0
    for b in range(bins):
        low, high = np.linspace(0, 1, bins+1)[b:b+2]
        here = [i for i, c in enumerate(confidence) if low < c <= high or b == 0 and c == 0]
        if here: total += abs(sum(right[here]) - sum(confidence[here]))
    assert score_ece(confidence, right, bins) == pytest.approx(total/len(photos), abs=1e-12)
    for equal in ('width', 'mass'):
        t = list_bins(confidence, right, bins, equal=equal)
        assert t.photos.sum() == len(photos) and t.photos.min() > 0 and len(t) <= bins
        assert (t.photos*t.accuracy).sum() == pytest.approx(right.sum())
        assert (t.photos*t.confidence).sum() == pytest.approx(confidence.sum())
        assert t.confidence.between(t.low - 1e-9, t.high + 1e-9).all()
        assert t.accuracy.between(t.accuracy_low - 1e-9, t.accuracy_high + 1e-9).all()


@many
@given(st.lists(coarse, min_size=1, max_size=40), st.lists(coarse, min_size=1, max_size=40))
def test_auroc_is_sklearns(known, unknown):
    expected = roc_auc_score([1]*len(known) + [0]*len(unknown), known + unknown)
    assert score_auroc(known, unknown) == pytest.approx(expected, abs=1e-12)
    assert score_auroc(known, unknown) + score_auroc(unknown, known) == pytest.approx(1)


@many
@given(cases())
def test_nll_is_sklearns(case):
    probs, truth = softmax(case[0], 1), case[1]
    assert score_nll(probs, truth) == pytest.approx(log_loss(truth, probs, labels=range(probs.shape[1])))


@many
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_aurc_is_the_mean_over_all_orders(photos):
    confidence, right = map(np.array, zip(*photos))
    found = [np.mean([1 - right[list(o[:k])].mean() for k in range(1, len(o)+1)])
             for o in itertools.permutations(range(len(photos))) if (np.diff(confidence[list(o)]) <= 0).all()]
    assert score_aurc(confidence, right) == pytest.approx(np.mean(found))
    curve = list_risk_coverage(confidence, right)
    for row in curve.itertuples():
        named = confidence >= row.threshold
        assert row.photos == named.sum() and row.risk == pytest.approx(1 - right[named].mean())


@many
@given(st.lists(st.tuples(st.sampled_from('abcd'), st.sampled_from('abcdx')), min_size=1, max_size=40))
def test_snakeclef_by_hand(photos):
    truth, predicted = zip(*photos)
    found = score_snakeclef(truth, predicted, ['a', 'b'])
    names, f1 = sorted({*truth, *predicted}), []
    for s in names:
        hits = sum(t == p == s for t, p in photos)
        f1.append(2*hits/(truth.count(s) + predicted.count(s)))
    assert found['f1'] == pytest.approx(100*sum(f1)/len(names))
    for part, true, named in (('hh', 'cd', 'cdx'), ('hv', 'cd', 'ab'), ('vh', 'ab', 'cdx'), ('vv', 'ab', 'ab')):
        of = [p for t, p in photos if t in true]
        wrong = [p for t, p in photos if t in true and p in named and t != p]
        assert found[part] == pytest.approx(100*len(wrong)/len(of) if of else np.nan, nan_ok=True)
    total = [found['f1'], *(100 - found[k] for k in ('hh', 'hv', 'vh', 'vv'))]
    assert found['track1'] == pytest.approx(np.dot(total, [1, 1, 2, 5, 2])/11, nan_ok=True)
    assert np.isnan(found['track1']) == (len({t in 'ab' for t in truth}) == 1)
    assert not found['track1'] < -1e-9 and not found['track1'] > 100 + 1e-9


def test_plots():
    probs, truth = softmax(draw_scores(50, 3)[0], 1), draw_scores(50, 3)[1]
    right = probs.argmax(1) == truth
    assert plot_reliability(probs, right, equal='mass')._repr_png_()[:4] == b'\x89PNG'
    assert plot_reliability([1., 1.], [True, True])._repr_png_()
    assert plot_risk_coverage({'a': probs, 'b': probs.max(1)}, right)._repr_png_()
    assert len(plot_risk_coverage([.5], [True]).axes) == 1


# ---- Temperature ----

@pytest.mark.parametrize('sharpness', [.3, 1, 4])
def test_temperature_has_the_least_nll(sharpness):
    scores, truth = draw_scores(400, 5, sharpness=sharpness)
    found = fit_temperature(scores, truth)
    least = minimize_scalar(lambda t: score_nll(softmax(scores/np.exp(t), 1), truth), bounds=(-3, 3), method='bounded',
                            options=dict(xatol=1e-9))
    assert found == pytest.approx(np.exp(least.x), rel=1e-3)
    assert found == pytest.approx(sharpness, rel=.25)
    assert fit_temperature(3*scores + 7, truth) == pytest.approx(3*found)
    raw, after = (softmax(scores/t, 1) for t in (1, found))
    if sharpness == 4: assert score_ece(after, after.argmax(1) == truth) < score_ece(raw, raw.argmax(1) == truth)/3


@many
@given(cases())
def test_temperature_stays_within_bounds(case):
    assume(case[0].min() < 0 or (case[0].sum(1) != 1).any())      # these would be probabilities
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        t = fit_temperature(*case)
    assert .05 <= t <= 20
    none = any('no temperature has the least NLL' in str(w.message) for w in told)
    best = score_nll(softmax(case[0]/(.05 if none else t), 1), case[1])
    for other in (.05, .3, 1, 3, 20): assert best <= score_nll(softmax(case[0]/other, 1), case[1]) + 1e-9


def test_separated_photos_warn():
    for n in (4, 40, 400):                               # as sure as n + 1 of n + 2 allow
        scores, truth = np.eye(4)[np.arange(n) % 4]*2, np.arange(n) % 4
        with pytest.warns(UserWarning, match=f'all of the {n} photos are named rightly.*fit on more photos'):
            t = fit_temperature(scores, truth)
        assert softmax(scores/t, 1).max(1) == pytest.approx((n + 1)/(n + 2))
    with pytest.warns(UserWarning, match=': 0.9 is taken'):
        assert fit_temperature(np.eye(4)*2, range(4), least=.9) == .9
    with pytest.warns(UserWarning, match='highest temperature, 20'):
        assert fit_temperature(np.eye(4)*2, [1, 2, 3, 0]) == 20
    with pytest.warns(UserWarning, match='equal scores'): assert fit_temperature(np.ones((4, 4)), range(4)) == 1


# ---- Thresholds ----

@quiet
@many
@given(st.lists(st.one_of(coarse, st.floats(-1e6, 1e6)), min_size=1, max_size=60), shares)
def test_threshold_keeps_at_least_the_share(known, keep):
    t = choose_threshold(known, keep)
    unknown = find_unknown(known, t)
    assert (~unknown).mean() >= keep
    higher = [k for k in known if k > t]                 # and no higher threshold promises as much for a new photo
    if higher: assert sum(k >= min(higher) for k in known) < keep*(len(known)+1)
    names = name_unknown(['asp']*len(known), known, t)
    assert ((names == 'unknown') == unknown).all()


@pytest.mark.parametrize('n, keep', [(19, .95), (40, .9), (9, .9)])
def test_threshold_keeps_new_photos(n, keep):
    draws = make_rng(6).normal(size=(4000, n+1))         # the last is new
    kept = np.mean([row[-1] >= choose_threshold(row[:-1], keep) for row in draws])
    k = int(np.ceil(keep*(n+1) - 1e-9))
    assert kept == pytest.approx(k/(n+1), abs=4*np.sqrt(keep*(1-keep)/4000)) and k/(n+1) >= keep - 1e-9


@pytest.mark.parametrize('n', [1, 18])
def test_too_few_for_a_threshold(n):
    with pytest.warns(UserWarning, match='takes 19'): assert choose_threshold(np.arange(n) + 5.) == 5


# ---- Sets ----

@quiet
@many
@given(cases(), shares, st.sampled_from(['lac', 'aps', 'raps']), st.booleans(), st.sampled_from(['pool', 'all']))
def test_sets(case, coverage, kind, grouped, small):
    probs, truth = softmax(case[0], 1), case[1]
    groups = ['even' if j % 2 == 0 else 'odd' for j in range(probs.shape[1])] if grouped else None
    fitted = fit_conformal(probs, truth, coverage, groups=groups, kind=kind, small=small)
    sets = predict_sets(probs, fitted)
    assert sets.any(1).all() and sets[np.arange(len(sets)), probs.argmax(1)].all()
    bare = predict_sets(probs, fitted, never_empty=False)
    assert (sets >= bare).all() and (sets.sum(1) - bare.sum(1)).max() <= 1
    inside = bare[np.arange(len(truth)), truth]
    for g in set(fitted.groups):                         # the photos it was fitted on are within their bounds
        here = np.array(fitted.groups)[truth] == g
        assert fitted.photos[g] == here.sum()
        if here.any(): assert inside[here].mean() >= fitted.promised[g]
    if kind == 'aps': assert (bare == sets).all()        # nothing is more probable than the first, so it is always in
    if small == 'all': assert set(fitted.promised.values()) == {coverage}
    assert bool(fitted.notes) == any(n < coverage/(1-coverage) - 1e-9 for n in fitted.photos.values())
    again = Conformal.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    assert again == fitted and (predict_sets(probs, again) == sets).all()


@quiet
@many
@given(cases(), shares, shares, st.sampled_from(['lac', 'aps', 'raps']))
def test_more_coverage_never_takes_a_species_away(case, a, b, kind):
    probs, truth = softmax(case[0], 1), case[1]
    less, more = (predict_sets(probs, fit_conformal(probs, truth, c, kind=kind)) for c in sorted((a, b)))
    assert (more >= less).all()


@pytest.mark.parametrize('kind', ['lac', 'aps', 'raps'])
@pytest.mark.parametrize('sharpness', [1, 3])
def test_coverage_over_many_draws(kind, sharpness):
    "The sets hold the truth as often as promised, also where the probabilities are far too sure"
    scores, truth = draw_scores(150*150, 7, sharpness=sharpness)
    probs, truth = softmax(scores, 1).reshape(150, 150, 8), truth.reshape(150, 150)
    hits = []
    for p, t in zip(probs, truth):                       # 49 to fit on, 101 new ones
        sets = predict_sets(p[49:], fit_conformal(p[:49], t[:49], .8, kind=kind), never_empty=False)
        hits.append(sets[np.arange(101), t[49:]].sum())
    low, high = betabinom.ppf([.0005, .9995], 101, 40, 10)       # the 40th of 49
    mean, se = np.mean(hits)/101, betabinom.std(101, 40, 10)/101/np.sqrt(150)
    assert mean >= .8 - 4*se and np.mean(np.array(hits) >= low) >= .98
    if kind == 'lac': assert mean <= .8 + 4*se and np.mean(np.array(hits) <= high) >= .98


@quiet
def test_groups_get_what_they_are_promised():
    "The rare group has its own coverage; with too few photos it has n/(n+1)"
    groups = ['common']*4 + ['rare']*4
    scores, truth = draw_scores(300*60, 8, sharpness=2)
    probs, truth = softmax(scores, 1).reshape(300, 60, 8), truth.reshape(300, 60)
    rows = []
    for p, t in zip(probs, truth):
        rare = np.flatnonzero(t[:40] > 3)
        for least in (3, 9):                             # only so many photos of rare species to fit on
            if len(rare) < least: continue
            here = np.sort(np.r_[np.flatnonzero(t[:40] <= 3), rare[:least]])
            fitted = fit_conformal(p[here], t[here], .9, groups=groups)
            inside = predict_sets(p[40:], fitted, never_empty=False)[np.arange(20), t[40:]]
            assert fitted.promised['rare'] == (.75 if least == 3 else .9)
            rows += [dict(least=least, group=groups[j], inside=i) for j, i in zip(t[40:], inside)]
    table = pd.DataFrame(rows).groupby(['least', 'group']).inside.agg(['mean', 'size'])
    assert table['size'].min() > 500
    assert table['mean'][3, 'rare'] >= .75 and table['mean'][9, 'rare'] == pytest.approx(.9, abs=.02)
    assert table['mean'][3, 'common'] >= .885 and table['mean'][9, 'common'] >= .885


def test_strangeness_by_hand():
    "Ten photos whose truth comes second, so that the first species' probability is the bound of APS"
    probs, truth = np.tile([.5, .3, .15, .05], (10, 1)), [1]*10
    bounds = {kind: fit_conformal(probs, truth, kind=kind, penalty=.1, free=1).bounds['all']
              for kind in ('lac', 'aps', 'raps')}
    assert bounds == pytest.approx(dict(lac=.7, aps=.5, raps=.6))
    new = np.array([[.4, .3, .2, .1], [.1, .2, .3, .4], [.9, .1, 0, 0]])
    fitted = {kind: Conformal(kind, .9, ('all',)*4, dict(all=.75), dict(all=.9), dict(all=10), .2, 2)
              for kind in bounds}
    sets = {kind: predict_sets(new, f, never_empty=False).astype(int).tolist() for kind, f in fitted.items()}
    assert sets['lac'] == [[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]]
    assert sets['aps'] == [[1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0]]     # 0.4 + 0.3 before the third
    assert sets['raps'] == [[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]]    # and 0.2 for being third


def test_a_small_group_is_not_narrower_than_its_own_photos():
    probs = np.array([[.9, .05, .05]]*60 + [[.6, .3, .1]]*4)     # all but four are not strange
    with pytest.warns(UserWarning, match='promises 80%, not 90%'):
        fitted = fit_conformal(probs, [0]*60 + [2]*4, groups=['a', 'a', 'rare'])
    assert fitted.bounds == pytest.approx(dict(a=.1, rare=.9)) and fitted.promised == dict(a=.9, rare=.8)


def test_sets_of_a_good_network_are_single():
    "APS: where the network is right more often than asked, one species is enough"
    probs = np.eye(3)[np.arange(60) % 3]*.7 + .1
    for kind in ('lac', 'aps', 'raps'):
        fitted = fit_conformal(probs, np.arange(60) % 3, .9, kind=kind)
        assert (predict_sets(probs, fitted).sum(1) == 1).all()


def test_species_never_seen_have_a_note():
    with pytest.warns(UserWarning, match="group 'rare' has 0 photos and needs 9.*promises 0%"):
        fitted = fit_conformal(np.tile([.6, .3, .1], (30, 1)), [0]*30, groups=['a', 'a', 'rare'])
    assert fitted.promised == dict(a=.9, rare=0) and fitted.bounds['rare'] == fitted.bounds['a']
    with pytest.warns(UserWarning, match='in every set'):
        assert predict_sets(GOOD, fit_conformal(GOOD[:3], TRUTH[:3])).all()
