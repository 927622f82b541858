// A place (one service in one environment): what is live there, and its history.

import { at as address } from './api.js'
import { bars, chartWidth, days, dots, legend } from './charts.js'
import { chip, h, put } from './dom.js'
import { deploymentLink, deploymentTable, duration, panel, placePath, trail } from './parts.js'
import { at, count, kindChip, lasting, lastingBetween, since, state, ungatedChip } from './words.js'

export const EVERY_MS = 15_000
export const DRAWS = true
const DAY_MS = 86_400_000
const FAILED = ['failed', 'cancelled', 'rolled_back']

export const title = ({ about }, [, environment]) => `${about.name} in ${environment}`

export async function load([service, environment], get) {
  const [place, about, deployments, incidents] = await Promise.all([
    get(`/v1${placePath(service, environment)}`),
    get(`/v1/services/${service}`),
    get(address('/v1/deployments', { service, environment, limit: 100 })),
    get(address('/v1/incidents', { service, environment, limit: 10 })),
  ])
  return { place, about, deployments: deployments.items, hasMore: Boolean(deployments.next), incidents: incidents.items }
}

export function show(main, { place, about, deployments, hasMore, incidents }, [service, environment]) {
  const width = chartWidth(main, 28 * 16, 2)
  put(main, 
    trail(h('a', { href: '/' }, 'Board'), h('a', { href: address('/dora', { service }) }, about.name), environment),
    h('div.headline', {}, h('h1', {}, about.name, ' ', h('span.to', {}, 'in '), environment)),
    h('div.cards', {},
      card('Live', place.live, deployment => ['went live ', since(deployment.finished_at ?? deployment.requested_at, true)]),
      card('Rolling out', place.running, deployment => ['started ', since(deployment.started_at ?? deployment.requested_at, true)]),
      card('Rollback target', place.previous, deployment => ['went live ', at(deployment.finished_at ?? deployment.requested_at)], false)),
    h('div.columns.even', {},
      panel('Cadence', cadence(deployments, width)),
      panel('Duration', durations(deployments, width))),
    incidents.length > 0 && panel('Incidents', h('ul.reasons', {}, incidents.map(incident => h('li', {},
      chip(incident.resolved_at ? 'past' : 'incident', incident.severity), h('span', {}, incident.title, ' ',
        h('span.meta', {}, since(incident.detected_at, true), incident.resolved_at
          ? `, resolved after ${lasting(Date.parse(incident.resolved_at) - Date.parse(incident.detected_at))}` : ', ongoing')))))),
    panel(hasMore ? 'The last 100 deployments' : count(deployments.length, 'deployment'), deploymentTable(deployments)))
}

/** A deployment of this place. `when` is a line about its time. */
function card(heading, deployment, when, hasChips = true) {
  if (!deployment) return h('section.card.none', {}, h('h2', {}, heading), h('p', {}, 'none'))
  return h('section.card', {}, h('h2', {}, heading), h('p.version', {}, deploymentLink(deployment)),
    h('p.meta', {}, when(deployment), ` · ${deployment.requested_by}`), hasChips && h('div.chips', {}, kindChip(deployment.kind), ungatedChip(deployment)))
}

/** How often: deployments per day, or per week if they go further back. */
function cadence(all, width) {
  const deployments = all.filter(deployment => deployment.started_at)
  if (!deployments.length) return h('p', {}, 'No deployments here yet.')
  const times = deployments.map(deployment => Date.parse(deployment.started_at))
  const [first, last] = [Math.min(...times), Date.now()]
  const step = last - first > 35 * DAY_MS ? 7 * DAY_MS : DAY_MS
  const from = Math.floor(first / DAY_MS) * DAY_MS
  const items = Array.from({ length: Math.max(7, Math.ceil((last - from) / step)) }, (_, n) => {
    const [begin, end] = [from + n * step, from + (n + 1) * step]
    const within = deployments.filter((_, i) => times[i] >= begin && times[i] < end)
    const of = test => within.filter(test).length
    const bad = of(deployment => FAILED.includes(deployment.state))
    const back = of(deployment => deployment.kind === 'rollback' && !FAILED.includes(deployment.state))
    return { label: `${days(new Date(begin), new Date(begin))[0]}: ${count(within.length, 'deployment')}, ${bad} failed, ${back} rollbacks`,
      parts: [['live', within.length - bad - back], ['rollback', back], ['bad', bad]] }
  })
  const end = new Date(from + items.length * step - 1)
  return [
    bars({ width, items, ends: days(new Date(from), end), label: `Deployments per ${step === DAY_MS ? 'day' : 'week'}; ${deployments.length} in all` }),
    legend([['live', 'succeeded'], ['rollback', 'rollback'], ['bad', 'failed, cancelled or rolled back']]),
  ]
}

/** How long: the duration of each deployment, and the median. */
function durations(deployments, width) {
  const timed = deployments.filter(deployment => duration(deployment) !== null).toReversed()
  if (!timed.length) return h('p', {}, 'No deployment has finished here yet.')
  const sorted = timed.map(duration).sort((a, b) => a - b)
  const median = (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2
  const times = timed.map(deployment => Date.parse(deployment.started_at))
  const [first, last] = [Math.min(...times), Math.max(...times)]
  const items = timed.map((deployment, n) => ({
    at: last > first ? 0.02 + (0.96 * (times[n] - first)) / (last - first) : 0.5,
    value: duration(deployment) / 60_000,
    kind: FAILED.includes(deployment.state) ? 'bad' : 'live',
    label: `${deployment.version}: ${lasting(duration(deployment))}, ${state(deployment.state)[1]}`,
  }))
  return [
    dots({ width, items, line: median / 60_000, ends: days(new Date(first), new Date(last)),
      label: `Duration of ${count(timed.length, 'deployment')}, median ${lasting(median)}` }),
    h('p.meta', {}, `Median ${lasting(median)} (${lastingBetween(sorted[0], sorted.at(-1))})`),
  ]
}
