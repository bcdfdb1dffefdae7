"Review in a real browser, served by Voilà: decisions outlive a change of species, a reload and the kernel"
import csv
import sys

import pytest

LONG = 120_000 # Milliseconds for a kernel to start on a busy machine
SHORT = 60_000 # … and for a click to be answered
NASTY = '<img src=x onerror="window.hit=1">'

pytest.importorskip('voila', reason="voila is not installed: pip install 'snakeid[voila]'")


@pytest.fixture
def folder(six):
    "A notebook that reviews six photos"
    six.write('review.ipynb', "import pandas as pd\nfrom snakeid.explore.review import review\n"
                              "review(pd.read_csv('photos.csv'), 'decisions.csv')")
    return six.folder


def read(file):
    "Decisions of the CSV: decision, species and reason by photo"
    with open(file, newline='', encoding='utf-8') as f:
        return {r['photo_id']: (r['decision'], r['species'], r['reason']) for r in csv.DictReader(f)}


@pytest.mark.timeout(500)
def test_decisions_stay(browser, serve, folder):
    "Decide on three photos, change the species, come back, reload: they are there, and in the file"
    from playwright.sync_api import expect

    expected = dict(p0=('keep', 'boa', ''), p1=('relabel', NASTY, ''), p2=('quarantine', 'boa', 'no animal'))
    said = dict(p0='✓ kept', p1=f'→ {NASTY}', p2='✕ quarantined: no animal')
    command = [sys.executable, '-m', 'voila', 'review.ipynb', '--port={port}', '--no-browser', '--Voila.ip=127.0.0.1']
    with serve(folder, *command) as address:
        page = browser.new_page(viewport=dict(width=1280, height=900))
        try:
            page.set_default_timeout(SHORT)

            def card(photo_id):
                "The innermost box with a photo"
                return page.locator('.widget-vbox').filter(has=page.get_by_alt_text(photo_id, exact=True)).last

            def press(photo_id, name):
                "Click a photo's button"
                card(photo_id).get_by_role('button', name=name, exact=True).click()

            def look(n, texts, within=SHORT):
                "Wait until `n` are decided, and see what each photo says"
                expect(page.get_by_text(f'of 1: {n} photos decided')).to_be_visible(timeout=within)
                for photo_id, text in texts.items():
                    expect(card(photo_id).get_by_text(text, exact=True)).to_be_visible(timeout=SHORT)

            page.goto(address, timeout=LONG)
            look('0 of 6', {}, LONG)
            press('p0', 'keep')
            look('1 of 6', dict(p0=said['p0']))
            assert read(folder/'decisions.csv') == dict(p0=expected['p0'])     # at once
            card('p1').get_by_placeholder('another species').fill(NASTY)
            press('p1', 'relabel')
            look('2 of 6', dict(p1=said['p1']))
            expect(page.get_by_text('is a new species of this collection')).to_be_visible()
            page.get_by_placeholder('why photos are quarantined').fill('no animal')
            press('p2', 'quarantine')
            look('3 of 6', said)
            assert read(folder/'decisions.csv') == expected

            menu = page.get_by_label('species', exact=True)
            menu.select_option(index=2)                                       # all, boa, cobra
            look('1 of 3', dict(p1=said['p1']))
            expect(page.get_by_alt_text('p0', exact=True)).to_have_count(0)
            menu.select_option(index=1)
            look('2 of 3', dict(p0=said['p0'], p2=said['p2']))
            menu.select_option(index=0)
            look('3 of 6', said)

            page.reload(timeout=LONG)                                          # Voilà gives each visit a new kernel
            look('3 of 6', said, LONG)
            expect(page.get_by_placeholder('why photos are quarantined')).to_have_value('')   # which knows nothing else
            assert read(folder/'decisions.csv') == expected
            page.get_by_role('button', name='undo').click()
            look('2 of 6', dict(p0=said['p0'], p1=said['p1']))
            assert set(read(folder/'decisions.csv')) == {'p0', 'p1'}
            assert page.evaluate('window.hit') is None
            # Nothing runs out of a narrow page
            page.set_viewport_size(dict(width=390, height=800))
            page.wait_for_function('document.documentElement.scrollWidth <= window.innerWidth')
        finally: page.close()
    assert sorted(p.name for p in folder.glob('*.jpg')) == [f'{i}.jpg' for i in range(6)]
