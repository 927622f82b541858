// Looks at where it is, shows that page, and keeps it fresh.

import { Away, Problem, get, key } from './api.js'
import * as board from './board.js'
import * as deployment from './deployment.js'
import { h, put } from './dom.js'
import * as dora from './dora.js'
import * as place from './place.js'
import { clockTime, grow, lasting } from './words.js'

const PAGES = [
  [/^\/$/, board],
  [/^\/deployments\/([^/]+)$/, deployment],
  [/^\/services\/([^/]+)\/environments\/([^/]+)$/, place],
  [/^\/dora$/, dora],
]
const LONGEST_PAUSE_MS = 60_000

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
let turn = 0 // answers of an earlier turn are no longer wanted

/** Asks, shows what is new, and comes back later. */
async function refresh() {
  clearTimeout(timer)
  const mine = ++turn
  try {
    const data = await page.load(parts, get)
    if (mine !== turn) return
    seenAt = Date.now()
    reached()
    if (data !== shown && !(shown && JSON.stringify(data) === JSON.stringify(shown))) {
      document.title = `${page.title(data, parts)} · prop`
      page.show(main, data, parts, refresh)
      main.removeAttribute('data-asks')
      shown = data
    }
  } catch (error) {
    if (mine !== turn) return
    if (error instanceof Away) lost()
    else if (error instanceof Problem && (error.status === 401 || error.status === 403)) return signIn(error)
    else if (error instanceof Problem && error.status < 500) return explain(error)
    else {
      lost()
      if (!(error instanceof Problem)) throw error
    }
  } finally {
    if (mine === turn && !main.hasAttribute('data-asks') && !document.hidden) timer = setTimeout(refresh, pause())
  }
}

const pause = () => (failures ? Math.min(LONGEST_PAUSE_MS, 2_000 * 2 ** (failures - 1)) : page.EVERY_MS)

function reached() {
  if (failures) away.hidden = true
  failures = 0
  leave.hidden = !key.get()
  tellAge()
}

function lost() {
  failures++
  const then = seenAt ? `This is what was known at ${clockTime(seenAt)}.` : 'There is nothing to show yet.'
  const text = `The server can't be reached. ${then} Trying again.`
  if (away.textContent !== text) away.textContent = text
  away.hidden = false
  tellAge()
}

/** How old what is on the page is. */
function tellAge() {
  fresh.classList.toggle('late', failures > 0)
  if (!seenAt) return
  const seconds = Math.round((Date.now() - seenAt) / 1000)
  const text = seconds < 2 ? 'up to date' : `checked ${lasting(seconds * 1000)} ago`
  if (fresh.textContent !== text) fresh.textContent = text
}

/** No key, or one that may not read: nothing is shown until there is one. */
function signIn(problem) {
  const had = key.get()
  key.forget()
  reached()
  seenAt = shown = null
  fresh.textContent = ''
  document.title = 'Sign in · prop'
  main.setAttribute('data-asks', '')
  const why = had && h('p.wrong', { id: 'why', role: 'alert' },
    problem.code === 'invalid_key' ? 'This key is not known. Was all of it pasted?' : problem.message)
  const field = h('input', {
    id: 'key', type: 'password', autocomplete: 'off', spellcheck: 'false', required: true, placeholder: 'prop_…',
    'aria-describedby': had ? 'why kept' : 'kept', 'aria-invalid': had ? 'true' : null,
  })
  const form = h('form.sign-in', { submit: event => enter(event, field) },
    h('h1', {}, 'Sign in'),
    h('label', { for: 'key' }, 'A key of prop, with the scope ', h('code', {}, 'read')),
    why,
    h('div.row', {}, field, h('button', { type: 'submit' }, 'Look')),
    h('p.hint', { id: 'kept' }, 'It stays in this tab: it is forgotten when you close it.'))
  put(main, form)
  field.focus()
}

function enter(event, field) {
  event.preventDefault()
  key.set(field.value.trim())
  put(main, h('p.loading', {}, 'Loading…'))
  main.removeAttribute('data-asks')
  refresh()
}

function explain(problem) {
  reached()
  document.title = 'Not found · prop'
  main.setAttribute('data-asks', '')
  put(main, h('section.panel.notice', {},
    h('h1', {}, problem.status === 404 ? 'There is no such thing' : 'This can’t be shown'),
    h('p', {}, problem.message),
    h('p', {}, h('a', { href: '/' }, 'Back to the board'))))
}

leave.addEventListener('click', () => {
  key.forget()
  location.reload()
})
document.addEventListener('visibilitychange', () => {
  if (document.hidden) clearTimeout(timer)
  else if (!main.hasAttribute('data-asks')) refresh()
})
window.addEventListener('online', () => !main.hasAttribute('data-asks') && refresh())
let drawing = null
window.addEventListener('resize', () => {
  clearTimeout(drawing)
  if (page.DRAWS && shown) drawing = setTimeout(() => page.show(main, shown, parts, refresh), 200)
})
for (const link of document.querySelectorAll('nav a')) {
  if (link.getAttribute('href') === location.pathname) link.setAttribute('aria-current', 'page')
}
setInterval(tellAge, 1_000)
setInterval(grow, 15_000)
refresh()
