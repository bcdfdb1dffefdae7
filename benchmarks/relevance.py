"""Does an ImageNet network tell photos of reptiles from others? The seed's rule beside other rules.

    python benchmarks/relevance.py --samples imagenet_samples --labels train_labels.csv --images images \\
        --weights squeezenet1_0-imagenet.pth

`--samples` holds `images` and `labels.csv` with the columns filename and group (snake, lizard, other); `--labels` and
`--images` are a collection of snakes. The seed's rule keeps a photo if one of the five best guesses is a snake or a
lizard; `peer` is that rule with SqueezeNet. The rule by embeddings keeps a photo whose mean cosine similarity to the
ten most similar photos of the collection is as high as that of 98% of the collection itself: it needs no list of
classes, and its share of kept snakes is 98% by construction.
"""
import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from common import save_table

from snakeid.data.tables import read_aicrowd
from snakeid.models.imagenet import LIZARDS, SNAKES, feature_bundle, imagenet_bundle
from snakeid.predict.features import predict_features
from snakeid.predict.screen import flag_irrelevant, report_rejects, screen_photos


def count_kept(samples, snakes, keep_samples, keep_snakes):
    "Reptiles kept of the samples, others kept, share of snakes kept, and that of the species that loses most"
    reptile = (samples.group != 'other').to_numpy()
    rejected = snakes.assign(flag=np.where(keep_snakes, '', 'irrelevant'))
    return (int(keep_samples[reptile].sum()), int(keep_samples[~reptile].sum()), float(keep_snakes.mean()),
            float(1 - report_rejects(rejected).rate.max()))


def keep_by_neighbours(samples, snakes):
    "Photos that lie as near to the collection as 98% of it do"
    bundle = feature_bundle()
    (_, a), (_, b) = (predict_features(bundle, m) for m in (samples, snakes))
    a, b = (f/np.linalg.norm(f, axis=1, keepdims=True) for f in (a, b))
    near = np.sort(b @ b.T, axis=1)[:, -11:-1].mean(1)   # the nearest is the photo itself
    bar = np.quantile(near, .02)
    return np.sort(a @ b.T, axis=1)[:, -10:].mean(1) >= bar, near >= bar


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('samples', 'labels', 'images', 'weights'): parser.add_argument(f'--{name}', required=True)
    args = parser.parse_args()
    samples = pd.read_csv(Path(args.samples)/'labels.csv')
    paths = [str(Path(args.samples)/'images'/f) for f in samples.filename]
    samples = samples.assign(path=paths, photo_id=samples.filename)
    snakes = read_aicrowd(args.labels, args.images)
    snakes = snakes[snakes.flag == ''].reset_index(drop=True)
    rows, peer = [], None
    rules = [('one of the top 5', dict(rank=5))]
    rules += [(f'reptiles at least {s:.0%}', dict(share=s)) for s in (.01, .02, .05, .1)]
    cases = {'SqueezeNet': imagenet_bundle('squeezenet1_0', args.weights), 'EfficientNet-Lite0': imagenet_bundle()}
    n = ((samples.group != 'other').sum(), (samples.group == 'other').sum(), len(snakes))
    names = (f'reptiles kept of {n[0]}', f'others kept of {n[1]}', 'snakes kept', 'snakes kept, worst species')
    units = ('photos', 'photos', f'share of {n[2]} photos', 'share of its photos')

    def add(case, scores):
        "Four rows of the table"
        nonlocal peer
        peer = peer or scores
        rows.extend((case, *r) for r in zip(names, scores, peer, units))
    for net, bundle in cases.items():
        screened = [screen_photos(bundle, m, [*SNAKES, *LIZARDS]) for m in (samples, snakes)]
        for rule, options in rules:
            flagged = [flag_irrelevant(m, s, **options) for m, s in zip((samples, snakes), screened)]
            keep = [(m.flag == '').to_numpy() for m in flagged]
            add(f'{net}, {rule}', count_kept(samples, snakes, *keep))
    add('EfficientNet-Lite0, near the collection', count_kept(samples, snakes, *keep_by_neighbours(samples, snakes)))
    save_table(rows, 'relevance')


if __name__ == '__main__': main()
