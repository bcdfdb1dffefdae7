"The figures of README.md and nbs/figures.ipynb are those that the benchmarks wrote"
import json
import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT/'README.md').read_text(encoding='utf-8')
CELLS = json.loads((ROOT/'nbs'/'figures.ipynb').read_text(encoding='utf-8'))['cells']
FIGURES = '\n\n'.join(''.join(cell['source']) for cell in CELLS)
COLUMNS = ('plain', 'majority vote of 4 views', 'mean of 4 views', 'frozen features, logistic regression')


def shown_rows():
    "Backbone and cells of each row of the table of real photos"
    lines = re.findall(r'^\| `(\w+)` \| (.* min × .*) \|$', FIGURES, re.M)
    return [(arch, [c.strip() for c in cells.split('|')]) for arch, cells in lines]


def test_there_is_the_table():
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
    assert not [s for s in shown if s not in FIGURES]


FEW = {'`modern`, majority vote': 'modern, vote', '`modern`, plain': 'modern, plain',
       'frozen features, adjusted afterwards': 'frozen features, adjusted afterwards, plain',
       'frozen features, balanced': 'frozen features, balanced, plain', 'frozen features': 'frozen features, plain',
       "fastai's `fine_tune`, `tta`": 'fastai fine_tune, vote', "fastai's `fine_tune`": 'fastai fine_tune, plain',
       '`snake2019`, majority vote': 'snake2019, vote', '`snake2019`': 'snake2019, plain'}


def test_the_table_of_uneven_species_shows_what_was_measured():
    lines = re.findall(r'^\| (.*?) \| (.*) \|$', FIGURES, re.M)
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
    written = re.findall(r'--out (\S+)', '\n'.join(re.findall(r'```sh\n(.*?)```', README + FIGURES, re.S)))
    assert len(written) >= 3 and all(name.startswith('runs/') for name in written)


def test_the_table_of_speeds_shows_what_was_measured():
    names = {'SqueezeNet': 'squeezenet1_0', 'ResNet-18': 'resnet18', 'EfficientNet-B0': 'efficientnet_b0'}
    lines = re.findall(r'^\| ([\w-]+), (\d+ px) \| (.*) \|$', FIGURES, re.M)
    assert [(name, px) for name, px, _ in lines] == [(n, px) for n in names for px in ('224 px', '2048 px')]
    table = pd.read_csv(ROOT/'benchmarks'/'results'/'predict.csv')
    table = table[table.metric == 'CPU speed'].set_index('case').ratio
    for name, px, cells in lines:
        def ratio(text, arch=names[name], px=px):
            return table[table.index.str.fullmatch(rf'{arch}, \d+ of {px}: {text}')].item()
        wanted = [ratio('four views, torch; tta'), max(ratio(f'four views, {n}; tta') for n in ('onnx', 'openvino')),
                  *[ratio(f'four views, {n}; tta') for n in ('bf16', 'int8')], ratio('one view, openvino; get_preds')]
        assert cells == ' | '.join(f'{r:.1f}×' for r in wanted), (name, px)


def find(name, case, metric, column='ours'):
    "One figure of a benchmark"
    table = pd.read_csv(ROOT/'benchmarks'/'results'/f'{name}.csv')
    return table[(table.case == case) & (table.metric == metric)][column].item()


def agree(cell, value):
    "Is a figure as shown, in percent or not, the one that was measured?"
    shown = re.fullmatch(r'([\d.,]+)(%?)(?: (?:s|ms|MB))?', cell)
    digits = shown[1].replace(',', '')
    step = .1**len(digits.partition('.')[2])
    return abs(float(digits) - value*(100 if shown[2] else 1)) <= .501*step


CAMERAS = {'one network, `empty` as a species, on whole photos': (None, 'one stage, whole photos'),
           'the same on windows': (None, 'one stage, windows'),
           'always *animal*': ('always animal', None),
           'two stages, 99% of the animals: small CNN of the 2021 project on photos': (
               'small CNN on photos, 56 px', 'small CNN on photos, 56 px, 99% of the animals'),
           'small CNN on what is different (`modern_cnn`, 56 px)': (
               'small CNN on change, 56 px', 'small CNN on change, 56 px, 99% of the animals'),
           'default network on what is different': (
               'fine-tuned on change, 112 px', 'fine-tuned on change, 112 px, 99% of the animals'),
           'the last two at a threshold of 0.5: small CNN': (None, 'small CNN on change, 56 px, threshold 0.5'),
           'default network': (None, 'fine-tuned on change, 112 px, threshold 0.5')}


def test_the_table_of_camera_traps_shows_what_was_measured():
    lines = re.findall(r'^\| (.*?) \|(.*)\|$', FIGURES, re.M)
    shown = {name: [c.strip() for c in cells.split('|')] for name, cells in lines if name in CAMERAS}
    assert list(shown) == list(CAMERAS)
    for name, (gate, stages) in CAMERAS.items():
        wanted = [('drawn, seeds 0: empty or animal, ' + gate, m) if gate else None for m in ('accuracy', 'AUROC')]
        wanted += [('drawn, seeds 0: ' + stages, m) if stages else None
                   for m in ('accuracy', 'macro_f1', 'animals_kept', 'empties_found')]
        assert len(shown[name]) == len(wanted)
        for cell, at in zip(shown[name], wanted):
            if cell: assert agree(cell, find('camera_traps', *at)), (name, cell, at)
            else: assert at is None or gate == 'always animal', (name, at)
    claimed = re.search(r'would have claimed ([\d.]+) and ([\d.]+) .* has ([\d.]+) and ([\d.]+) over', FIGURES, re.S)
    at = [(m, c) for c in ('ours', 'peer') for m in ('accuracy', 'macro-F1')]
    for cell, (metric, column) in zip(claimed.groups(), at):
        assert agree(cell, find('camera_traps', 'drawn, seeds 0: random split, one stage', metric, column))


def test_the_words_on_sureness_say_what_was_measured():
    text = ' '.join(FIGURES.split())
    ece = re.search(r'calibration error falls from ([\d.]+) to ([\d.]+)', text).groups()
    sets = re.search(r'right species in 90% hold it in (\d+%) with ([\d.]+) species', text).groups()
    stopped, energy, chance = re.search(r'stops (\d+%) \(by energy, AUROC ([\d.]+); by probability ([\d.]+)\)',
                                        text).groups()
    kept = re.search(r'keep 95% of photos of known species keeps (\d+%)', text)[1]
    mean, other = 'mean of runs, four', 'strangers, four'
    for cell, at in [(ece[0], (mean, 'ECE', 'peer')), (ece[1], (mean, 'ECE')),
                     (kept, (mean, 'known photos kept at 95%')),
                     (sets[0], (mean, '90% sets hold the right species')), (sets[1], (mean, '90% sets, size')),
                     (stopped, (other, 'strangers stopped by energy')), (energy, (other, 'AUROC by energy')),
                     (chance, (other, 'AUROC by probability'))]:
        assert agree(cell, find('calibration', *at)), (cell, at)


WIDGETS = {'`browse` opens': ('browse: open', 1), 'memory above the table': ('browse: memory above the manifest', 1),
           'a page of 48 pictures that were not seen before': ('browse: a page of new pictures', 1),
           'a filter and its counts': ('browse: a filter and its counts', 1000), '`review` opens': ('review: open', 1),
           'a decision is on disk, beside 10,000 others': ('review: a decision beside 10,000', 1000)}


def test_the_table_of_widgets_shows_what_was_measured():
    lines = re.findall(r'^\| (.*?) \| (.*?) \| (.*?) \|$', FIGURES, re.M)
    shown = {name: cells for name, *cells in lines if name in WIDGETS}
    assert list(shown) == list(WIDGETS)
    for name, (metric, times) in WIDGETS.items():
        for cell, rows in zip(shown[name], ('100,000 rows', '1,000,000 rows')):
            assert agree(cell, times*find('browse', rows, metric)), (name, cell)


SHORT = { # Of each row: cases, metric, and what is shown of ours and of the peer's; means over the cases
    'main_job': [(r'tf_efficientnet_lite0, seed \d, majority vote of 4 views', 'accuracy', 'ours'),
                 (r'tf_efficientnet_lite0, seed \d, frozen features, logistic regression', 'accuracy', 'ours')],
    'imbalance': [('longtail, modern, vote', 'macro_f1', 'ours'),
                  ('longtail, fastai fine_tune, vote', 'macro_f1', 'ours')],
    'calibration': [('mean of runs, four', 'ECE', 'ours'), ('mean of runs, four', 'ECE', 'peer')],
    'camera_traps': [('drawn, seeds 0: empty or animal, small CNN on change, 56 px', 'accuracy', 'ours'),
                     ('drawn, seeds 0: empty or animal, small CNN on photos, 56 px', 'accuracy', 'ours')],
    'integrity': [('corpus, damage that shows in the bytes, 87 kinds', 'kinds always flagged', 'ours'),
                  ('corpus, damage that shows in the bytes, 87 kinds', 'kinds always flagged', 'peer')],
    'duplicates': [('cropped 5% all, peer within 8 bits', 'copies found', 'ours'),
                   ('cropped 5% all, peer within 8 bits', 'copies found', 'peer')],
    'predict': [(r'squeezenet1_0, \d+ of 2048 px: four views, torch; tta', 'CPU speed', 'ratio'),
                (r'squeezenet1_0, \d+ of 2048 px: four views, bf16; tta', 'CPU speed', 'ratio')],
    'manifests': [('130,000 rows', 'DataLoaders', 'ours'), ('130,000 rows', 'DataLoaders', 'peer')],
    'browse': [('100,000 rows', 'browse: open', 'ours'), ('100,000 rows', 'browse: memory above the manifest', 'ours')],
}
NUMBER = r'(?:(?<= )|(?<=^))\d[\d.,]*%?(?=[×\s,;]|$)'


def test_the_short_table_shows_what_was_measured():
    "The README's own table: the first figure of ours and of the peer's, or two of ours"
    lines = re.findall(r'^\| (?:.*?) \| (.*?) \| ?(.*?) ?\| `benchmarks/(\w+)\.py` \|$', README, re.M)
    assert [name for *_, name in lines] == list(SHORT)
    for ours, peer, name in lines:
        table = pd.read_csv(ROOT/'benchmarks'/'results'/f'{name}.csv')
        both = [c.rstrip(',') for c in re.findall(NUMBER, f'{ours} {peer.rpartition(":")[2]}') if c != '87']
        for cell, (case, metric, column) in zip(both, SHORT[name], strict=name != 'predict'):
            found = table[table.case.str.fullmatch(case) & (table.metric == metric)][column]
            assert len(found) and agree(cell, found.mean()), (name, cell, found.mean())
