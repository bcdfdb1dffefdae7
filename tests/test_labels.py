"Photos that show several species: loaders, training, bundles, engines, streams and scores"
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.learner import load_learner

from snakeid.core import SnakeidError
from snakeid.data.balance import weigh_photos
from snakeid.data.labels import encode_labels
from snakeid.data.loaders import make_dataloaders
from snakeid.data.splits import split_stratified
from snakeid.data.tables import read_aicrowd
from snakeid.models.bundle import read_bundle, write_bundle
from snakeid.predict.batch import predict_photos
from snakeid.predict.cascade import Cascade, Gate, account_errors, predict_cascade, score_animals
from snakeid.predict.labels import score_labels
from snakeid.predict.sequences import judge_sequences
from snakeid.predict.stream import read_predictions, stream_predictions
from snakeid.train.fit import fit_species
from snakeid.train.learner import make_bundle, make_learner
from snakeid.train.recipes import RECIPES

SMALL = replace(RECIPES['several'], epochs=1, size=64, train_size=64, bs=8)


@pytest.fixture(scope='module')
def photos(tiny):
    "The tiny collection, every third photo with the next species as a second label, every seventh empty"
    photos = read_aicrowd(tiny.labels, tiny.images)
    names = sorted(photos.species.unique())
    second = photos.species.map(dict(zip(names, names[1:] + names[:1])))
    labels = photos.species.where(np.arange(len(photos)) % 3 > 0, photos.species + '; ' + second)
    empty = np.arange(len(photos)) % 7 == 3
    photos = photos.assign(species=photos.species.mask(empty, 'empty'), labels=labels.mask(empty, 'empty'))
    return weigh_photos(split_stratified(photos, seed=0), .5)


def fit(photos, recipe=SMALL, **kwargs):
    "A learner after training"
    dls = make_dataloaders(photos, **recipe.loading, device='cpu', several=True, need_valid=False)
    learn = make_learner(dls, recipe=recipe)
    with learn.no_bar(), learn.no_logging(): fitted = fit_species(learn, recipe, **kwargs)
    return learn, fitted


@pytest.fixture(scope='module')
def bundle(photos):
    "A network for several species"
    return make_bundle(fit(photos)[0], 64, seen='test')


def test_targets_are_the_labels(photos):
    dls = make_dataloaders(photos, size=64, several=True, device='cpu')
    assert list(dls.vocab) == sorted({s for cell in photos['labels'] for s in cell.split('; ')})
    for ds, split in ((dls.train_ds, 'train'), (dls.valid_ds, 'valid')):
        rows = photos[(photos.split == split) & (photos.flag == '')].reset_index(drop=True)
        wanted = encode_labels(rows, list(dls.vocab))[0]
        assert (np.stack([ds[i][1].numpy() for i in range(len(ds))]) == wanted).all()


@pytest.mark.parametrize('change', [
    dict(), dict(vary='by_frequency'), dict(mixup=.4), dict(frozen_epochs=1, cached_views=2), dict(warm_head=False),
    dict(label_smoothing=.1), dict(head_decay=.1, vary='none'), dict(hidden=(8,), warm_head=False),
])
def test_recipes_train(change, photos):
    learn, fitted = fit(photos, replace(SMALL, **change))
    assert np.isfinite(fitted.history.train_loss).all() and fitted.history.accuracy.between(0, 1).all()
    assert make_bundle(learn, 64).several


def test_other_losses_are_refused(photos):
    dls = make_dataloaders(photos, size=64, several=True, device='cpu')
    for name in ('modern', 'snake2019', 'wildcam2021'):
        with pytest.raises(SnakeidError, match="take the recipe 'several'"): make_learner(dls, recipe=RECIPES[name])


def test_a_broken_run_goes_on(photos, tmp_path):
    class Stop(Callback):
        def before_batch(self):
            if self.training and self.epoch == 1: raise KeyboardInterrupt
    recipe = replace(SMALL, epochs=2)
    whole, _ = fit(photos, recipe)
    with pytest.raises(KeyboardInterrupt): fit(photos, recipe, checkpoint=tmp_path/'c.pt', cbs=[Stop()])
    resumed, _ = fit(photos, recipe, checkpoint=tmp_path/'c.pt')
    both = zip(whole.model.state_dict().values(), resumed.model.state_dict().values())
    assert all(torch.equal(a, b) for a, b in both)


def test_bundle_keeps_what_it_is(bundle, photos, tmp_path):
    again = read_bundle(write_bundle(bundle, tmp_path/'b'))
    assert again.several and 'several of them' in repr(again)
    told = [predict_photos(b, photos[:8], probabilities=True) for b in (bundle, again)]
    pd.testing.assert_frame_equal(*told)


def test_fastai_keeps_what_it_is(photos, tmp_path):
    learn, _ = fit(photos)
    learn.export(tmp_path/'learner.pkl')
    again = load_learner(tmp_path/'learner.pkl')
    named, picked, probs = again.predict(photos.path[0])
    assert len(probs) == len(learn.dls.vocab) and (picked == (probs > .5)).all()
    assert list(named) == [s for s, p in zip(learn.dls.vocab, picked) if p]


def test_engines_agree(bundle, photos):
    torchs, onnxs = (predict_photos(bundle, photos[:12], probabilities=True, backend=b) for b in ('torch', 'onnx'))
    columns = [c for c in torchs if c.startswith('p:')]
    assert np.abs(torchs[columns] - onnxs[columns]).to_numpy().max() < 1e-4


def test_names_follow_from_probabilities(bundle, photos):
    found = predict_photos(bundle, photos[:20], probabilities=True, threshold=.3)
    probs = found[[f'p:{s}' for s in bundle.species]].set_axis(bundle.species, axis=1)
    animals = probs.drop(columns='empty')
    for i in range(len(found)):
        sure = animals.loc[i][animals.loc[i] >= .3].sort_values(ascending=False).index.tolist()
        sure = sure or [probs.loc[i].idxmax()]
        assert found['labels'][i].split('; ') == sure and found.species[i] == sure[0]
        assert found.confidence[i] == pytest.approx(probs.loc[i, sure[0]], abs=1e-6)


def test_unreadable_photos_are_rows(bundle, photos, tmp_path):
    bad = tmp_path/'bad.jpg'
    bad.write_bytes(b'no photo')
    found = predict_photos(bundle, [photos.path[0], bad])
    assert found.flag.tolist()[0] == '' and found.flag[1] and pd.isna(found['labels'][1])


@pytest.mark.parametrize('suffix', ['.csv', '.parquet'])
def test_streams_hold_labels(bundle, photos, tmp_path, suffix):
    found = read_predictions(stream_predictions(bundle, photos[:10], tmp_path/f'p{suffix}', part=4))
    assert found['labels'].tolist() == predict_photos(bundle, photos[:10])['labels'].tolist()


def test_it_serves_as_either_stage(bundle, photos):
    todo = photos[photos.split == 'test'].reset_index(drop=True)
    animal = score_animals(bundle, todo)
    assert ((animal >= 0) & (animal <= 1)).all()
    gate = Gate(float(np.median(animal)), .9, 1., .9, 1., 0., 1, 1)
    found = predict_cascade(Cascade(bundle, bundle, gate), todo)
    assert (found['labels'][found.stage == 'first'] == 'empty').all() and found['labels'].notna().all()
    assert account_errors(found, todo.species).photos.sum() == len(todo)


def test_scores_count_every_species(bundle, photos):
    found = predict_photos(bundle, photos[:9])
    truth = photos[:9].assign(species=['a', 'a', 'b', 'b', 'c', 'empty', 'empty', 'a', None],
                              labels=['a', 'a; b', 'a; b', 'b', 'c', 'empty', 'empty', 'a', None])
    said = found.assign(labels=['a', 'a', 'b; a', 'c', 'empty', 'empty', 'a', None, 'a'], flag=['']*7 + ['gone', ''])
    scores = score_labels(said, truth)
    assert scores.figures.photos == 7 and scores.figures.all_right == pytest.approx(3/7)
    assert scores.species.photos.to_dict() == dict(a=3, b=3, c=1)
    assert scores.species.named.to_dict() == dict(a=4, b=1, c=1)
    assert scores.species.f1.to_dict() == pytest.approx(dict(a=6/7, b=2/4, c=0))
    assert scores.pairs.found.loc[[1, 2]].tolist() == pytest.approx([1/3, 3/4])
    assert scores.pairs.photos.tolist() == [2, 3, 2]


def test_steps_for_one_species_say_so(bundle, photos):
    found = predict_photos(bundle, photos[:4], probabilities=True)
    with pytest.raises(SnakeidError, match='several species a photo'):
        judge_sequences(found, photos.assign(sequence='s'))


def test_odd_labels(photos):
    odd = photos.copy()
    first, other = odd.index[odd.split == 'train'][:2]
    odd.loc[first, 'labels'] = 'empty; ' + odd.species[other]
    odd.loc[first, 'species'] = odd.species[other]
    dls = make_dataloaders(odd, size=64, several=True, device='cpu')
    assert dls.train_ds.items.species_of(0) == [odd.species[other]]
    odd.loc[odd.index[odd.split == 'valid'][0], 'labels'] += '; stranger'
    options = dict(size=64, several=True, device='cpu')
    with pytest.raises(SnakeidError, match='stranger'): make_dataloaders(odd, **options)
    assert 'stranger' not in make_dataloaders(odd, **options, unseen='leave out').vocab
    assert Path(odd.path[first]).exists()
