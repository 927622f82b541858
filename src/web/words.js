// Times, states and counts as the pages show them.

import { now } from './api.js'
import { chip, h } from './dom.js'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

/** A duration, rounded: "45 s", "4 min", "3 h 20 min", "2 d". */
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

/** The range between two durations: "4–6 min", "50 s – 2 min"; one duration if both read the same. */
export function lastingBetween(least, most) {
  const [from, to] = [lasting(least), lasting(most)]
  if (from === to) return from
  const [unit, otherUnit] = [from, to].map(text => /^\d+ (\D+)$/.exec(text)?.[1])
  return unit && unit === otherUnit ? `${parseInt(from)}–${to}` : `${from} – ${to}`
}

/** An age in one unit: "just now", "4 min", "3 h", "2 d". */
function age(ms) {
  if (ms < MINUTE) return 'just now'
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

/** The age of a time; it keeps growing, and the exact time is shown on hover. With `ago`: "4 min ago". */
export function since(iso, ago = false) {
  const element = h('time.age', { datetime: iso, title: exact.format(new Date(iso)), 'data-ago': ago })
  showAge(element)
  return element
}

/** A point in time, as a date. */
export const at = iso => h('time', { datetime: iso, title: exact.format(new Date(iso)) }, brief.format(new Date(iso)))

function showAge(element) {
  const text = age(now() - Date.parse(element.dateTime))
  const full = element.hasAttribute('data-ago') && text !== 'just now' ? `${text} ago` : text
  if (element.textContent !== full) element.textContent = full
}

/** Brings every age on the page up to date. */
export const updateAges = () => document.querySelectorAll('time.age').forEach(showAge)

const STATES = {
  awaiting_approval: ['waiting', 'waiting for approval'],
  approved: ['approved', 'approved'],
  running: ['running', 'rolling out'],
  succeeded: ['live', 'live'],
  failed: ['bad', 'failed'],
  cancelled: ['past', 'cancelled'],
  rejected: ['bad', 'rejected'],
  expired: ['past', 'expired'],
  superseded: ['past', 'superseded'],
  rolled_back: ['rollback', 'rolled back'],
}

/** A word of the API for people. It works for words that these pages do not know yet. */
export const plain = word => word.replaceAll('_', ' ')

/** [the kind of chip, the words] of a state. */
export const state = word => STATES[word] ?? ['past', plain(word)]

export function stateChip(word) {
  const [kind, words] = state(word)
  return chip(kind, words)
}

/** The kind of a deployment, unless it is normal. */
export const kindChip = kind => (kind === 'normal' ? null : chip(kind, plain(kind)))

export const BYPASSED = 'bypassed the gate'

export const ungatedChip = deployment => (deployment.ungated ? chip('ungated', BYPASSED) : null)

export const short = sha => sha.slice(0, 7)

/** "1 release", "2 releases". */
export const count = (n, noun) => `${n} ${noun}${n === 1 ? '' : 's'}`
