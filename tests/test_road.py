"The whole road: seeds, runs that are stopped, real photos, and properties that must always hold"
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from snakeid.core import SnakeidError
from snakeid.data.splits import split_stratified
from snakeid.predict.vote import vote_majority, vote_mean
from snakeid.report.submission import write_submission

ROOT = Path(__file__).resolve().parents[1]

# ---- Seeds ----


def test_same_seed_same_model(trained, train, tmp_path):
    # A second training in the same process, after others have used up numbers of the global generators
    np.random.rand(7)
    assert train(tmp_path/'run', trained.images, trained.labels).status == 0
    for name in ('manifest.csv', 'predictions.csv', 'history.csv', 'bundle/model.safetensors'):
        assert (tmp_path/'run'/name).read_bytes() == (trained.run/name).read_bytes(), name


def test_other_seed_other_split(trained, train, tmp_path):
    assert train(tmp_path/'run', trained.images, trained.labels, '--seed', 1).status == 0
    one, two = (pd.read_csv(run/'manifest.csv').set_index('photo_id').split for run in (trained.run, tmp_path/'run'))
    assert set(one.index) == set(two.index) and (one != two.loc[one.index]).any()


# ---- Runs that end early ----


def stop(*args, **kwargs): raise KeyboardInterrupt


@pytest.mark.parametrize('where', ['data.scan.inspect_photo', 'train.callbacks.PrintProgress.after_epoch',
                                   'runs.fit_species', 'models.bundle.save', 'predict.batch.predict_views',
                                   'report.page.summarize_predictions'])
def test_interrupted_training(where, trained, train, call, tmp_path):
    run = tmp_path/'run'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f'snakeid.{where}', stop)
        done = train(run, trained.images, trained.labels)
    told = done.err.strip()
    assert done.status == 130 and told.startswith('snakeid: interrupted') and '\n' not in told
    assert not (run/'run.json').exists() and not (run/'report.html').exists()
    assert [p.name for p in run.rglob('.*')] == []
    assert call('report', run).status == 2
    # The same again, in the same folder: nothing of the first attempt is in the way or has an influence
    assert train(run, trained.images, trained.labels).status == 0
    assert (run/'predictions.csv').read_bytes() == (trained.run/'predictions.csv').read_bytes()


def test_interrupted_identify(trained, call, tmp_path, monkeypatch):
    (tmp_path/'table.csv').write_text('old')
    monkeypatch.setattr(pd.DataFrame, 'to_csv', stop)
    command = 'identify', trained.run, trained.images, '--out', tmp_path/'table.csv'
    assert call(*command).status == 130 and (tmp_path/'table.csv').read_text() == 'old'
    assert {p.name for p in tmp_path.iterdir()} <= {'table.csv', 'table.csv.parts'}
    monkeypatch.undo()                                   # the same command goes on, and leaves nothing but its table
    assert call(*command).status == 0 and [p.name for p in tmp_path.iterdir()] == ['table.csv']
    assert len(pd.read_csv(tmp_path/'table.csv')) == 36


# ---- Real photos ----


@pytest.fixture(scope='module')
def snakes14(real_data):
    from snakeid.data.tables import read_aicrowd
    folder = real_data/'snakes14'
    if not folder.is_dir(): pytest.skip("no snakes14 among the real photos")
    return read_aicrowd(folder/'train_labels.csv', folder/'images')


def test_real_snakes_are_read(snakes14):
    assert len(snakes14) == 1183 and snakes14.species.nunique() == 14 and (snakes14.flag == '').all()
    assert snakes14.photo_id.is_unique and snakes14.path.is_unique and all(Path(p).is_file() for p in snakes14.path)


def test_real_photos_are_sound(snakes14, real_data):
    from snakeid.data.clean import flag_unreadable
    samples = sorted((real_data/'imagenet_samples'/'images').glob('*'))
    more = pd.DataFrame(dict(photo_id=[p.name for p in samples], path=[str(p) for p in samples]))
    table = pd.concat([snakes14[['photo_id', 'path']], more])
    flagged = flag_unreadable(table)
    assert len(flagged) == len(snakes14) + len(samples) and list(flagged.flag[flagged.flag != '']) == []


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_real_snakes_are_split(snakes14, seed):
    split = split_stratified(snakes14, seed=seed)
    counts = split.groupby('species').split.value_counts().unstack()
    n = counts.sum(axis=1)
    for part, share in dict(train=.8, valid=.1, test=.1).items(): assert (counts[part] - share*n).abs().max() <= 1
    assert counts.sum().sum() == 1183 and counts.min().min() >= 1


def test_real_weights_know_snakes(real_data):
    import torch
    import torchvision
    from torchvision.transforms import v2
    from snakeid.data.photo import open_photo
    from snakeid.models.factory import load_weights
    file, folder = real_data/'weights'/'squeezenet1_0-imagenet.pth', real_data/'imagenet_samples'
    if not (file.is_file() and folder.is_dir()): pytest.skip("no SqueezeNet weights or samples among the real data")
    model = load_weights(torchvision.models.squeezenet1_0(), file).eval()
    labels = pd.read_csv(folder/'labels.csv').query("group == 'snake'")
    view = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True),
                       v2.Normalize([.485, .456, .406], [.229, .224, .225])])
    with torch.inference_mode():
        top = model(torch.stack([view(open_photo(folder/'images'/f)) for f in labels.filename])).topk(5).indices.numpy()
    # Found: 11 of 17 and 16 of 17; ImageNet's snakes have the class indices 52 to 68
    assert len(labels) == 17
    assert (top == labels.class_index.to_numpy()[:, None]).any(1).sum() >= 9
    assert ((top >= 52) & (top <= 68)).any(1).sum() >= 14


# ---- Always ----

# The same examples on every machine, and nothing written beside the tests
always = settings(max_examples=60, deadline=None, derandomize=True, database=None,
                  phases=(Phase.generate, Phase.shrink))


def make_manifest(counts, flagged=(), unlabelled=0):
    "A manifest with `counts` usable photos of each species, `flagged` ones besides, and some without a label"
    species = [s for s, n in enumerate(counts) for _ in range(n)] + [s for s, n in enumerate(flagged) for _ in range(n)]
    m = pd.DataFrame(dict(species=[f's{s:03d}' for s in species] + [None]*unlabelled, flag=''))
    m.loc[sum(counts):, 'flag'] = ['damaged']*sum(flagged) + ['no label']*unlabelled
    m.insert(0, 'photo_id', [f'{i:05d}' for i in range(len(m))])
    return m.assign(path=m.photo_id + '.jpg').sample(frac=1, random_state=0)


def count_parts(split):
    "Photos of each species in train, valid and test, of those that have a split"
    used = split[split.split.notna()]
    parts = used.groupby('species').split.value_counts().unstack(fill_value=0)
    return parts.reindex(columns=['train', 'valid', 'test'], fill_value=0)


counts = st.lists(st.integers(1, 40), min_size=1, max_size=12)
shares = st.tuples(st.floats(0, .95), st.floats(0, .95)).filter(lambda s: sum(s) < .99)
seeds = st.integers(0, 2**32)


@always
@given(counts, st.lists(st.integers(0, 3), max_size=12), st.integers(0, 3), shares, seeds)
def test_split_loses_and_repeats_nothing(counts, flagged, unlabelled, shares, seed):
    manifest = make_manifest(counts, flagged, unlabelled)
    split = split_stratified(manifest, valid_share=shares[0], test_share=shares[1], seed=seed)
    pd.testing.assert_frame_equal(split.drop(columns='split'), manifest.reset_index(drop=True), check_like=True)
    assert split.split.notna().sum() == sum(counts) and set(split.split.dropna()) <= {'train', 'valid', 'test'}
    assert (split.split.notna() == (split.flag == '')).all()
    assert (count_parts(split).train >= 1).all()
    # The same seed draws the same photos, in whatever order they come
    again = split_stratified(manifest.sort_values('photo_id'), valid_share=shares[0], test_share=shares[1], seed=seed)
    assert split.set_index('photo_id').split.sort_index().equals(again.set_index('photo_id').split.sort_index())


@always
@given(counts, seeds)
def test_split_gives_each_part_a_photo(counts, seed):
    parts = count_parts(split_stratified(make_manifest(counts), seed=seed))
    n = parts.sum(axis=1)
    assert (parts[n >= 3] >= 1).all(axis=None)
    assert (parts[n == 2][['train', 'test']] == 1).all(axis=None) and (parts[n == 1].train == 1).all()
    for part in ('valid', 'test'): assert ((parts[part] - .1*n).abs() <= 1).all()


@always
@given(counts, st.tuples(st.floats(.01, .6), st.floats(.01, .6)).filter(lambda s: sum(s) < .99), seeds)
def test_split_gives_each_part_a_photo_whatever_the_shares(counts, shares, seed):
    parts = count_parts(split_stratified(make_manifest(counts), valid_share=shares[0], test_share=shares[1], seed=seed))
    assert (parts[parts.sum(axis=1) >= 3] >= 1).all(axis=None)


@st.composite
def probabilities(draw):
    "Probabilities of some views, float32 [views,n,species], from even to sure"
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(2, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = draw(st.sampled_from([0., .1, 1., 5., 50.]))*rng.standard_normal(shape)
    if draw(st.booleans()): scores = scores.round()      # many ties
    p = np.exp(scores - scores.max(2, keepdims=True))
    return (p/p.sum(2, keepdims=True)).astype(np.float32)


@always
@given(probabilities(), st.randoms(use_true_random=False))
def test_vote(probs, random):
    views, n, species = probs.shape
    verdict, votes = vote_majority(probs), np.stack([np.bincount(c, minlength=species) for c in probs.argmax(2).T])
    rows = np.arange(n)
    mean = probs.mean(0)
    assert verdict.winner.shape == (n,) and (0 <= verdict.winner).all() and (verdict.winner < species).all()
    assert (0 < verdict.vote_share).all() and (verdict.vote_share <= 1).all()
    assert (votes[rows, verdict.winner] == votes.max(1)).all()
    np.testing.assert_allclose(verdict.vote_share, votes.max(1)/views)
    np.testing.assert_allclose(verdict.confidence, mean[rows, verdict.winner])
    np.testing.assert_allclose(verdict.probabilities.sum(1), 1, atol=1e-5)
    # Among those with the most votes, none has a higher mean
    assert (np.where(votes == votes.max(1, keepdims=True), mean, 0).max(1) <= verdict.confidence).all()
    # The order of the views does not matter, where the means do not tie
    order = list(range(views))
    random.shuffle(order)
    other = vote_majority(probs[order])
    assert ((other.winner == verdict.winner) | np.isclose(mean[rows, other.winner], mean[rows, verdict.winner])).all()
    if views == 1: assert (vote_mean(probs).winner == verdict.winner).all()


def check_submission(n, species, seed, **kwargs):
    "Write a submission of `n` photos, one of them unreadable, and check its rows"
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(species, .05), n).astype(np.float32)
    probs[0] = np.nan
    table = pd.DataFrame(probs, columns=[f'p:{i}' for i in range(species)]).assign(photo_id=[f'x{i}' for i in range(n)])
    with TemporaryDirectory() as folder: made = pd.read_csv(write_submission(table, Path(folder)/'s.csv', **kwargs))
    assert list(made.hashed_id) == list(table.photo_id) and list(made)[1:] == [str(i) for i in range(species)]
    values = made.drop(columns='hashed_id').to_numpy()
    assert (values >= 0).all() and (values.sum(1) < 1).all() and (values.sum(1) > 0).all()


@settings(always, max_examples=25)
@given(st.integers(2, 20), st.integers(2, 200), st.integers(0, 2**32))
def test_submission_sums_to_less_than_one(n, species, seed): check_submission(n, species, seed)


@pytest.mark.parametrize('species', [783, 1572, 20_000])
def test_submission_of_many_species(species): check_submission(4, species, 0)


def test_submission_with_few_digits():
    # Three decimals cannot hold 1,500 shares of an unreadable photo: refused, never rows of zeros or below zero
    try: check_submission(2, 1500, 0, digits=3)
    except SnakeidError as e: assert 'digits' in str(e)
