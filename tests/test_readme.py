"The figures that the README shows are those that the benchmark wrote"
import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ('plain', 'majority vote of 4 views', 'mean of 4 views', 'frozen features, logistic regression')


def shown_rows():
    "Backbone and cells of each row of the README's table of figures"
    lines = re.findall(r'^\| `(\w+)` \| (.* min × .*) \|$', (ROOT/'README.md').read_text(encoding='utf-8'), re.M)
    return [(arch, [c.strip() for c in cells.split('|')]) for arch, cells in lines]


def test_the_readme_has_the_table():
    assert {arch for arch, _ in shown_rows()} == {'tf_efficientnet_lite0', 'squeezenet1_0'}


@pytest.mark.parametrize('arch', ['tf_efficientnet_lite0', 'squeezenet1_0'])
def test_the_table_shows_what_was_measured(arch):
    cells = dict(shown_rows())[arch]
    results = pd.read_csv(ROOT/'benchmarks'/'results'/'main_job.csv')
    results = results[results.case.str.startswith(f'{arch}, seed ')]
    for cell, name in zip(cells, COLUMNS):
        measured = results[results.case.str.endswith(f', {name}')].groupby('metric').ours.mean()
        assert cell.strip('*') == f"{measured['accuracy']:.3f} / {measured['macro_f1']:.3f}", name
    minutes = results[results.unit == 'minutes'].ours
    assert cells[len(COLUMNS)] == f"{minutes.mean():.0f} min × {len(minutes)}"


def test_the_table_of_collections_shows_what_was_measured():
    tables = {p.stem: pd.read_csv(p) for p in (ROOT/'benchmarks'/'results').glob('*.csv')}
    def figure(name, case, metric, column='ours'):
        found = tables[name][tables[name].case.str.startswith(case) & (tables[name].metric == metric)]
        assert len(found), (name, case, metric)
        return found.iloc[0][column]
    copies = [f'{kind}, peer within 8' for kind in ('recompressed 30 to 60', 'cropped 5% all', 'mirrored')]
    nets = 'EfficientNet-Lite0, reptiles at least 2%', 'SqueezeNet, one of the top 5'
    shown = [f"{figure('manifests', '130,000 rows', 'DataLoaders'):.2f} s",
             f"{figure('manifests', '130,000 rows', 'DataLoaders', 'peer'):.1f} s",
             f"{figure('manifests', '130,000 rows', 'an item without its decode'):.1f} µs",
             f"{figure('manifests', '130,000 rows', 'an item without its decode', 'peer'):.0f} µs",
             f"{figure('manifests', '1,000,000 rows', 'all'):.1f} s, "
             f"{figure('manifests', '1,000,000 rows', 'memory above the manifest'):.0f} MB",
             *(f"{figure('integrity', 'corpus, damage that shows', 'kinds always flagged', c):.0%}"
               for c in ('ours', 'peer')),
             *(f"{figure('integrity', 'snakes14', 'speed', c):,.0f} a second" for c in ('ours', 'peer')),
             ', '.join(f"{figure('duplicates', c, 'copies found'):.1%}" for c in copies),
             *(f"{figure('relevance', net, 'snakes kept'):.1%}; "
               f"{figure('relevance', net, 'others kept of 75'):.0f} of 75" for net in nets),
             *(f"{figure('suspects', '5% wrong, low_self', 'recall', c):.0%}; "
               f"{figure('suspects', '5% wrong, low_self', 'precision', c):.0%}" for c in ('ours', 'peer'))]
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    assert not [s for s in shown if s not in text]


FEW = {'`modern`, majority vote': 'modern, vote', '`modern`, plain': 'modern, plain',
       'frozen features, adjusted afterwards': 'frozen features, adjusted afterwards, plain',
       'frozen features, balanced': 'frozen features, balanced, plain', 'frozen features': 'frozen features, plain',
       "fastai's `fine_tune`, `tta`": 'fastai fine_tune, vote', "fastai's `fine_tune`": 'fastai fine_tune, plain',
       '`snake2019`, majority vote': 'snake2019, vote', '`snake2019`': 'snake2019, plain'}


def test_the_table_of_uneven_species_shows_what_was_measured():
    lines = re.findall(r'^\| (.*?) \| (.*) \|$', (ROOT/'README.md').read_text(encoding='utf-8'), re.M)
    shown = {name: cells.split(' | ') for name, cells in lines if name in FEW}
    assert list(shown) == list(FEW)
    table = pd.read_csv(ROOT/'benchmarks'/'results'/'imbalance.csv')
    for name, cells in shown.items():
        found = table[table.case == f'longtail, {FEW[name]}'].set_index('metric').ours
        wanted = [f"{found['accuracy']:.3f}", f"{found['macro_f1']:.3f} ± {found['macro_f1, spread']:.3f}",
                  *(f"{found[f'{band} recall']:.2f}" for band in ('head', 'mid', 'tail'))]
        assert cells == wanted, name


def test_the_commands_write_below_runs():
    "So that a checkout stays clean, whatever of the README is tried in it"
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    written = re.findall(r'--out (\S+)', '\n'.join(re.findall(r'```sh\n(.*?)```', text, re.S)))
    assert len(written) >= 3 and all(name.startswith('runs/') for name in written)


def test_the_table_of_speeds_shows_what_was_measured():
    names = {'SqueezeNet': 'squeezenet1_0', 'ResNet-18': 'resnet18', 'EfficientNet-B0': 'efficientnet_b0'}
    lines = re.findall(r'^\| ([\w-]+), (\d+ px) \| (.*) \|$', (ROOT/'README.md').read_text(encoding='utf-8'), re.M)
    assert [(name, px) for name, px, _ in lines] == [(n, px) for n in names for px in ('224 px', '2048 px')]
    table = pd.read_csv(ROOT/'benchmarks'/'results'/'predict.csv')
    table = table[table.metric == 'CPU speed'].set_index('case').ratio
    for name, px, cells in lines:
        def ratio(text, arch=names[name], px=px):
            return table[table.index.str.fullmatch(rf'{arch}, \d+ of {px}: {text}')].item()
        wanted = [ratio('four views, torch; tta'), max(ratio(f'four views, {n}; tta') for n in ('onnx', 'openvino')),
                  *[ratio(f'four views, {n}; tta') for n in ('bf16', 'int8')], ratio('one view, openvino; get_preds')]
        assert cells == ' | '.join(f'{r:.1f}×' for r in wanted), (name, px)
