"""Why training falls short on small collections: one change at a time, on photos that are in no test split.

    python benchmarks/causes.py --labels train_labels.csv --images images

The photos that are in none of the test splits of seeds 0, 1 and 2 are divided once more into training and validation.
First a logistic regression on frozen features shows what resampling costs: it learns from photos as they are (224
pixels) and is judged on photos as they are (`ours`) and resampled through another size and back (`peer`). Then short
trainings differ from an earlier default recipe (`ours`) in one thing each (`peer`): the head starts at random,
batch-norm layers use each batch's own statistics, or fastai's `aug_transforms` (turned, warped and enlarged by
bilinear sampling) replace crops, flips and light.
"""
import argparse
import dataclasses

import numpy as np
import torch
from common import save_table
from fastai.vision.augment import Resize, ResizeMethod, aug_transforms
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from snakeid.data.balance import weigh_photos
from snakeid.data.loaders import make_block, make_dataloaders
from snakeid.data.photo import open_photo
from snakeid.data.splits import split_stratified
from snakeid.data.tables import read_aicrowd
from snakeid.models.factory import make_body
from snakeid.predict.batch import predict_photos
from snakeid.predict.views import FOUR_VIEWS, WHOLE
from snakeid.train.callbacks import KeepStatistics, PrintProgress
from snakeid.train.fit import fit_species
from snakeid.train.learner import make_bundle, make_learner
from snakeid.train.recipes import Recipe


def pool_split(labels, images, fold):
    "Training and validation photos out of those that are in none of the three test splits"
    manifest = read_aicrowd(labels, images)
    tested = np.zeros(len(manifest), bool)
    for seed in (0, 1, 2): tested |= (split_stratified(manifest, seed=seed).split == 'test').to_numpy()
    pool = manifest[~tested].reset_index(drop=True)
    return weigh_photos(split_stratified(pool, valid_share=.2, test_share=0, seed=100+fold), .5)


def soften(photo, through):
    "Resample a photo to `through` pixels and back"
    if through == photo.width: return photo
    return photo.resize((through, through), Image.Resampling.BICUBIC).resize(photo.size, Image.Resampling.BICUBIC)


def score_frozen(manifest, through):
    "Validation accuracy of a logistic regression: trained on sharp photos, judged on photos resampled through a size"
    body, spec = make_body()
    body = body.eval().to(memory_format=torch.channels_last)

    def features(paths, size):
        rows = []
        for i in range(0, len(paths), 64):
            pixels = np.stack([np.asarray(soften(open_photo(p).resize((224, 224)), size)) for p in paths[i:i+64]])
            x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()/255
            with torch.inference_mode(): rows.append(body((x-spec.mean[0])/spec.std[0]).numpy())
        return np.concatenate(rows)
    train, valid = manifest[manifest.split == 'train'], manifest[manifest.split == 'valid']
    fit = make_pipeline(StandardScaler(), LogisticRegression(C=.01, max_iter=1000))
    fit.fit(features(train.path.tolist(), 224), train.species)
    return {t: fit.score(features(valid.path.tolist(), t), valid.species) for t in through}


def score_training(manifest, recipe, change):
    "Validation accuracy, plain and by vote, of a training with one thing changed"
    if change == 'random head': recipe = dataclasses.replace(recipe, warm_head=False)
    dls = make_dataloaders(manifest, size=recipe.size, bs=recipe.bs)
    if change == 'aug_transforms':
        views = [Resize(recipe.size, ResizeMethod.Squish)], aug_transforms(size=recipe.size)
        block = make_block(size=recipe.size).new(*views)
        dls = block.weighted_dataloaders(manifest, manifest.weight.to_numpy(), bs=recipe.bs, num_workers=0)
    learn = make_learner(dls, recipe=recipe)
    if change == 'batch statistics': learn.remove_cb(KeepStatistics)
    with learn.no_bar(), learn.no_logging(): fit_species(learn, recipe, cbs=[PrintProgress(change)])
    bundle, valid = make_bundle(learn, recipe.size), manifest[manifest.split == 'valid']
    truth = valid.species.to_numpy()
    return [(predict_photos(bundle, valid, views=v).species.to_numpy() == truth).mean() for v in ((WHOLE,), FOUR_VIEWS)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--labels', required=True)
    parser.add_argument('--images', required=True)
    parser.add_argument('--epochs', type=int, default=4, help='epochs in which all layers learn')
    parser.add_argument('--fold', type=int, default=0)
    args = parser.parse_args()
    manifest = pool_split(args.labels, args.images, args.fold)
    n, rows = int((manifest.split == 'valid').sum()), []
    frozen = score_frozen(manifest, (224, 192, 256))
    for t in (192, 256):
        rows.append((f'frozen features, photos resampled through {t} pixels', 'accuracy', frozen[224], frozen[t]))
    # the default of then, when these causes were looked for
    recipe = Recipe(epochs=args.epochs, lr=2e-3, frozen_epochs=2, body_ratio=.2, head_decay=None, levels=0,
                    loss='cross_entropy')
    ours = score_training(manifest, recipe, 'default')
    for change in ('random head', 'batch statistics', 'aug_transforms'):
        theirs = score_training(manifest, recipe, change)
        for metric, a, b in zip(('accuracy, plain', 'accuracy, vote'), ours, theirs):
            rows.append((f'{args.epochs} epochs, {change}', metric, a, b))
    save_table([(*row, f'share of {n} validation photos') for row in rows], 'causes')


if __name__ == '__main__': main()
