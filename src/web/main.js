// Shows the page of this address and keeps it up to date.

import { Problem, Unreachable, get, key } from './api.js'
import * as board from './board.js'
import * as deployment from './deployment.js'
import { h, put } from './dom.js'
import * as dora from './dora.js'
import * as place from './place.js'
import { clockTime, lasting, updateAges } from './words.js'

const PAGES = [
  [/^\/$/, board],
  [/^\/deployments\/([^/]+)$/, deployment],
  [/^\/services\/([^/]+)\/environments\/([^/]+)$/, place],
  [/^\/dora$/, dora],
]
const MAX_PAUSE_MS = 60_000

const main = document.getElementById('content')
const fresh = document.getElementById('fresh')
const away = document.getElementById('away')
const leave = document.getElementById('leave')

const [pattern, page] = PAGES.find(([pattern]) => pattern.test(location.pathname))
const parts = pattern.exec(location.pathname).slice(1)

let shown = null // what is on the page
let seenAt = null // when the server last answered
let failures = 0
let timer = null
let turn = 0 // responses to an earlier turn are dropped

/** Loads the data, shows it if it has changed, and schedules the next time. */
async function refresh() {
  clearTimeout(timer)
  const mine = ++turn
  try {
    const data = await page.load(parts, get)
    if (mine !== turn) return
    seenAt = Date.now()
    online()
    if (data !== shown && !(shown && JSON.stringify(data) === JSON.stringify(shown))) {
      document.title = `${page.title(data, parts)} · prop`
      page.show(main, data, parts, refresh)
      main.removeAttribute('data-paused')
      shown = data
    }
  } catch (error) {
    if (mine !== turn) return
    if (error instanceof Unreachable) offline()
    else if (error instanceof Problem && (error.status === 401 || error.status === 403)) return signIn(error)
    else if (error instanceof Problem && error.status < 500) return explain(error)
    else {
      offline()
      if (!(error instanceof Problem)) throw error
    }
  } finally {
    if (mine === turn && !main.hasAttribute('data-paused') && !document.hidden) timer = setTimeout(refresh, pause())
  }
}

const pause = () => (failures ? Math.min(MAX_PAUSE_MS, 2_000 * 2 ** (failures - 1)) : page.EVERY_MS)

function online() {
  if (failures) away.hidden = true
  failures = 0
  leave.hidden = !key.get()
  showFreshness()
}

function offline() {
  failures++
  const then = seenAt ? `This is what was known at ${clockTime(seenAt)}.` : 'Nothing has been loaded yet.'
  const text = `The server can't be reached. ${then} Trying again.`
  if (away.textContent !== text) away.textContent = text
  away.hidden = false
  showFreshness()
}

/** Says in the header how old the data on the page is. */
function showFreshness() {
  fresh.classList.toggle('late', failures > 0)
  if (!seenAt) return
  const seconds = Math.round((Date.now() - seenAt) / 1000)
  const text = seconds < 2 ? 'up to date' : `checked ${lasting(seconds * 1000)} ago`
  if (fresh.textContent !== text) fresh.textContent = text
}

const KEY_PROBLEMS = {
  invalid_key: 'Unknown key. Check that you copied all of it.',
  revoked_key: 'This key was revoked.',
  missing_scope: 'This key does not have the read scope.',
}

/** Asks for a key. Nothing is shown without one that may read. */
function signIn(problem) {
  const had = key.get()
  key.forget()
  online()
  seenAt = shown = null
  fresh.textContent = ''
  document.title = 'Sign in · prop'
  main.setAttribute('data-paused', '')
  const why = had && h('p.wrong', { id: 'why', role: 'alert' }, KEY_PROBLEMS[problem.code] ?? problem.message)
  const field = h('input', {
    id: 'key', type: 'password', autocomplete: 'off', spellcheck: 'false', required: true, placeholder: 'prop_…',
    'aria-describedby': had ? 'why kept' : 'kept', 'aria-invalid': had ? 'true' : null,
  })
  const form = h('form.sign-in', { submit: event => enter(event, field) },
    h('h1', {}, 'Sign in'),
    h('label', { for: 'key' }, 'API key (needs the ', h('code', {}, 'read'), ' scope)'),
    why,
    h('div.row', {}, field, h('button', { type: 'submit' }, 'Sign in')),
    h('p.hint', { id: 'kept' }, 'The key stays in this tab until you close it.'))
  put(main, form)
  field.focus()
}

function enter(event, field) {
  event.preventDefault()
  key.set(field.value.trim())
  put(main, h('p.loading', {}, 'Loading…'))
  main.removeAttribute('data-paused')
  refresh()
}

function explain(problem) {
  const heading = problem.status === 404 ? 'Not found' : 'This page can’t be shown'
  online()
  document.title = `${heading} · prop`
  main.setAttribute('data-paused', '')
  put(main, h('section.panel.notice', {},
    h('h1', {}, heading),
    h('p', {}, problem.message),
    h('p', {}, h('a', { href: '/' }, 'Back to the board'))))
}

leave.addEventListener('click', () => {
  key.forget()
  location.reload()
})
document.addEventListener('visibilitychange', () => {
  if (document.hidden) clearTimeout(timer)
  else if (!main.hasAttribute('data-paused')) refresh()
})
window.addEventListener('online', () => !main.hasAttribute('data-paused') && refresh())
let drawing = null
window.addEventListener('resize', () => {
  clearTimeout(drawing)
  if (page.DRAWS && shown) drawing = setTimeout(() => page.show(main, shown, parts, refresh), 200)
})
for (const link of document.querySelectorAll('nav a')) {
  if (link.getAttribute('href') === location.pathname) link.setAttribute('aria-current', 'page')
}
setInterval(showFreshness, 1_000)
setInterval(updateAges, 15_000)
refresh()
