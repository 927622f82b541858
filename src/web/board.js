// The board: every service in every environment.

import { at as address } from './api.js'
import { postCommand } from './copy.js'
import { chip, h, icon, put } from './dom.js'
import { BYPASSED, at, count, kindChip, plain, short, since, state, ungatedChip } from './words.js'

export const EVERY_MS = 5_000
export const title = () => 'Board'
export const load = (_, get) => get('/v1/status')

// Filters with a button: the word in the filter, the kind of icon, the test of a place, and the button's text.
const MARKS = [
  ['incident', 'incident', place => place.incident, n => count(n, 'incident')],
  ['failed', 'bad', place => place.last_failed, n => `${n} failed`],
  ['running', 'running', place => place.running, n => `${n} rolling out`],
  ['waiting', 'waiting', place => place.waiting.length, n => `${n} waiting`],
  ['frozen', 'frozen', place => place.frozen, n => `${n} frozen`],
  ['behind', 'behind', place => place.behind, n => `${n} behind`],
]

const rows = new Map() // service -> {element, text, words, places}
let columns = null // the environments of the table, as JSON
let view = null // {filter, marks, found, body, noMatch}

export function show(main, grid) {
  if (!grid.services.length) {
    columns = view = null
    rows.clear()
    return put(main, firstSteps())
  }
  const wanted = JSON.stringify(grid.environments)
  if (columns !== wanted) {
    columns = wanted
    rows.clear()
    view = frame(main, grid.environments, view?.filter.value ?? new URLSearchParams(location.search).get('q') ?? '')
  }
  update(grid)
  updateMarks(grid)
  sift()
}

function frame(main, environments, filter) {
  const made = {
    filter: h('input', { type: 'search', id: 'filter', placeholder: 'Filter', value: filter, input: sift, 'aria-keyshortcuts': '/',
      'aria-label': 'Filter services', autocomplete: 'off', spellcheck: 'false' }),
    marks: h('div.marks', { role: 'group', 'aria-label': 'Show only' }),
    found: h('p.found', { role: 'status' }),
    body: h('tbody', { role: 'rowgroup' }),
    noMatch: h('p.no-match', { hidden: true }, 'No service matches this filter. ',
      h('button', { type: 'button', click: clear }, 'Clear filter')),
  }
  const head = environments.map(({ slug, name, tier }) =>
    h('th', { scope: 'col', role: 'columnheader', class: tier }, h('span.name', {}, name), slugOf(name, slug)))
  put(main, 
    h('div.toolbar', {}, h('h1.hidden', {}, 'Live versions by service and environment'), h('div.filter', {}, made.filter, h('kbd', { 'aria-hidden': 'true' }, '/')),
      made.marks, made.found),
    h('div', { class: environments.length > 5 ? 'board many' : 'board', tabindex: environments.length > 5 ? 0 : null },
      h('table', { role: 'table', 'aria-label': 'Services by environments' },
        h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, h('th', { scope: 'col', role: 'columnheader' }, 'Service'), head)),
        made.body)),
    made.noMatch)
  return made
}

/** Replaces the rows that have changed and keeps the others. */
function update({ environments, services }) {
  const isFirst = !rows.size
  const held = document.activeElement?.closest?.('tbody a')?.getAttribute('href')
  const present = new Set(services.map(service => service.slug))
  for (const [slug, row] of rows) {
    if (!present.has(slug)) {
      row.element.remove()
      rows.delete(slug)
    }
  }
  const fresh = document.createDocumentFragment()
  let previous = null
  for (const service of services) {
    const text = JSON.stringify(service)
    const known = rows.get(service.slug)
    if (known?.text !== text) {
      const row = makeRow(service, environments, text, known)
      if (known) known.element.replaceWith(row.element)
      else if (isFirst) fresh.append(row.element)
      else if (previous) previous.after(row.element)
      else view.body.prepend(row.element)
      rows.set(service.slug, row)
    }
    previous = rows.get(service.slug).element
  }
  if (isFirst) view.body.append(fresh)
  // A replaced row gets its focus back.
  if (held && document.activeElement === document.body) view.body.querySelector(`a[href="${CSS.escape(held)}"]`)?.focus()
}

function makeRow(service, environments, text, known) {
  const places = new Map(service.places.map(place => [place.environment, place]))
  const texts = new Map(service.places.map(place => [place.environment, JSON.stringify(place)]))
  const cells = environments.map(environment => {
    const place = places.get(environment.slug)
    const isNew = known && known.places.get(environment.slug) !== texts.get(environment.slug)
    const cell = place ? placeCell(service, environment, place) : emptyCell(environment)
    if (isNew) cell.classList.add('changed')
    return cell
  })
  const head = h('th', { scope: 'row', role: 'rowheader' },
    h('a.service', { href: address('/dora', { service: service.slug }), title: 'Delivery metrics' }, service.name),
    slugOf(service.name, service.slug),
    service.owner && [' ', h('span.owner', {}, service.owner)])
  return { element: h('tr', { role: 'row' }, head, cells), text, places: texts, words: wordsOf(service) }
}

/** The slug, unless the name differs from it only in case. */
const slugOf = (name, slug) => name.toLowerCase() !== slug && [' ', h('code.slug', {}, slug)]

function wordsOf({ slug, name, owner, places }) {
  const words = [slug, name, owner]
  for (const place of places) {
    words.push(...MARKS.filter(([, , has]) => has(place)).map(([word]) => `is:${word}`))
    for (const found of [place.live, place.last_failed, place.running, ...place.waiting]) {
      if (found) words.push(found.version, found.git_sha, found.image_digest, found.requested_by, found.ungated && BYPASSED, state(found.state)[1])
    }
    words.push(place.frozen?.reason, place.incident?.title)
  }
  return words.filter(Boolean).join(' ').toLowerCase()
}

const emptyCell = environment =>
  h('td.empty', { role: 'cell' }, h('span.where', {}, environment.name), h('span', { 'aria-hidden': 'true' }, '–'), h('span.hidden', {}, 'no deployments'))

function placeCell(service, environment, { live, last_failed: failed, running, waiting, more_waiting: more, frozen, incident, behind }) {
  const isUnscanned = environment.require_scan && live?.scan === 'missing'
  const history = `/services/${service.slug}/environments/${environment.slug}`
  return h('td', { role: 'cell' },
    h('span.where', {}, environment.name),
    h('a.history', { href: history, title: 'History', 'aria-label': `History of ${service.name} in ${environment.name}` }, icon('history')),
    live ? versionOf(live) : h('p.none', {}, 'nothing live'),
    (incident || frozen || behind || (live && (live.ungated || live.kind !== 'normal' || live.scan === 'failed' || isUnscanned))) && h('div.chips', {},
      incident && chip('incident', `${incident.severity} incident: ${incident.title}`),
      frozen && chip('frozen', 'frozen', frozen.until && [' until ', at(frozen.until)], `: ${frozen.reason}`),
      behind && h('span.chip.behind', { title: `${behind.environment} has ${behind.version}` }, icon('behind'),
        h('span', {}, `${count(behind.releases, 'release')} behind ${behind.environment} (`, since(behind.since), ')')),
      live?.scan === 'failed' && chip('scan', 'scan failed'),
      isUnscanned && chip('unscanned', 'not scanned'),
      live && kindChip(live.kind),
      live && ungatedChip(live)),
    failed && failureOf(failed),
    running && nextOf(running),
    waiting.map(deployment => nextOf(deployment, frozen)),
    more > 0 && h('a.next.waiting', { href: history }, icon('waiting'), h('span', {}, `and ${more} more`)))
}

function versionOf(live) {
  const sha = live.git_sha && short(live.git_sha)
  return [
    h('div.version', {},
      h('a', { href: `/deployments/${live.id}`, 'aria-describedby': `image-${live.id}` }, live.version),
      h('span.tip', { id: `image-${live.id}`, role: 'tooltip' },
        h('span', {}, 'image ', h('code', {}, live.image_digest ?? 'unknown')), ' ',
        h('span', {}, 'commit ', h('code', {}, live.git_sha ?? 'unknown')))),
    h('p.meta', {}, sha && [h('code', {}, sha), ' · '], since(live.since), ' · ', h('span.hidden', {}, 'by '), live.requested_by,
      live.scan === 'passed' && [' ', h('span.scanned', { title: 'scan passed' }, icon('scanned'), h('span.hidden', {}, ' scan passed'))]),
  ]
}

/** A deployment that is not live yet. */
function nextOf(deployment, frozen) {
  const [kind, words] = state(deployment.state)
  return h(`a.next.${kind}`, { href: `/deployments/${deployment.id}` },
    icon(kind), h('span', {}, h('b', {}, deployment.version), ` ${words}`, blockedBy(deployment, frozen), ' · ', since(deployment.since), ` · ${deployment.requested_by}`))
}

/** What blocks a waiting deployment, except the approval that its state already names. */
function blockedBy({ blocked, state: word }, frozen) {
  const codes = (blocked ?? []).filter(code => word !== 'awaiting_approval' || code !== 'approval_missing')
  const reason = code => (code === 'frozen' && frozen?.until ? ['frozen until ', at(frozen.until)] : plain(code))
  return codes.length > 0 && [', blocked: ', codes.map((code, n) => [n > 0 && ', ', reason(code)])]
}

/** The last failed deployment, which is newer than the live one: "1.2.0 failed 2 min ago · first". */
const failureOf = ({ id, version, since: failedAt, requested_by }) =>
  h('a.next.bad', { href: `/deployments/${id}` },
    icon('bad'), h('span', {}, h('b', {}, version), ' failed ', since(failedAt, true), ` · ${requested_by}`))

function updateMarks({ services }) {
  const places = services.flatMap(service => service.places)
  const active = document.activeElement?.dataset?.mark
  put(view.marks, ...MARKS.map(([word, kind, has, label]) => {
    const n = places.filter(has).length
    return h(`button.mark.${n ? kind : 'none'}`, { type: 'button', 'data-mark': word, click: () => toggle(`is:${word}`) }, icon(kind), label(n))
  }))
  if (active) view.marks.querySelector(`[data-mark="${active}"]`)?.focus()
}

function toggle(term) {
  const terms = view.filter.value.split(/\s+/).filter(Boolean)
  view.filter.value = (terms.includes(term) ? terms.filter(other => other !== term) : [...terms, term]).join(' ')
  sift()
}

function clear() {
  view.filter.value = ''
  sift()
  view.filter.focus()
}

/** Shows the rows that contain every word of the filter. */
function sift() {
  const wanted = view.filter.value.trim()
  const terms = wanted.toLowerCase().split(/\s+/).filter(Boolean)
  let n = 0
  for (const row of rows.values()) {
    const fits = terms.every(term => row.words.includes(term))
    if (row.element.hidden === fits) row.element.hidden = !fits
    if (fits) n++
  }
  const text = terms.length ? `${n} of ${count(rows.size, 'service')}` : count(rows.size, 'service')
  if (view.found.textContent !== text) view.found.textContent = text
  view.noMatch.hidden = n > 0
  for (const mark of view.marks.children) mark.setAttribute('aria-pressed', terms.includes(`is:${mark.dataset.mark}`))
  const here = address('/', { q: wanted })
  if (here !== location.pathname + location.search) history.replaceState(null, '', here)
}

/** What an empty ledger shows: two steps to a first live deployment. */
function firstSteps() {
  const deployment = { service: 'hello', environment: 'development', version: '1.0.0', state: 'succeeded', create_missing: true }
  return h('section.panel.notice', {}, h('h1', {}, 'No deployments yet'),
    h('p', {}, 'Two steps to your first one:'),
    h('ol.steps', {},
      h('li', {}, h('p', {}, 'Run this command in a shell where ', h('code', {}, 'PROP_KEY'), ' is an API key with the ', h('code', {}, 'deploy'),
        ' scope. It records a deployment that has already succeeded, and creates its service and environment.'),
      postCommand('/v1/deployments', deployment)),
      h('li', {}, h('p', {}, 'This page shows it within five seconds.'))),
    h('p.hint', {}, 'For a ledger with a week of history, run ', h('code', {}, `./scripts/demo.sh ${location.origin}`),
      ' in a clone of the repository. It needs a key with the ', h('code', {}, 'admin'), ' scope. ',
      h('a', { href: '/docs/' }, 'Browse the API')))
}

document.addEventListener('keydown', event => {
  if (event.key === '/' && view && !event.target.closest('input, textarea, select') && !event.metaKey && !event.ctrlKey) {
    event.preventDefault()
    view.filter.focus()
  }
  if (event.key === 'Escape' && event.target === view?.filter) clear()
  // Escape hides a tooltip until the focus comes back.
  if (event.key === 'Escape') document.activeElement?.closest?.('.version')?.classList.add('tipless')
})
document.addEventListener('focusout', event => event.target.closest?.('.version')?.classList.remove('tipless'))
