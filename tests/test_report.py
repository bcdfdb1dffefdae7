"The report as a file: names that are HTML, nothing from outside, tables that can be sorted, older and odd runs"
import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

ODD = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', 'A & B "c" \'d\'', '$x^2$', r'$\frac{$', '_x',
       '{{ 7*7 }}', 'Pseudocerastes persicus fieldi var. longissima, from the far side of the mountains', '蛇',
       '# | **bold** \\|']


class Page(HTMLParser):
    "Collect tags, addresses and text; the text of scripts and styles apart"
    def __init__(self, html):
        super().__init__()
        self.tags, self.links, self.on, self.text, self.inside = [], [], [], [], []
        self.feed(html)
    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag in ('script', 'style'): self.inside.append(tag)
        self.links += [v or '' for k, v in attrs if k in ('src', 'href', 'srcset', 'action', 'data', 'poster')]
        self.on += [k for k, v in attrs if k.startswith('on')]
    def handle_endtag(self, tag):
        if tag in ('script', 'style'): self.inside.pop()
    def handle_data(self, data):
        if not self.inside: self.text.append(data)


@pytest.fixture
def make_run(tmp_path):
    "Write a run of made-up answers: `make_run(truth, said, **columns of the predictions)`, the photos being real files"
    from snakeid.report.page import write_run
    from snakeid.train.fit import Fitted
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path/'photo.jpg')
    def _make(truth, said, train=(), name='run', extra=None, **columns):
        species, n = [*truth, *train], len(truth)
        ids = [f'p{i}' for i in range(len(species))]
        manifest = pd.DataFrame(dict(photo_id=ids, path=str(tmp_path/'photo.jpg'), species=species, flag='',
                                     split=['test']*n + ['train']*len(train), **(extra or {})))
        predictions = pd.DataFrame(dict(photo_id=manifest.photo_id[:n], path=manifest.path[:n],
                                        species=pd.array(said, dtype='str'), flag='') | columns)
        history = pd.DataFrame(dict(epoch=[1], train_loss=1., valid_loss=1., accuracy=1., macro_f1=1.,
                                    stage='all layers'))
        return write_run(tmp_path/name, manifest, Fitted(history, .1, 0), predictions)
    return _make


def _read(run):
    "The report's HTML"
    from snakeid.report.page import write_report
    return write_report(run).read_text(encoding='utf-8')


def _part(html, key):
    "A section of the report"
    return html.split(f'<section id="{key}">')[1].split('</section>')[0]


def test_names_stay_text(make_run):
    html = _read(make_run(ODD, ODD[1:] + ODD[:1], ODD*2, confidence=.9, vote_share=1.))
    page = Page(html)
    text = ' '.join(page.text)
    assert page.tags.count('script') == 1 and page.on == [] and 'x' not in page.links
    assert all(f' {name} ' in f' {text} ' or name in page.text for name in ODD)
    assert '49' not in [t.strip() for t in page.text]                       # no template of a name was filled in


def test_nothing_from_outside(make_run):
    html = _read(make_run(['a', 'b', 'b'], ['a', 'a', 'b'], ['a', 'b'], confidence=.9, vote_share=1.))
    page = Page(html)
    assert page.links and [u[:40] for u in page.links if not u.startswith(('data:image/', '#'))] == []
    assert not set(page.tags) & {'link', 'iframe', 'object', 'embed', 'base', 'form', 'video', 'audio'}
    assert 'url(' not in html and '@import' not in html and '://' not in html
    assert all(f'id="{u[1:]}"' in html for u in page.links if u.startswith('#'))
    # The policy lets through the script that is there, and no other
    script = re.search(r'<script>(.*?)</script>', html, re.S)[1]
    seal = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{seal}'" in html and "default-src 'none'" in html


def test_tables_carry_their_numbers(make_run):
    html = _part(_read(make_run(['a']*3 + ['b'], ['a', 'a', 'b', 'b'], ['a']*1200 + ['b'], confidence=.9)), 'species')
    assert re.search(r'<th scope="col" data-kind="text" class="text"><button type="button">species</button>', html)
    assert re.search(r'<th scope="col" data-kind="number"><button type="button">recall</button>', html)
    assert 'data-value="0.666667">0.67</td>' in html and 'data-value="1200">1,200</td>' in html
    assert len(re.findall(r'<th scope="col"', html)) == len(re.findall(r'<button type="button">', html))


def test_states_its_size(make_run):
    run = make_run(['a', 'b'], ['a', 'a'], ['a', 'b'])
    html = _read(run)
    assert f'This file of {(run.folder/"report.html").stat().st_size/1e3:,.0f} KB' in html


def test_older_runs(make_run, tmp_path):
    # Versions before calibration, or before confidences were kept; and a bundle that was cut short
    run = make_run(['a', 'b'], ['a', 'a'], ['a', 'b'])
    html = _read(run)
    assert 'hold no confidences' in html and 'no model card' in html and 'not calibrated' in html
    (run.folder/'bundle').mkdir()
    info = dict(format=1, weights_sha256='0'*64, size=64, dropout=0., species=['a', 'b'], notes={},
                body=dict(library='timm', arch='old', mean=[0, 0, 0], std=[1, 1, 1]))
    (run.folder/'bundle'/'bundle.json').write_text(json.dumps(info))
    html = _read(run)
    assert '2 species by old' in html and 'no model card' not in html and 'not calibrated' in html
    for text in ('{"format": 3', '[]', '{}', '{"calibration": {"four/mean": 1}, "notes": []}'):
        (run.folder/'bundle'/'bundle.json').write_text(text)
        assert 'no model card' in _read(run)


def test_calibration(make_run):
    run = make_run(['a', 'a', 'b', 'b'], ['a', 'b', 'b', 'b'], ['a', 'b'], confidence=[.9, .6, .8, 1.0000001])
    (run.folder/'bundle').mkdir()
    found = dict(photos=40, temperature=1.25, keep=.95, thresholds=dict(vote_share=.5, energy=2.),
                 ece=dict(before=.2, after=.1))
    info = dict(calibration={'four/mean': found}, manifest='ab'*32)
    (run.folder/'bundle'/'bundle.json').write_text(json.dumps(info))
    html = _part(_read(run), 'sureness')
    # Bins hold .9, .6, .8 and 1: gaps .1, .6, .2 and 0, of a photo each
    assert f'<b>{(.1+.6+.2)/4:.3f}</b>expected calibration error' in html and html.count('<img class="plot') == 2
    for text in ('>1.25<', 'vote share 0.5; energy 2', '>four/mean<', '>0.20<', '>–<'): assert text in html, text


@pytest.mark.parametrize('truth, said', [
    (['a'], ['a']), (['a'], ['b']), (['a'], [None]), (['a', 'a'], ['unknown', 'unknown']),
    (['a', 'b'], ['never seen', 'unknown']), (['unknown', 'b'], ['unknown', 'b']),
    (['a', 'b', 'c'], [None, None, None])])
def test_few_and_odd_answers(make_run, truth, said):
    sure = [np.nan if s is None else .5 for s in said]
    flags = ['truncated' if s is None else '' for s in said]
    html = _read(make_run(truth, said, truth, confidence=sure, vote_share=sure, flag=flags))
    wrong = sum(t != s for t, s in zip(truth, said))
    assert html.count('<figure>') == wrong and ('No test photo was named wrongly' in html) == (not wrong)
    wall = _part(html, 'mistakes')
    assert wall.count('left\n<b>unknown</b>') == sum(s == 'unknown' != t for t, s in zip(truth, said))
    assert wall.count('truncated') == said.count(None)


def test_species_without_a_test_photo(make_run):
    html = _part(_read(make_run(['a', 'b'], ['a', 'b'], ['a', 'b', 'untested one'])), 'species')
    before, after = html.split('<h3>Not tested')
    assert 'untested one' in after and 'untested one' not in before


@pytest.mark.parametrize('column', ['licence', 'license', 'rights', 'License'])
def test_licences(make_run, column):
    html = _part(_read(make_run(['a', 'b'], ['a', 'b'], ['a'], extra={column: ['CC0', '<CC BY>', None]})), 'data')
    for text in ('CC0', '&lt;CC BY&gt;', 'not stated'): assert text in html.split('<h3>Licences')[1]


def test_pairs_show_both_species(make_run):
    html = _part(_read(make_run(['a', 'a', 'b', 'c'], ['b', 'a', 'b', 'unknown'], ['c'], confidence=.5)), 'confusion')
    assert 'a, named b: 1 of 2 photos' in html and 'b, named rightly' in html
    # unknown is no species with photos
    assert 'c, named unknown' not in html and html.count('<div class="pair">') == 1
    assert html.count('data:image/jpeg') == 2


def test_limits_order_and_place(make_run, tmp_path):
    from snakeid.report.page import write_report
    run = make_run(['a']*4 + ['b']*2, ['b', 'c', 'b', 'a', 'a', 'unknown'], ['a', 'b'],
                   confidence=[.5, .7, .9, .99, .6, .3])
    (tmp_path/'own').mkdir()
    html = write_report(run, tmp_path/'own'/'page.html', mistakes=3, pairs=1).read_text(encoding='utf-8')
    assert not (run.folder/'report.html').exists()
    assert re.findall(r'at (\d+)%', _part(html, 'mistakes')) == ['90', '70', '60'] and html.count('<figure>') == 3
    assert html.count('<div class="pair">') == 1 and _read(run).count('<div class="pair">') == 2
    assert '<b>1</b>left unknown' in html and 'The weights of epoch 1 were kept' in html


def test_sureness_is_of_the_nearest_species(make_run):
    "Also of photos that are called unknown"
    html = _part(_read(make_run(list('aabb'), ['a', 'unknown', 'b', 'unknown'], ['a', 'b'], named=list('aaba'),
                                confidence=[.9, .8, .6, .5])), 'sureness')
    assert '<b>0.700</b>mean confidence' in html and '<b>0.750</b>share named rightly' in html


def test_names_and_numbers_are_read_as_they_were_written(make_run, tmp_path):
    from snakeid.report.page import write_run
    run = make_run(['NA', 'nan', 'None'], ['nan', 'NA', 'None'])
    assert run.manifest.species.tolist() == ['NA', 'nan', 'None']
    assert run.predictions.species.tolist() == ['nan', 'NA', 'None']
    ids = ['007', '7', '1e3']
    again = write_run(tmp_path/'again', run.manifest.assign(photo_id=ids), run.fitted,
                      run.predictions.assign(photo_id=ids))
    assert again.manifest.photo_id.tolist() == again.predictions.photo_id.tolist() == ids


# Figures

def test_confusion_tells_who_is_taken_for_whom(make_run):
    "Rows are the truth; what is no species of the table has a column and a colour of its own"
    from snakeid.report.confusion import tabulate_confusion
    from snakeid.report.plots import plot_confusion
    run = make_run(list('aaaabbc'), ['b', 'unknown', None, None, 'b', 'never tested', 'c'], ['a'])
    table = tabulate_confusion(run.predictions, run.manifest)
    assert table.loc['a'].to_dict() == dict(a=0, b=1, c=0, others=0, unknown=1, unreadable=2)
    assert table.loc['b'].to_dict() == dict(a=0, b=1, c=0, others=1, unknown=0, unreadable=0)
    images = [i.get_array()[..., :3] for i in plot_confusion(run.predictions, run.manifest).axes[0].images]
    assert np.array_equal((images[0] < .99).any(-1), table[table.index] > 0)
    darkest = dict(zip(table.columns[3:], [i[i.sum(-1).argmin()][0] for i in images[1:]]))
    assert darkest['others'][0] > darkest['others'][2] + .2          # as other wrong names, and no grey
    assert max(np.ptp(darkest['unknown']), np.ptp(darkest['unreadable'])) < .01


def test_confusion_of_a_part_and_of_the_worst(make_run):
    from snakeid.report.plots import plot_confusion
    run = make_run(list('aabbc'), list('abbbc'))
    manifest = run.manifest.assign(split=['valid', *['test']*4])
    def name_rows(*args, **options):
        ax = plot_confusion(run.predictions, manifest, *args, **options).axes[0]
        return sorted(t.get_text() for t in ax.get_yticklabels())
    assert name_rows() == ['a (1)', 'b (2)', 'c (1)'] and name_rows(None) == ['a (2)', 'b (2)', 'c (1)']
    assert name_rows(most=1) == ['a (1)']


def test_recall_lies_in_its_interval(make_run):
    from snakeid.report.plots import plot_recall
    run = make_run(list('aaaabbb'), list('aaabbbb'), list('ab'))
    drawn = [s for c in plot_recall(run.predictions, run.manifest).axes[0].containers
             for s in c.lines[2][0].get_segments()]
    scored = run.summary().species
    assert sorted(tuple(s[:, 1]) for s in drawn) == [pytest.approx(pair) for pair in
                                                     sorted(zip(scored.recall_low, scored.recall_high))]


def test_says_what_the_run_says(trained):
    # What the page says is what run.json says
    html = (trained.run/'report.html').read_text(encoding='utf-8')
    test = json.loads((trained.run/'run.json').read_text())['test']
    assert f"<b>{test['accuracy']:.3f}</b>accuracy" in html and f"<b>{test['macro_f1']:.3f}</b>macro-F1" in html
    assert (trained.run/'report.html').stat().st_size < 1e6
    card = _part(html, 'model')
    assert 'tf_efficientnet_lite0' in card and 'four/mean' in card and '**' not in card


def test_species_that_are_numbers(tmp_path):
    "A run whose species look like numbers is read as it was written"
    from snakeid.report.page import read_run, write_run
    from snakeid.train.fit import Fitted
    names = ['1', '2', '007', '7']
    manifest = pd.DataFrame(dict(photo_id=list('abcd'), path=[f'{i}.jpg' for i in 'abcd'], species=names, split='test',
                                 flag=''))
    said = pd.DataFrame(dict(photo_id=list('abcd'), species=['1', None, '007', '7'], confidence=.5, flag=''))
    history = pd.DataFrame(dict(stage=['all layers'], epoch=0, train_loss=1., valid_loss=1., accuracy=.5, macro_f1=.5))
    write_run(tmp_path, manifest, Fitted(history, .1, 0), said)
    run = read_run(tmp_path)
    assert list(run.manifest.species) == names and run.summary().accuracy == run.info['test']['accuracy'] == .75
    assert set(run.summary().species.index) == set(names)


def test_nearly_all_is_not_all(tmp_path):
    from snakeid.report.parts import show_table
    from snakeid.report.plots import plot_confusion
    truth = pd.DataFrame(dict(photo_id=[str(i) for i in range(301)], path='a.jpg', species=['boa']*300 + ['viper'],
                              split='test', flag=''))
    said = pd.DataFrame(dict(photo_id=truth.photo_id, species=['boa']*299 + ['viper']*2, confidence=.5, flag=''))
    cells = [t.get_text() for t in plot_confusion(said, truth).axes[0].texts]
    assert {'>99%', '<1%', '100%'} <= set(cells) and '0%' not in cells
    assert '–' in show_table(pd.DataFrame(dict(a=[np.float32('nan')])), 'nothing') and 'nan' not in show_table(
        pd.DataFrame(dict(a=[np.float32('nan')])), 'nothing')
    shares = show_table(pd.DataFrame(dict(recall=[1., .9967, .995001, .994])), 'shares')
    for shown in ('data-value="1">1.00<', '>0.9967<', 'data-value="0.995001">0.9950<', 'data-value="0.994">0.99<'):
        assert shown in shares
