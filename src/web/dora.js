// The five measures of delivery, over a chosen period.

import { at as address, now } from './api.js'
import { bars, chartWidth, days, dots, legend } from './charts.js'
import { h, put } from './dom.js'
import { deploymentLink } from './parts.js'
import { at, count, dayOf, kindChip, lasting, plain } from './words.js'

export const EVERY_MS = 60_000
export const DRAWS = true
const WINDOWS = [['7', '7 days'], ['30', '30 days'], ['90', '90 days'], ['365', '1 year']]
const DAY_MS = 86_400_000

const selection = () => {
  const query = new URLSearchParams(location.search)
  return { service: query.get('service') ?? '', days: WINDOWS.some(([days]) => days === query.get('days')) ? query.get('days') : '90' }
}

export const title = () => (selection().service ? `Delivery of ${selection().service}` : 'Delivery')

export async function load(_, get) {
  const { service, days } = selection()
  // Until the end of this day, so that the request is the same all day.
  const until = new Date(Math.ceil(now() / DAY_MS) * DAY_MS)
  const since = new Date(until - days * DAY_MS)
  const [measures, grid] = await Promise.all([
    get(address('/v1/metrics/dora', { service, since: since.toISOString(), until: until.toISOString(), limit: 20 })),
    get('/v1/status'),
  ])
  return { measures, services: grid.services.map(({ slug, name }) => ({ slug, name })) }
}

export function show(main, { measures, services }, _, refresh) {
  const width = chartWidth(main, 23 * 16)
  const { service, days } = selection()
  const choose = (name, options, chosen) => h('select', { name, id: name, change: event => go(event.target.form, refresh) },
    options.map(([value, words]) => h('option', { value, selected: value === chosen }, words)))
  const held = document.activeElement?.id
  put(main, 
    h('div.headline', {}, h('h1', {}, 'Delivery'),
      h('form.choices', { submit: event => event.preventDefault() },
        h('label', { for: 'service' }, 'Service'), choose('service', [['', 'all services'], ...services.map(({ slug, name }) => [slug, name])], service),
        h('label', { for: 'days' }, 'Period'), choose('days', WINDOWS, days))),
    h('p.hint', {}, measures.environments.length ? `Deployments to ${measures.environments.join(', ')}, ` : 'No environment has the tier production, so there is nothing to measure. Period: ',
      dayOf(measures.since), ' to ', dayOf(new Date(Date.parse(measures.until) - 1)), '.'),
    h('div.measures', {}, MEASURES.map(measure => measurePanel(measure, measures, width))))
  if (held === 'service' || held === 'days') document.getElementById(held).focus()
}

function go(form, refresh) {
  const chosen = new FormData(form)
  history.replaceState(null, '', address('/dora', { service: chosen.get('service'), days: chosen.get('days') }))
  refresh()
}

const percent = rate => (rate === null ? null : `${(rate * 100).toFixed(rate > 0 && rate < 0.1 ? 1 : 0)} %`)
const span = seconds => (seconds === null ? null : lasting(seconds * 1000))

function perDay(rate) {
  if (rate >= 1) return `${rate.toFixed(1)} a day`
  if (rate * 7 >= 1) return `${(rate * 7).toFixed(1)} a week`
  return `${(rate * 30).toFixed(1)} a month`
}

// Each has: its field in the API, its name, its meaning, the figure, details, a chart, and a note per deployment.
const MEASURES = [
  {
    field: 'deployment_frequency', name: 'Deployment frequency', means: 'How often a deployment goes live.',
    figure: found => (found.n ? perDay(found.per_day) : null),
    more: found => count(found.n, 'deployment'),
    picture: () => ({ parts: bucket => [['live', bucket.deployments]], kinds: [['live', 'deployments']] }),
  },
  {
    field: 'change_lead_time', name: 'Lead time for changes', means: 'Time from a commit until it is live.',
    figure: found => span(found.p50_seconds),
    more: found => [`90 % within ${span(found.p90_seconds)} · ${count(found.n, 'change')}`,
      found.basis.release > 0 && ` (${found.basis.release} measured from the release’s commit)`],
    picture: () => ({ value: bucket => bucket.lead_time_p50_seconds }),
    row: deployment => span(deployment.p50_seconds),
  },
  {
    field: 'change_fail_rate', name: 'Change fail rate', means: 'Share of deployments that were followed by an incident, a rollback or a hotfix.',
    figure: found => percent(found.rate),
    more: found => `${found.failed} of ${count(found.n, 'deployment')}`,
    picture: () => ({ parts: bucket => [['live', Math.max(0, bucket.deployments - bucket.failed)], ['bad', bucket.failed]], kinds: [['live', 'OK'], ['bad', 'failed']] }),
    row: deployment => deployment.because?.map(plain).join(', '),
  },
  {
    field: 'failed_deployment_recovery_time', name: 'Recovery time', means: 'Time from a failed deployment until its fix is live or the incident is resolved.',
    figure: found => span(found.p50_seconds),
    more: found => [found.n > 0 && `90 % within ${span(found.p90_seconds)} · `, count(found.n, 'recovery').replace('recoverys', 'recoveries'), found.open > 0 && `, ${found.open} still open`],
    picture: () => ({ value: bucket => bucket.recovery_p50_seconds }),
    row: deployment => (deployment.seconds === null ? 'open' : span(deployment.seconds)),
  },
  {
    field: 'deployment_rework_rate', name: 'Rework rate', means: 'Share of hotfixes and rollbacks in all deployments that went live.',
    figure: found => percent(found.rate),
    more: found => `${count(found.hotfixes, 'hotfix').replace('hotfixs', 'hotfixes')}, ${count(found.rollbacks, 'rollback')} in ${count(found.n, 'deployment')}`,
    picture: () => ({ parts: bucket => [['live', Math.max(0, bucket.went_live - bucket.rework)], ['rollback', bucket.rework]], kinds: [['live', 'planned'], ['rollback', 'rework']] }),
  },
]

function measurePanel({ field, name, means, figure, more, picture, row }, measures, width) {
  const found = measures[field]
  const value = figure(found)
  return h('section.panel.measure', {},
    h('h2', {}, name),
    h('p.figure', {}, value ?? '–', value === null && h('span.hidden', {}, 'no data')),
    h('p.meta', {}, value === null && !found.open ? 'No data in this period.' : more(found)),
    draw(name, picture(), measures, width),
    h('p.hint', {}, means, found.left_out.length > 0 && ` Left out: ${found.left_out.map(({ reason, n }) => `${plain(reason)} (${n})`).join(', ')}.`),
    found.deployments.length > 0 && h('details', {}, h('summary', {}, 'Show deployments'),
      h('ul.behind-it', {}, found.deployments.map(deployment => h('li', {},
        deploymentLink(deployment, `${deployment.service} ${deployment.version}`), ' ', h('span.meta', {}, at(deployment.finished_at)), ' ',
        kindChip(deployment.kind), row?.(deployment) && h('b', {}, row(deployment)))))))
}

function draw(name, { parts, kinds, value }, { series, since, until }, width) {
  const ends = days(since, new Date(Date.parse(until) - 1))
  if (parts) {
    const items = series.buckets.map(bucket => ({
      label: `${dayOf(bucket.from)}: ${parts(bucket).map(([kind, n]) => `${n} ${kinds.find(([k]) => k === kind)[1]}`).join(', ')}`,
      parts: parts(bucket),
    }))
    return [bars({ width, items, ends, label: `${name} per ${series.bucket}` }), kinds.length > 1 && legend(kinds)]
  }
  const n = series.buckets.length
  const items = series.buckets.flatMap((bucket, i) => value(bucket) === null ? [] : [{
    at: (i + 0.5) / n, value: value(bucket) / 60, kind: 'live', label: `${dayOf(bucket.from)}: ${span(value(bucket))}`,
  }])
  if (!items.length) return null
  return dots({ width, items, ends, joined: true, label: `${name}, median per ${series.bucket}` })
}
