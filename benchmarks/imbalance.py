"""What helps where species are uneven: each remedy alone, on the same photos, and `modern` beside three rivals.

    python benchmarks/imbalance.py --labels longtail.csv --images images          # the fixed long-tailed cut
    python benchmarks/imbalance.py --drawn                                        # a drawn long tail
    python benchmarks/imbalance.py --labels longtail.csv --images images --folds  # choose a recipe, no test photos

`longtail.csv` has the columns filename, scientific_name and split ('train' or 'test'). Every arm trains on all training
photos and keeps the last epoch, so nothing is chosen by looking at the test photos. The remedies share `modern`'s
numbers, but for half its epochs and the network's own features, so that only the remedy differs; `modern` itself and
its rivals have all of theirs. `--folds` trains on three quarters of the training photos and predicts the fourth, four
times, and is what the default recipe was chosen by. Runs are kept in benchmarks/results/imbalance_runs.csv as they
end, and a run that is there is not done again; `--part 1/2` and `--part 2/2` share the work between two processes.
`peer` is the plain arm.
"""
import argparse
import gc
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import save_table
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import ColReader, IndexSplitter, Normalize
from fastai.vision.augment import Resize, aug_transforms
from fastai.vision.data import ImageBlock
from fastai.vision.learner import vision_learner
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold

from snakeid.core import keep_freed_memory
from snakeid.data.balance import weigh_photos
from snakeid.data.loaders import make_dataloaders
from snakeid.models.factory import DEFAULT_ARCH, make_classifier
from snakeid.predict.batch import predict_photos
from snakeid.predict.views import FOUR_VIEWS, WHOLE
from snakeid.predict.vote import vote_majority, vote_mean
from snakeid.samples.collection import draw_collection
from snakeid.train.fit import fit_species
from snakeid.train.learner import make_bundle, make_learner
from snakeid.train.head import choose_decay, fit_linear, list_features
from snakeid.train.callbacks import seed_everything
from snakeid.train.losses import adjust_scores, make_loss
from snakeid.train.recipes import RECIPES, Recipe

MODERN = RECIPES['modern']
PLAIN = replace(MODERN, loss='cross_entropy', beta=0., levels=0, epochs=5)
ARMS = {
    'plain': PLAIN,
    'weighted draws, β = 0.5': replace(PLAIN, beta=.5),
    'weighted draws, β = 1': replace(PLAIN, beta=1.),
    'weighted loss': replace(PLAIN, loss='weighted'),
    'Eq. (1)': replace(PLAIN, vary='by_frequency'),
    'Eq. (1) and weighted draws': replace(PLAIN, vary='by_frequency', beta=1.),
    'weighted draws and loss': replace(PLAIN, beta=1., loss='weighted'),
    'logit adjustment': replace(PLAIN, loss='logit_adjusted'),
    'logit adjustment afterwards': replace(PLAIN, post_tau=1.),
    'seesaw': replace(PLAIN, loss='seesaw', label_smoothing=0.),
    'modern': MODERN,
    'snake2019': RECIPES['snake2019'],
}
RIVALS = ('fastai fine_tune', 'frozen features', 'frozen features, balanced', 'frozen features, adjusted afterwards')
LAST = replace(MODERN, levels=0, lr=5e-3, body_ratio=.2, frozen_epochs=2)
CANDIDATES = {                                           # what the default was chosen from
    'plain': replace(LAST, loss='cross_entropy'),
    'draws 0.5': replace(LAST, loss='cross_entropy', beta=.5),
    'balanced softmax, draws 0.5': replace(LAST, beta=.5),
    'balanced softmax': LAST,
    'balanced softmax, low rate': replace(MODERN, levels=0),
    'balanced softmax, low rate, 2 levels': MODERN,
    'balanced softmax, low rate, 2 levels, short head': replace(MODERN, head_decay=1., dropout=.5),
}


def train(manifest:pd.DataFrame, recipe:Recipe, seed:int) -> dict[str, np.ndarray]:
    "Species of the test photos, as a recipe's network names them plainly and by vote"
    recipe = replace(recipe, keep='last')
    manifest = weigh_photos(manifest, **recipe.weighing)
    dls = make_dataloaders(manifest, **recipe.loading, seed=seed, need_valid=False)
    learn = make_learner(dls, recipe=recipe, seed=seed)
    with learn.no_bar(), learn.no_logging(): fit_species(learn, recipe, seed=seed)
    bundle, test = make_bundle(learn, recipe.size), manifest[manifest.split == 'test']
    return dict(plain=predict_photos(bundle, test, views=(WHOLE,), aggregate=vote_mean).species.to_numpy(),
                vote=predict_photos(bundle, test, views=FOUR_VIEWS, aggregate=vote_majority).species.to_numpy(),
                mean=predict_photos(bundle, test, views=FOUR_VIEWS, aggregate=vote_mean).species.to_numpy())


def fine_tune(manifest:pd.DataFrame, size:int, seed:int) -> dict[str, np.ndarray]:
    "The same by fastai's own road: vision_learner, aug_transforms, fine_tune, tta"
    seed_everything(seed)
    table, test = manifest[manifest.split == 'train'].reset_index(drop=True), manifest[manifest.split == 'test']
    views = [*aug_transforms(), Normalize.from_stats([.5]*3, [.5]*3, cuda=False)]
    block = DataBlock((ImageBlock, CategoryBlock), get_x=ColReader('path'), get_y=ColReader('species'),
                      splitter=IndexSplitter([]), item_tfms=Resize(size), batch_tfms=views)
    dls = block.dataloaders(table, bs=MODERN.bs, num_workers=0, device=torch.device('cpu'))
    learn = vision_learner(dls, DEFAULT_ARCH, pretrained=False, normalize=False)
    body, loaded = learn.model[0].model, make_classifier(DEFAULT_ARCH)[0].state_dict()
    body.load_state_dict({k: loaded[k] for k in body.state_dict()})
    learn.freeze()
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(MODERN.epochs)
        dl = dls.test_dl(test)
        plain, voted = learn.get_preds(dl=dl)[0], learn.tta(dl=dl, n=4)[0]
    names = np.array(dls.vocab)
    return dict(plain=names[plain.argmax(1)], vote=names[voted.argmax(1)])


def frozen(manifest:pd.DataFrame, kind:str, size:int, seed:int) -> dict[str, np.ndarray]:
    "A logistic regression on frozen features of whole photos"
    manifest = weigh_photos(manifest, 1. if 'balanced' in kind else 0.)
    dls = make_dataloaders(manifest, size=size, seed=seed, need_valid=False, device='cpu')
    learn = make_learner(dls, recipe=MODERN)
    x, y = list_features(learn)
    counts, names = torch.bincount(y), np.array(learn.dls.vocab)
    weight = torch.as_tensor(learn.dls.train.wgts*len(y), dtype=torch.float32)
    loss = make_loss('cross_entropy', counts)
    layer = fit_linear(x, y, loss, choose_decay(x, y, loss, weight=weight, seed=seed)[0], weight)
    dl = learn.dls.test_dl(manifest.path[manifest.split == 'test'].tolist(), bs=64)
    body = learn.model[0].eval()
    with torch.no_grad(): scores = layer(torch.cat([body(b[0].as_subclass(torch.Tensor)) for b in dl]))
    if 'adjusted' in kind: scores = adjust_scores(scores, counts)
    return dict(plain=names[scores.argmax(1)])


def judge(manifest:pd.DataFrame, said:np.ndarray) -> dict[str, float]:
    "Accuracy, macro-F1, and recall of the species with most, some and fewest photos"
    test, n = manifest[manifest.split == 'test'], manifest.species[manifest.split == 'train'].value_counts()
    truth = test.species.to_numpy(object).astype(str)
    right, of = truth == said.astype(str), test.species.value_counts()
    recall = pd.Series(right).groupby(truth).mean()
    bands = dict(zip(('head', 'mid', 'tail'), np.array_split(n.sort_values(ascending=False, kind='stable').index, 3)))
    return dict(accuracy=right.mean(),
                macro_f1=f1_score(truth, said.astype(str), labels=np.unique(truth), average='macro', zero_division=0,
                                  sample_weight=1/of[truth].to_numpy()),
                **{f'{band} recall': recall[names].mean() for band, names in bands.items()})


def read_cut(args) -> tuple[str, pd.DataFrame, int]:
    "Name of the photos, their manifest, and the side of what the network sees"
    if not args.drawn:
        table = pd.read_csv(args.labels)
        paths = [str(Path(args.images)/f) for f in table.filename]
        return 'longtail', pd.DataFrame(dict(path=paths, species=table.scientific_name, split=table.split)), 224
    folder = Path(tempfile.gettempdir())/'snakeid-drawn-longtail'
    photos = draw_collection(folder, n=600, species=10, seed=5, size=96)
    rng, counts = np.random.default_rng(0), photos.species.value_counts()
    test = [rng.permutation(photos.index[photos.species == s])[:max(2, n//4)] for s, n in counts.items()]
    photos = photos.assign(split=np.where(photos.index.isin(np.concatenate(test)), 'test', 'train'))
    return 'drawn', photos[['path', 'species', 'split']], 96


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--labels')
    parser.add_argument('--images')
    parser.add_argument('--drawn', action='store_true')
    parser.add_argument('--folds', action='store_true')
    parser.add_argument('--arms', nargs='+', help='some of the arms; all when not given')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--part', default='1/1')
    args = parser.parse_args()
    if not args.drawn and not (args.labels and args.images): parser.error('give --labels and --images, or --drawn')
    keep_freed_memory()
    cut, photos, size = read_cut(args)
    sized = {} if size == 224 else dict(size=size, train_size=size)
    kept = Path(__file__).parent/'results'/'imbalance_runs.csv'
    arms = list(CANDIDATES) if args.folds else [*ARMS, *RIVALS]
    todo = [(arm, seed) for seed in args.seeds for arm in (args.arms or arms)]
    mine, parts = map(int, args.part.split('/'))
    for i, (arm, seed) in enumerate(todo):
        name = f'folds of {cut}' if args.folds else cut
        done = pd.read_csv(kept) if kept.exists() else pd.DataFrame(columns=['cut', 'arm', 'seed'])
        if i % parts != mine-1 or ((done.cut == name) & (done.arm == arm) & (done.seed == seed)).any(): continue
        start = time.perf_counter()
        if args.folds:
            train_part, said = photos[photos.split == 'train'].reset_index(drop=True), {}
            folds = StratifiedKFold(4, shuffle=True, random_state=seed)
            for _, b in folds.split(train_part, train_part.species):
                fold = train_part.assign(split=np.where(np.isin(np.arange(len(train_part)), b), 'test', 'train'))
                for views, found in train(fold, replace(CANDIDATES[arm], **sized), seed).items():
                    said.setdefault(views, np.empty(len(train_part), object))[b] = found
            both = pd.concat([train_part, train_part.assign(split='test')], ignore_index=True)
        else:
            both = photos
            if arm == 'fastai fine_tune': said = fine_tune(photos, size, seed)
            elif arm in RIVALS: said = frozen(photos, arm, size, seed)
            else: said = train(photos, replace(ARMS[arm], **sized), seed)
        seconds = time.perf_counter()-start
        gc.collect()                                     # a learner is a ring of references
        rows = [dict(cut=name, arm=arm, seed=seed, views=views, **judge(both, found), seconds=seconds)
                for views, found in said.items()]
        table = pd.DataFrame(rows).round(4)
        with open(kept, 'a', encoding='utf-8') as f: table.to_csv(f, index=False, header=f.tell() == 0)
        print(table.drop(columns='cut').to_string(index=False, header=False), flush=True)
    if parts == 1 and not args.folds: summarise(kept)


def summarise(kept:Path):
    "Means and spreads over the seeds"
    runs, rows = pd.read_csv(kept), []
    metrics = ['accuracy', 'macro_f1', 'head recall', 'mid recall', 'tail recall']
    long = runs.melt(['cut', 'arm', 'seed', 'views'], metrics)
    for (cut, views, metric), table in long.groupby(['cut', 'views', 'variable']):
        found = table.groupby('arm').value.agg(['mean', 'std'])
        peer = found['mean'].get('plain', np.nan)
        for arm, r in found.iterrows():
            rows += [(f'{cut}, {arm}, {views}', metric, r['mean'], peer, 'share'),
                     (f'{cut}, {arm}, {views}', f'{metric}, spread', r['std'], np.nan, 'share')]
    rows = [r for r in rows if np.isfinite(r[2])]        # one seed alone has no spread
    save_table(rows, 'imbalance', machine=f'torch {torch.__version__}', shows=lambda t: (t.metric == 'macro_f1'))


if __name__ == '__main__': main()
