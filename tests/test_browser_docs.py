"""The documentation site as a browser shows it: every page, on this machine, without anything from elsewhere.

The site is built here, once; SNAKEID_DOCS names one that is built already.
"""
import contextlib
import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip('nbdev', reason="nbdev is not installed: it comes with the dev extra")
pytest.importorskip('smalldocs', reason="smalldocs is not installed: it comes with the dev extra")
ROOT = Path(__file__).resolve().parents[1]
SLOW = 60_000 # Milliseconds that a busy machine may take for a page


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The folder of a built site"
    if named := os.environ.get('SNAKEID_DOCS'):
        if not (Path(named)/'index.html').is_file(): pytest.fail(f"SNAKEID_DOCS names {named!r}, where no site is")
        return Path(named).resolve()
    folder = tmp_path_factory.mktemp('docs')/'site'
    done = subprocess.run([sys.executable, '.ci/docs.py', '--to', str(folder)], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500)
    # Broken links and whatever else the build itself finds
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture(scope='module')
def pages(site): return sorted(path.relative_to(site).as_posix() for path in site.rglob('*.html'))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


@pytest.fixture(scope='module')
def address(site):
    "Where the site is served, on a free port of this machine"
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try: yield f'http://127.0.0.1:{server.server_port}/'
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextlib.contextmanager
def opened(browser, address, **options):
    "A page that notes what goes wrong, and gets nothing from any other place than `address`"
    context = browser.new_context(**options)
    context.set_default_timeout(SLOW)
    page, wrong = context.new_page(), []

    def route(way):
        if way.request.url.startswith((address, 'data:', 'blob:')): return way.continue_()
        wrong.append(f"asks for {way.request.url[:90]}")
        way.abort()

    context.route('**/*', route)
    page.on('console', lambda m: wrong.append(f"console: {m.text[:150]}") if m.type == 'error' else None)
    page.on('pageerror', lambda e: wrong.append(f"script: {str(e)[:150]}"))
    page.on('response', lambda r: wrong.append(f"{r.status} for {r.url}") if r.status >= 400 else None)
    try: yield page, wrong
    finally: context.close()


# What is wrong with a page, seen from inside it, and where it leads on this site
LOOK = """() => {
  const wrong = [], links = new Set();
  for (const img of document.images) {
    if (img.complete && !img.naturalWidth) wrong.push('no picture: ' + img.src.slice(0, 80));
    if (!img.alt) wrong.push('a picture without words: ' + img.src.slice(0, 40));
  }
  if (!document.querySelector('h1')?.textContent.trim()) wrong.push('no title');
  for (const a of document.querySelectorAll('a[href]')) {
    const url = new URL(a.href.baseVal ?? a.href, location.href);
    if (url.origin === location.origin) links.add(url.pathname.slice(1) + url.hash);
  }
  return [wrong, [...links]];
}"""
# What is wider than the screen and in no box that moves: the page itself, or something that the page cuts off
WIDE = """() => {
  const screen = document.documentElement.clientWidth, page = document.documentElement.scrollWidth;
  const moves = e => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || moves(e.parentElement));
  const wide = [...document.querySelectorAll('main *')].find(
    e => e.getBoundingClientRect().right > screen + 1 && getComputedStyle(e).visibility !== 'hidden' && !moves(e));
  return page > screen + 1 ? `the page is ${page} pixels wide` : wide ? `cut off: ${wide.outerHTML.slice(0, 90)}` : '';
}"""
DARK = "dark => document.documentElement.classList.contains('quarto-dark') === dark"


@pytest.mark.parametrize('part', range(4))               # each with the time that a test may take
def test_every_page(browser, address, site, pages, part):
    "No broken link, picture or script, nothing from elsewhere, nothing wider than a large screen or a small one"
    places = {page: set(re.findall(r'\s(?:id|name)="([^"]+)"', (site/page).read_text(encoding='utf-8')))
              for page in pages}
    found = []
    with opened(browser, address) as (page, wrong):
        for name in pages[part::4]:
            wrong.clear()
            page.emulate_media(color_scheme='light')
            page.set_viewport_size(dict(width=1280, height=900))
            page.goto(address + name, wait_until='load')
            seen, links = page.evaluate(LOOK)
            for link in links:
                path, _, anchor = link.partition('#')
                path = unquote(path) + ('index.html' if path.endswith('/') or not path else '')
                if path not in places and not (site/path).is_file(): seen.append(f"leads nowhere: {link}")
                elif anchor and unquote(anchor) not in places.get(path, ()): seen.append(f"no such place: {link}")
            for width, scheme in ((1280, 'light'), (390, 'dark')):
                page.emulate_media(color_scheme=scheme)
                page.set_viewport_size(dict(width=width, height=900))
                page.wait_for_function(DARK, arg=scheme == 'dark')
                if wide := page.evaluate(WIDE): seen.append(f"on {width} pixels {wide}")
            found += [f"{name}: {what}" for what in dict.fromkeys([*wrong, *seen])]
    assert len(pages) > 90 and not found, '\n'.join(found)


def test_every_module_has_a_page(site, pages):
    modules = {p.relative_to(ROOT/'snakeid').with_suffix('').as_posix().replace('/', '.')
               for p in (ROOT/'snakeid').rglob('*.py') if p.stem[0] != '_'}
    assert {f'api/{name}.html' for name in modules} <= set(pages)
    floors = ''.join((site/page).read_text(encoding='utf-8') for page in pages if page.startswith('house/'))
    assert [name for name in modules if f'href="../api/{name}.html"' not in floors] == []


def contrast(page, selector):
    "How far the letters of an element stand out from what is behind them, by the rule of WCAG 2 (1 to 21)"
    return page.evaluate("""selector => {
      const shine = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v/12.92 : ((v + .055)/1.055)**2.4);
                           return .2126*r + .7152*g + .0722*b; };
      const read = c => (c.match(/[\\d.]+/g) || []).map(Number);
      const el = document.querySelector(selector), front = read(getComputedStyle(el).color);
      let behind = [255, 255, 255], layers = [];
      for (let e = el; e; e = e.parentElement) {
        const c = read(getComputedStyle(e).backgroundColor), a = c.length > 3 ? c[3] : 1;
        if (a > 0) layers.push([c, a]);
        if (a === 1) break;
      }
      for (const [c, a] of layers.reverse()) behind = behind.map((v, i) => v*(1 - a) + c[i]*a);
      const [hi, lo] = [shine(front.slice(0, 3)), shine(behind)].sort((x, y) => y - x);
      return (hi + .05)/(lo + .05);
    }""", selector)


@pytest.mark.parametrize('width', [1280, 390])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_search_finds_predict(browser, address, width, scheme):
    with opened(browser, address, viewport=dict(width=width, height=900), color_scheme=scheme) as (page, wrong):
        page.goto(address + 'index.html', wait_until='load')
        field = page.locator('.quarto-navbar-tools input[type=search]')
        if not field.is_visible(): page.locator('.navbar-toggler').click()
        field.fill('predict')
        page.locator('.search-result').first.wait_for()
        sections = page.locator('.search-result-section').all_inner_texts()
        assert any(text.startswith('predict_') for text in sections), sections
        for part in ('.search-result-title', '.search-result-section', '.search-result-text', 'input[type=search]'):
            assert contrast(page, part) >= 4.5, part
        page.locator('.search-result', has_text='predict_').first.click()
        page.wait_for_url('**/api/*.html**')
        assert not wrong


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_tables_and_diagrams_can_be_read(browser, address, scheme):
    with opened(browser, address, viewport=dict(width=1280, height=900), color_scheme=scheme) as (page, _):
        page.goto(address + 'api/data.balance.html', wait_until='load')
        page.wait_for_function(DARK, arg=scheme == 'dark')
        head = page.locator('.docments thead').first
        assert head.inner_text().split() == ['argument', 'type', 'default', 'details']
        for part in ('main p', '.docments td', '.docments td code', 'table.dataframe td', 'main pre code', '#TOC a'):
            assert contrast(page, part) >= 4.5, part
        source = page.locator('a.source-link').first.get_attribute('href')
        assert re.search(r'/blob/main/snakeid/data/balance\.py#L\d+$', source)
        page.goto(address + 'house/data.html', wait_until='load')
        boxes = page.locator('svg.house a')
        assert boxes.count() > 30
        page.locator('svg.house a', has_text='clean').first.click()
        page.wait_for_url('**/api/data.clean.html')


def test_the_toggle_changes_the_colours_and_is_remembered(browser, address):
    with opened(browser, address, viewport=dict(width=1280, height=900), color_scheme='light') as (page, wrong):
        page.goto(address + 'index.html', wait_until='load')
        dark = "document.documentElement.classList.contains('quarto-dark')"
        assert not page.evaluate(dark)
        page.locator('.quarto-color-scheme-toggle').first.click()
        page.wait_for_function(dark)
        page.goto(address + 'house/index.html', wait_until='load')
        page.wait_for_function(dark)
        assert not wrong
