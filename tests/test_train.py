"Training: the models of both projects, draws and changes as they were asked for, runs that are killed and go on"
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback

from snakeid.core import SnakeidError
from snakeid.data.balance import weigh_photos
from snakeid.data.loaders import make_dataloaders
from snakeid.data.splits import split_stratified
from snakeid.data.tables import read_aicrowd
from snakeid.data.views import transform_chance
from snakeid.models.bundle import read_bundle, write_bundle
from snakeid.models.factory import split_body
from snakeid.train.fit import fit_species
from snakeid.train.learner import make_bundle, make_learner
from snakeid.train.recipes import RECIPES, Recipe

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def photos(tiny):
    "The tiny collection, split and weighed"
    return weigh_photos(split_stratified(read_aicrowd(tiny.labels, tiny.images), seed=0), 0.)


def fit(photos, recipe, arch='tf_efficientnet_lite0', weights=None, **kwargs):
    "A learner after training, and what training told"
    dls = make_dataloaders(photos, **recipe.loading, device='cpu', need_valid=False)
    learn = make_learner(dls, arch, weights, recipe)
    with learn.no_bar(), learn.no_logging(): return learn, fit_species(learn, recipe, **kwargs)


# ---- The models of both projects ----

SHORT = dict(epochs=1, frozen_epochs=0, size=64, train_size=64, bs=8, lr=1e-3)


@pytest.mark.parametrize('arch, recipe, change', [
    ('squeezenet1_0', 'snake2019', {}),
    ('resnet18', 'snake2019_resnet18', {}),
    ('vgg19_bn', 'snake2019_vgg19', dict(size=32, train_size=32)),
    ('resnet50', 'wildcam2021', {}),
    ('efficientnet_b0', 'wildcam2021_b0', {}),
    ('efficientnet_b0', 'wildcam2021_top10', dict(size=96, train_size=80)),
    ('small_cnn', 'wildcam2021_cnn', dict(size=56, train_size=56)),
    ('small_cnn', 'modern_cnn', dict(size=56, train_size=56)),
    ('timm/mobilenetv3_small_050', 'modern', dict(mixup=.4, ema=.9)),
    ('timm/vit_tiny_patch16_224', 'modern', dict(size=224, train_size=224, cutmix=1.)),
    ('tf_efficientnet_lite0', 'modern', dict(first_size=32, accumulate=2, hidden=(16, 8), warm_head=False)),
    ('tf_efficientnet_lite0', 'modern', dict(levels=0, lr=None, head_decay=None)),
    ('resnet18', 'modern', dict(levels=2, cached_views=1, frozen_epochs=1)),
])
def test_models_train(arch, recipe, change, photos, tmp_path):
    recipe = replace(RECIPES[recipe], **SHORT | change)
    dls = make_dataloaders(photos, **recipe.loading, device='cpu')
    learn = make_learner(dls, arch, 'none' if arch != 'tf_efficientnet_lite0' else None, recipe)
    assert learn.model[1][-1].out_features == 3
    groups = split_body(learn.model, recipe.n_groups, recipe.top_layers)
    before = [[p.detach().clone() for p in g] for g in groups]
    with learn.no_bar(), learn.no_logging(): fitted = fit_species(learn, recipe)
    assert np.isfinite(fitted.history[['train_loss', 'valid_loss']]).all(axis=None)
    filled = [(old, g) for old, g in zip(before, groups) if g]   # small networks leave groups empty
    moved = [any(not torch.equal(a, b) for a, b in zip(old, g)) for old, g in filled]
    assert moved == [not recipe.top_layers] + [True]*(len(moved)-1)
    if arch == 'vgg19_bn': return                        # half a gigabyte
    bundle = read_bundle(write_bundle(make_bundle(learn, recipe.size), tmp_path/'bundle'))
    x = torch.rand(2, 3, recipe.size, recipe.size)
    with torch.no_grad(): assert torch.allclose(bundle.model(x), learn.model.eval()(x), atol=1e-5)


def test_own_statistics(photos):
    recipe = Recipe(**SHORT)
    dls = make_dataloaders(photos, **recipe.loading, device='cpu')
    learn = make_learner(dls, 'small_cnn', recipe=recipe, stats=((.2, .3, .4), (.1, .2, .3)))
    assert make_bundle(learn, 64).spec.mean == (.2, .3, .4)
    x, plain = dls.valid.one_batch()[0], make_dataloaders(photos, **recipe.loading, device='cpu').valid.one_batch()[0]
    want = (plain - torch.tensor([.2, .3, .4])[:, None, None])/torch.tensor([.1, .2, .3])[:, None, None]
    assert torch.allclose(x.as_subclass(torch.Tensor), want.as_subclass(torch.Tensor), atol=1e-5)


# ---- Draws and changes ----


def test_eq_1_in_the_loop(photos):
    # An uneven cut of the collection, drawn evenly; whether a photo was changed is read off its pixels
    train = photos[photos.split == 'train']
    keep = pd.concat([train[train.species == s][:n] for s, n in zip(sorted(train.species.unique()), (9, 6, 3))])
    uneven = weigh_photos(keep.reset_index(drop=True), 1.)
    def loader(vary): return make_dataloaders(uneven, size=48, bs=18, vary=vary, device='cpu', need_valid=False).train
    varied, plain = loader('by_frequency'), loader('none')
    seen = {s: [] for s in range(3)}
    for e in range(40):
        for dl in (varied, plain): dl.next_epoch = e
        for (x, y), (whole, same) in zip(varied, plain, strict=True):
            assert torch.equal(y, same)                  # the draws do not depend on the changes
            for changed, s in zip((x != whole).flatten(1).any(1), y.tolist()): seen[s].append(bool(changed))
    for s, p in enumerate(transform_chance([9, 6, 3])):
        n = len(seen[s])
        assert n > 150 and abs(np.mean(seen[s]) - p) <= 4*np.sqrt(p*(1-p)/n), (s, n, np.mean(seen[s]), p)
    assert not any(seen[0])                              # the most frequent species is left alone


def test_epochs_are_the_same_in_several_processes(photos):
    weighed = weigh_photos(photos, .5)
    one = make_dataloaders(weighed, size=48, bs=8, light=0, device='cpu', seed=4).train
    two = make_dataloaders(weighed, size=48, bs=8, light=0, device='cpu', seed=4, num_workers=2).train
    other = make_dataloaders(weighed, size=48, bs=8, light=0, device='cpu', seed=5).train
    epochs = [[torch.cat([x.as_subclass(torch.Tensor) for x, _ in dl]) for _ in range(2)] for dl in (one, two, other)]
    assert torch.equal(epochs[0][0], epochs[1][0]) and torch.equal(epochs[0][1], epochs[1][1])
    assert not torch.equal(epochs[0][0], epochs[0][1]) and not torch.equal(epochs[0][0], epochs[2][0])


def test_fastais_global_state_is_left_alone(photos):
    dl = make_dataloaders(photos, size=48, bs=8, device='cpu').train
    import random
    random.seed(1), np.random.seed(1)
    list(dl.create_batches(iter([0, 1])))
    first = random.random(), np.random.rand()
    random.seed(1), np.random.seed(1)
    assert (random.random(), np.random.rand()) == first


# ---- Killed and taken up again ----


OPTIONS = '--size 64 --train-size 64 --bs 8 --frozen-epochs 1 --epochs 4 --lr 0.003'.split()


def train_on(tiny, run):
    "Arguments of `snakeid`"
    return ['train', '--images', str(tiny.images), '--labels', str(tiny.labels), '--out', str(run), *OPTIONS]


def launch(tiny, run, *options, kill_at=None):
    "`snakeid train` in a process of its own; killed as soon as it prints `kill_at`"
    code = 'import sys; from snakeid.cli import main; sys.exit(main(sys.argv[1:]))'
    command = [sys.executable, '-c', code, *train_on(tiny, run), *options]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env={**os.environ, 'OMP_NUM_THREADS': '1'})
    late = threading.Timer(300, process.kill)
    late.start()
    told = ''
    try:
        for line in process.stdout:
            told += line
            if kill_at and re.search(kill_at, line):
                process.kill()                           # SIGKILL: nothing in the process can tidy up
                break
        process.wait()
    finally:
        late.cancel()
        process.stdout.close()
    return process.returncode, told


@pytest.fixture(scope='module')
def unbroken(tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp('unbroken')/'run'
    status, told = launch(tiny, run)
    assert status == 0, told
    return run


RESULTS = ('manifest.csv', 'predictions.csv', 'history.csv', 'bundle/model.safetensors')


@pytest.mark.parametrize('kill_at', [r'epoch 1/1 ', r'epoch 2/4 ', r'epoch 4/4 '])
def test_killed_run_goes_on(kill_at, unbroken, tiny, call, tmp_path):
    run = tmp_path/'run'
    status, told = launch(tiny, run, kill_at=kill_at)
    assert status < 0 or os.name == 'nt', told           # it was killed, and had not ended
    assert not (run/'run.json').exists()
    done = call('identify', run, tiny.images)
    assert done.status == 2 and 'no trained model' in done.err
    status, told = launch(tiny, run)
    assert status == 0, told
    for name in RESULTS: assert (run/name).read_bytes() == (unbroken/name).read_bytes(), name
    assert not (run/'checkpoint.pt').exists()


def test_killed_in_mid_epoch(unbroken, tiny, tmp_path):
    # The print of an epoch comes before its checkpoint; here the process is gone some batches later
    run, code = tmp_path/'run', '''
import os, signal, sys
from fastai.callback.core import Callback
from snakeid.train import fit
from snakeid.cli import main
class Kill(Callback):
    def before_batch(self):
        if self.training and (self.n_epoch, self.epoch, self.iter) == (4, 2, 1): os.kill(os.getpid(), signal.SIGKILL)
make = fit.make_callbacks
fit.make_callbacks = lambda recipe: make(recipe) + [Kill()]
main(sys.argv[1:])
'''
    command = [sys.executable, '-c', code, *train_on(tiny, run)]
    quiet = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=quiet, timeout=300)
    assert done.returncode == -9, done.stderr
    assert torch.load(run/'checkpoint.pt', weights_only=True)['epoch'] == 2
    shutil.copytree(run, tmp_path/'copy')
    status, told = launch(tiny, run)
    assert status == 0 and 'going on after epoch 2 of 4 (all layers)' in told
    for name in RESULTS: assert (run/name).read_bytes() == (unbroken/name).read_bytes(), name
    # With other numbers it does not go on, and says why
    for options, why in [(('--epochs', '6'), 'another recipe.epochs (4, now 6)'),
                         (('--seed', '1'), 'another collection'),
                         (('--recipe', 'wildcam2021'), 'another recipe.')]:
        status, told = launch(tiny, tmp_path/'copy', *options)
        assert status == 2 and why in told and 'delete the file to train from the beginning' in told, told
    assert (tmp_path/'copy'/'checkpoint.pt').exists()


# ---- Bad input ----

BRIEF = Recipe(frozen_epochs=0, epochs=1, size=48, train_size=48, bs=8, lr=1e-3, warm_head=False)


def test_nan_names_batch_and_photos(photos):
    class Spoil(Callback):
        def after_pred(self):
            if self.training and self.epoch == 1 and self.iter == 1: self.learn.pred = self.pred*float('nan')
    with pytest.raises(SnakeidError, match=r'loss became nan in epoch 2, batch 2: .*\.jpg.*take a lower learning rate'):
        fit(photos, replace(BRIEF, epochs=3), cbs=[Spoil()])


def test_out_of_memory_names_batches(photos):
    class Full(Callback):
        def before_batch(self): raise torch.cuda.OutOfMemoryError('CUDA out of memory')
    with pytest.raises(SnakeidError, match=r'8 photos of 48 pixels: try bs=4, with accumulate=2'):
        fit(photos, BRIEF, cbs=[Full()])


def test_species_that_is_never_drawn(photos):
    never = photos.assign(weight=photos.weight.where(photos.species != photos.species.iloc[0], 0.))
    with pytest.raises(SnakeidError, match='weigh 0, so training would never show them'):
        make_dataloaders(never, size=48)


@pytest.mark.parametrize('options, why', [
    (('--arch', 'resnet81'), 'near it: resnet18'),
    (('--recipe', 'modem'), 'choose modern'),
    (('--weights', 'other.pth'), 'does not fit this architecture'),
])
def test_wrong_names(options, why, tiny, train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(weight=torch.zeros(2)), 'other.pth')
    done = train(tmp_path/'run', tiny.images, tiny.labels, *options)
    assert done.status == 2 and why in done.err and len(done.err.strip().splitlines()) == 1
