"The report in a browser: it asks for nothing, its tables sort, it reads in light and dark and on a phone"
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

WAIT = 60_000 # Milliseconds; a busy machine is slow


@pytest.fixture
def visit(browser, trained):
    "Open the report of a small run: `visit(width, scheme)`; the page's lists `said` and `asked` must stay empty"
    pages = []
    def _visit(width=1280, scheme='light', file=None):
        page = browser.new_page(viewport=dict(width=width, height=900), color_scheme=scheme)
        page.set_default_timeout(WAIT)
        pages.append(page)
        address = (file or trained.run/'report.html').resolve().as_uri()
        page.said, page.asked = [], []
        page.on('console', lambda m: page.said.append(m.text))
        page.on('pageerror', lambda e: page.said.append(str(e)))
        page.on('request', lambda r: page.asked.append(r.url) if not r.url.startswith((address, 'data:')) else None)
        page.goto(address)
        return page
    yield _visit
    for page in pages: page.close()


def column(page, i):
    "What the cells of a column of the table of species show"
    return page.eval_on_selector_all('[aria-label="Species"] tbody tr',
                                     f'rows => rows.map(r => r.cells[{i}].textContent)')


def heads(page):
    "The heads of the table of species"
    return page.eval_on_selector_all('[aria-label="Species"] th', 'h => h.map(e => e.textContent)')


def test_asks_for_nothing(visit):
    page = visit()
    page.wait_for_selector('footer')
    loaded = page.eval_on_selector_all('img', 'all => all.map(i => i.complete && i.naturalWidth > 0)')
    assert loaded and all(loaded)
    page.click('nav a >> nth=1')
    assert page.said == [] and page.asked == []


def test_a_foreign_script_does_not_run(visit, trained, tmp_path):
    # As if escaping had failed: the policy stops it all the same
    html = (trained.run/'report.html').read_text(encoding='utf-8')
    evil = '<script>document.title = "taken"</script><img src="https://localhost:9/x" onerror="document.title = 0">'
    (tmp_path/'evil.html').write_text(html.replace('<main>', '<main>' + evil), encoding='utf-8')
    page = visit(file=tmp_path/'evil.html')
    page.wait_for_selector('footer')
    assert page.title().startswith('snakeid run') and any('Content Security Policy' in s for s in page.said)


def test_sorts_numbers_and_names(visit, trained):
    page = visit()
    names = heads(page)
    truth = pd.read_csv(trained.run/'manifest.csv').query("split == 'test'").species.value_counts()
    for i, name in enumerate(names):
        button = page.locator('[aria-label="Species"] th button').nth(i)
        seen = []
        for want in ('ascending', 'descending', 'ascending'):
            button.click()
            page.wait_for_selector(f'[aria-label="Species"] th:nth-child({i+1})[aria-sort={want}]')
            values = page.eval_on_selector_all('[aria-label="Species"] tbody tr', f'''rows => rows.map(r => {{
                const c = r.cells[{i}]; return c.dataset.value ?? c.textContent }})''')
            if name not in ('species', 'group'): values = [float(v) for v in values]
            seen.append(values)
            assert values == sorted(values, reverse=want == 'descending'), (name, want)
            # The rows stay whole: each species keeps its number of test photos
            support = dict(zip(column(page, 0), column(page, names.index('test photos'))))
            assert {s: int(n) for s, n in support.items()} == truth.to_dict()
        assert seen[0] == seen[2] and page.locator('[aria-label="Species"] [aria-sort]').count() == 1
    assert page.said == [] and page.asked == []


def test_sorts_by_the_number_and_not_by_what_it_looks_like(visit, trained, tmp_path):
    from snakeid.report.parts import fill_page, show_table
    table = pd.DataFrame(dict(name=['b', 'a', None, 'c'], size=[1200., 9.004, np.nan, 9.0041]))
    html = fill_page('t', '', [('one', 'One', show_table(table, 'Species'))], '')
    (tmp_path/'page.html').write_text(html, encoding='utf-8')
    page = visit(file=tmp_path/'page.html')
    page.click('th button >> nth=1')
    assert column(page, 0) == ['a', 'c', 'b', '–']       # 9.00 and 9.00 before 1,200; what is missing last
    page.click('th button >> nth=1')
    assert column(page, 0) == ['b', 'c', 'a', '–']
    page.click('th button >> nth=0')
    page.click('th button >> nth=0')
    assert column(page, 0) == ['c', 'b', 'a', '–']


def test_sorts_from_the_keyboard(visit):
    page = visit()
    before = column(page, 0)
    page.locator('[aria-label="Species"] th button').first.focus()
    for key, order in (('Enter', False), ('Space', True)):
        page.keyboard.press(key)
        assert column(page, 0) == sorted(before, reverse=order)


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_fits_a_phone(visit, scheme):
    page = visit(390, scheme)
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    wide = page.evaluate('''[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll')
        && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))''')
    assert wide == []
    # Tables scroll in themselves and can be reached by the keyboard
    assert page.evaluate('''[...document.querySelectorAll('.scroll')].every(e =>
        e.tabIndex === 0 && e.getAttribute('aria-label'))''')
    assert page.evaluate('''(() => { const e = document.querySelector('[aria-label="Species"]');
        e.scrollLeft = 9999; return e.scrollLeft > 0 })()''')


def lightness(pixels):
    "Relative luminance of WCAG 2 of pixels, 0 to 255"
    c = np.asarray(pixels, float)/255
    return np.where(c <= .04045, c/12.92, ((c+.055)/1.055)**2.4) @ [.2126, .7152, .0722]


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_reads_in_light_and_dark(visit, scheme):
    page = visit(1280, scheme)
    ground = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert('RGB'))[2, 2]
    assert (lightness(ground) < .05) == (scheme == 'dark')
    for plot in page.locator('.plot').all():
        seen = lightness(np.asarray(Image.open(io.BytesIO(plot.screenshot())).convert('RGB')))
        dark, bright = np.quantile(seen, .0005) + .05, np.quantile(seen, .9995) + .05
        assert bright/dark > 7                                               # ink on its ground
        edge = np.median(seen[3, 12:-12])                                    # the margin has the page's ground
        assert abs(edge - lightness(ground)) < .02
    assert page.said == []


def test_prints(visit):
    page = visit(794, 'dark')
    page.emulate_media(media='print', color_scheme='dark')
    page.wait_for_function("getComputedStyle(document.querySelector('nav')).display === 'none'")
    assert page.evaluate("getComputedStyle(document.querySelector('.plot')).filter") == 'none'
    cut = page.evaluate('''[...document.querySelectorAll('table, .plot')].filter(e =>
        e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 80))''')
    assert cut == []
