"""Planted label errors among real photos: how many are found, and how many of those shown are errors?

    python benchmarks/suspects.py --labels train_labels.csv --images images

A share of the labels is changed to another species at random (three seeds; the figures are means). Features come from
the default network's ImageNet body. `peer` flags every photo whose out-of-fold prediction is not its label, which is
what a person would do first. Planted errors are the only ones that count, so a precision below 1 includes errors that
the collection already had.
"""
import argparse

import numpy as np
from common import save_table

from snakeid.core import make_rng
from snakeid.data.tables import read_aicrowd
from snakeid.models.imagenet import feature_bundle
from snakeid.predict.features import predict_features
from snakeid.predict.suspects import find_suspects, predict_folds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('labels', 'images'): parser.add_argument(f'--{name}', required=True)
    args = parser.parse_args()
    photos = read_aicrowd(args.labels, args.images)
    photos = photos[photos.flag == ''].reset_index(drop=True)
    _, features = predict_features(feature_bundle(), photos)
    names, rows = np.array(sorted(photos.species.unique())), []
    for share in (.02, .05, .10):
        found = {}
        for seed in range(3):
            rng = make_rng(seed, 'plant')
            planted = rng.random(len(photos)) < share
            code = np.searchsorted(names, photos.species.to_numpy(str))
            code = np.where(planted, (code + rng.integers(1, len(names), len(code))) % len(names), code)
            wrong = photos.assign(species=names[code])
            probs = predict_folds(features, wrong.species, seed=seed)
            for rule in ('low_self_confidence', 'predicted_neq_given', 'prune_by_noise_rate', 'confident_learning'):
                hit = wrong.photo_id.isin(find_suspects(wrong, probs, rule).photo_id).to_numpy()
                found.setdefault(rule, []).append((planted[hit].mean(), hit[planted].mean(), hit.mean()))
        means = {rule: np.mean(v, axis=0) for rule, v in found.items()}
        for rule in ('low_self_confidence', 'prune_by_noise_rate', 'confident_learning'):
            for metric, ours, peer in zip(('precision', 'recall', 'shown'), means[rule], means['predicted_neq_given']):
                rows.append((f'{share:.0%} wrong, {rule}', metric, ours, peer, 'share'))
    save_table(rows, 'suspects')


if __name__ == '__main__': main()
