// How times and states are said.

import { now } from './api.js'
import { chip, h } from './dom.js'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

/** A length of time, roughly: "45 s", "4 min", "3 h 20 min", "2 d". */
export function lasting(ms) {
  if (ms < MINUTE) return `${Math.max(0, Math.round(ms / 1000))} s`
  if (ms < HOUR) return `${Math.round(ms / MINUTE)} min`
  if (ms < 10 * HOUR) {
    const minutes = Math.round(ms / MINUTE)
    return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`
  }
  if (ms < 2 * DAY) return `${Math.round(ms / HOUR)} h`
  return `${Math.round(ms / DAY)} d`
}

/** How long ago, in one unit: "now", "4 min", "3 h", "2 d". */
function age(ms) {
  if (ms < MINUTE) return 'now'
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} min`
  if (ms < 2 * DAY) return `${Math.floor(ms / HOUR)} h`
  return `${Math.floor(ms / DAY)} d`
}

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' })
const brief = new Intl.DateTimeFormat(undefined, { weekday: 'short', day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' })
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' })
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', timeZone: 'UTC' })

export const clockTime = ms => clock.format(ms)
export const dayOf = iso => day.format(new Date(iso))

/** A time as its age, which goes on; the exact time on hover. `ago` says "4 min ago" rather than "4 min". */
export function since(iso, ago = false) {
  const element = h('time.age', { datetime: iso, title: exact.format(new Date(iso)), 'data-ago': ago })
  tell(element)
  return element
}

/** A point in time, as a date. */
export const at = iso => h('time', { datetime: iso, title: exact.format(new Date(iso)) }, brief.format(new Date(iso)))

function tell(element) {
  const text = age(now() - Date.parse(element.dateTime))
  const said = element.hasAttribute('data-ago') && text !== 'now' ? `${text} ago` : text
  if (element.textContent !== said) element.textContent = said
}

/** Lets every age on the page go on. */
export const grow = () => document.querySelectorAll('time.age').forEach(tell)

const STATES = {
  awaiting_approval: ['waiting', 'awaits approval'],
  approved: ['approved', 'may start'],
  running: ['running', 'rolling out'],
  succeeded: ['live', 'live'],
  failed: ['bad', 'failed'],
  cancelled: ['past', 'cancelled'],
  rejected: ['bad', 'rejected'],
  expired: ['past', 'expired'],
  superseded: ['past', 'superseded'],
  rolled_back: ['rollback', 'rolled back'],
}

/** Words of the API that these pages do not know yet are shown as they are. */
export const plain = word => word.replaceAll('_', ' ')

/** [the kind of chip, the words] of a state. */
export const state = word => STATES[word] ?? ['past', plain(word)]

export function stateChip(word) {
  const [kind, words] = state(word)
  return chip(kind, words)
}

/** What a deployment is besides normal. */
export const kindChip = kind => (kind === 'normal' ? null : chip(kind, plain(kind)))

export const ungatedChip = deployment => (deployment.ungated ? chip('ungated', 'past the gate') : null)

export const short = sha => sha.slice(0, 7)

/** "1 release", "2 releases". */
export const count = (n, noun) => `${n} ${noun}${n === 1 ? '' : 's'}`
