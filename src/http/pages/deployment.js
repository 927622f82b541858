// A deployment: how it came about, what the gate said, what it brought, and how to go back.

import { at as address, getIfAny } from './api.js'
import { chip, h, icon, outside, put } from './dom.js'
import { command, commit, deploymentLink, facts, forgeOf, panel, placePath, scanParts, trail } from './parts.js'
import { at, count, kindChip, lasting, plain, since, stateChip, ungatedChip } from './words.js'

export const EVERY_MS = 10_000
const WAITING = ['awaiting_approval', 'approved']
export const title = ({ deployment: { service, version, environment } }) => `${service} ${version} to ${environment}`

export async function load([id], get) {
  const deployment = await get(`/v1/deployments/${id}`)
  const { service, environment, release_id, previous_id } = deployment
  const waits = WAITING.includes(deployment.state)
  const [release, about, events, approvals, place, previous, decision] = await Promise.all([
    get(`/v1/releases/${release_id}`),
    get(`/v1/services/${service}`),
    get(address(`/v1/deployments/${id}/events`, { limit: 100 })),
    get(address('/v1/approvals', { release_id, environment, limit: 100 })),
    get(`/v1${placePath(service, environment)}`),
    previous_id && getIfAny(`/v1/deployments/${previous_id}`),
    waits && get(address('/v1/gate', { service, environment, version: deployment.version, requested_by: deployment.requested_by })),
  ])
  return { deployment, release, about, events: events.items.toReversed(), approvals: approvals.items, place, previous, reasons: waits ? decision.reasons : null }
}

export function show(main, data) {
  const { deployment, about } = data
  const { service, version, environment } = deployment
  put(main, 
    trail(h('a', { href: '/' }, 'Board'), h('a', { href: placePath(service, environment) }, `${about.name} in ${environment}`), version),
    h('div.headline', {},
      h('h1', {}, h('span', {}, about.name), ' ', h('code', {}, version), ' ', h('span.to', {}, 'to '), environment),
      h('div.chips', {}, stateChip(deployment.state), kindChip(deployment.kind), ungatedChip(deployment))),
    deployment.reason && h('p.reason', {}, deployment.reason),
    h('div.columns', {},
      h('div', {}, panel('Timeline', timeline(data)), panel('Gate', gate(data)), panel('Approvals', approvals(data))),
      h('div', {}, panel('Release', releaseFacts(data)), panel('Scan', scanParts(data.release.scan)), panel('Commits', commits(data)),
        panel('Rolling back', rollback(data)))),
    panel('History', history(data.events)))
}

const STEPS = {
  'deployment.requested': ['Requested', 'past'],
  'deployment.approved': ['Approved', 'approved'],
  'deployment.started': ['Started', 'running'],
  'deployment.succeeded': ['Live', 'live'],
  'deployment.failed': ['Failed', 'bad'],
  'deployment.cancelled': ['Cancelled', 'past'],
  'deployment.rejected': ['Rejected', 'bad'],
  'deployment.expired': ['Expired', 'past'],
  'deployment.superseded': ['Superseded', 'past'],
  'deployment.rolled_back': ['Rolled back', 'rollback'],
}

/** When something happened, which may have been told later. */
const happenedAt = event => event.payload.at ?? event.payload.requested_at ?? event.at

function timeline({ deployment, events }) {
  const steps = events.filter(event => STEPS[event.action])
  const items = steps.map((event, n) => {
    const [words, kind] = STEPS[event.action]
    const before = n > 0 && Date.parse(happenedAt(event)) - Date.parse(happenedAt(steps[n - 1]))
    const toldAfter = Date.parse(event.at) - Date.parse(happenedAt(event))
    const who = event.action === 'deployment.requested' ? deployment.requested_by : event.actor
    return h(`li.${kind}`, {}, h('span.dot', {}, icon(kind)),
      h('div', {}, h('b', {}, words), ` by ${who}`, before >= 1000 && [' ', h('span.after', {}, `after ${lasting(before)}`)],
        h('p.meta', {}, at(happenedAt(event)), event.actor !== who && `, told by ${event.actor}`,
          toldAfter > 60_000 && `, recorded ${lasting(toldAfter)} later`)))
  })
  const waits = { awaiting_approval: 'Awaits approval', approved: 'May start', running: 'Rolling out' }[deployment.state]
  const last = steps.at(-1)
  return h('ol.timeline', {}, items,
    waits && h('li.open', {}, h('span.dot', {}, icon('waiting')), h('div', {}, h('b', {}, waits), last && [', for ', since(happenedAt(last))],
      deployment.expires_at && h('p.meta', {}, 'until ', at(deployment.expires_at), ' at most'))))
}

function gate({ deployment: { decision, ungated, environment }, reasons: now }) {
  if (!decision) return h('p', {}, 'Nothing is known of a decision.')
  const { allowed, reasons, evaluated_at, facts: known = {} } = decision
  const step = known.step === 'create' ? 'be recorded' : 'start'
  return [
    now && h('p', {}, now.length ? [chip('waiting', 'not yet'), ' What keeps it from starting now:'] : [chip('live', 'yes'), ' Nothing keeps it from starting now.']),
    now && reasonList(now),
    h('p', {}, allowed ? chip('live', 'yes') : chip('bad', 'no'), ' ',
      ungated ? 'It started although the gate said no.' : `The gate ${allowed ? 'let' : 'did not let'} it ${step}.`,
      ' ', h('span.meta', {}, 'Asked ', since(evaluated_at, true), '.')),
    reasonList(reasons),
    h('ul.reasons', {}, sentences(known, environment, new Set(reasons.map(reason => reason.code))).map(([kind, text]) =>
      h(`li.${kind}`, {}, icon(kind), h('span', {}, text)))),
  ]
}

const reasonList = reasons => reasons.length > 0 && h('ul.reasons', {}, reasons.map(reason =>
  h('li', {}, icon('bad'), h('span', {}, reason.detail, reason.until && [' Until ', at(reason.until), '.']))))

/** What the gate went by, where it is no reason already. */
function sentences({ policy, release, freezes = [], incidents = [], opinions = [], is_rollback: isRollback }, environment, codes) {
  if (!policy || !release) return []
  const all = []
  if (policy.require_scan && release.scan_passed) all.push(['live', `${environment} requires a scan; it passed.`])
  if (policy.is_production && release.has_digest) all.push(['live', 'The release names its image.'])
  if (policy.predecessor && release.succeeded_before_at && !codes.has('soaking')) {
    const soak = policy.soak_minutes ? `, and ${lasting(policy.soak_minutes * 60_000)} had passed since` : ''
    all.push(['live', `It had succeeded in ${policy.predecessor}${soak}.`])
  }
  const yes = opinions.filter(opinion => opinion.approved).map(opinion => opinion.approver)
  if (yes.length) all.push(['live', `Approved by ${yes.join(' and ')}; ${environment} requires ${count(policy.required_approvals, 'approval')}.`])
  for (const freeze of freezes) {
    if (freeze.is_overridden) all.push(['ungated', `A freeze (${freeze.reason}) held; an override let it through.`])
    else if (isRollback && freeze.allow_rollback) all.push(['rollback', `A freeze (${freeze.reason}) lets rollbacks through.`])
  }
  for (const incident of incidents) {
    if (incident.is_fixed_by_this) all.push(['hotfix', `It is the fix of an incident: ${incident.title}.`])
  }
  if (!all.length && !codes.size) all.push(['past', `${environment} asked nothing of it.`])
  return all
}

function approvals({ approvals: all, deployment }) {
  if (!all.length) return h('p', {}, `Nobody has said anything about this release in ${deployment.environment}.`)
  return h('ul.reasons', {}, all.map(({ approver, decision, comment, created_at, expires_at, consumed_by, run_url }) =>
    h('li', {}, icon(decision === 'approved' ? 'live' : 'bad'), h('span', {},
      h('b', {}, approver), ` ${plain(decision)} `, since(created_at, true), comment && `: ${comment}`,
      h('span.meta', {}, consumed_by === deployment.id ? ' Used by this deployment.' : consumed_by ? [' Used by ', deploymentLink({ id: consumed_by }, 'another'), '.'] : [' Counts until ', at(expires_at), '.'],
        run_url && [' ', outside(run_url, 'review')])))))
}

const releaseFacts = ({ release, about, deployment, previous }) => facts([
  ['Version', h('code', {}, release.version)],
  release.git_sha && ['Commit', commit(about.repository_url, release.git_sha)],
  release.committed_at && ['Committed', since(release.committed_at, true)],
  ['Image', h('code.long', {}, release.image_digest ?? 'unknown')],
  release.source_url && ['Source', outside(release.source_url, 'at this version')],
  deployment.run_url && ['Run', outside(deployment.run_url, deployment.external_id ?? 'pipeline run')],
  ['Told by', `${deployment.source}${deployment.recorded_by ? `, ${deployment.recorded_by}` : ''}`],
  previous && ['Live before', deploymentLink(previous)],
  deployment.rollback_of && ['Rolls back', deploymentLink({ id: deployment.rollback_of }, previous?.id === deployment.rollback_of ? previous.version : 'a deployment')],
])

function commits({ release, about, deployment, previous }) {
  const [from, to] = [previous?.git_sha, deployment.git_sha]
  const told = release.commits ?? []
  const forge = forgeOf(about.repository_url)
  const isBack = deployment.kind === 'rollback'
  const range = from && to && from !== to && h('p', {},
    isBack ? 'Takes back what came since: ' : `Since ${previous.version}: `,
    forge ? outside(isBack ? forge.range(to, from) : forge.range(from, to), h('code', {}, `${(isBack ? to : from).slice(0, 7)}..${(isBack ? from : to).slice(0, 7)}`))
      : h('code', {}, `${(isBack ? to : from).slice(0, 7)}..${(isBack ? from : to).slice(0, 7)}`))
  if (!range && !told.length) return h('p', {}, from && from === to ? 'The same commit as before.' : 'Which commits it brings was not told.')
  return [range, told.length > 0 && h('ul.commits', {}, told.slice(0, 20).map(one =>
    h('li', {}, commit(about.repository_url, one.sha), ' ', since(one.committed_at, true), one.is_merge && ' (merge)'))),
  told.length > 20 && h('p.hint', {}, `and ${told.length - 20} more`)]
}

const post = (path, body) => command(`curl -sS ${location.origin}${path} \\
  -H "Authorization: Bearer $PROP_KEY" \\
  -H 'Content-Type: application/json' \\
  -d '${JSON.stringify(body)}'`)

function rollback({ deployment, place }) {
  const { service, environment, version, source } = deployment
  // What deploy.sh told of, rollback.sh takes back.
  const script = (...more) => ['script', 'github-actions'].includes(source) && [
    command(`./scripts/rollback.sh ${[environment, ...more].join(' ')} --service ${service}`), h('p.hint', {}, 'That does it all. By hand:')]
  const ask = body => post('/v1/deployments', { service, environment, ...body, rollback: true, start: true })
  const tell = h('p.hint', {}, 'That records the rollback and asks the gate, which lets it pass freezes and incidents. Deploy the version it answers with, then tell prop that it succeeded.')
  if (deployment.state === 'succeeded') {
    return place.previous
      ? [h('p', {}, 'Back to ', deploymentLink(place.previous), ', the last other release that was good here:'), script(), ask({}), tell]
      : h('p', {}, 'No other release was live here before: there is nothing to go back to.')
  }
  if (deployment.state === 'superseded' && place.live?.release_id !== deployment.release_id) {
    return [h('p', {}, 'To this release, from ', place.live && deploymentLink(place.live), ' which is live now:'), script(version), ask({ version }), tell]
  }
  if (deployment.state === 'running') {
    return [h('p', {}, place.live ? ['It is not live yet; ', deploymentLink(place.live), ' is. To give it up:'] : 'It is not live yet. To give it up:'),
      post(`/v1/deployments/${deployment.id}/transitions`, { to: 'cancelled', reason: 'given up' })]
  }
  return h('p', {}, 'It is not live: there is nothing to roll back. ', place.live && ['Live is ', deploymentLink(place.live), '.'])
}

const history = events => h('ol.events', {}, events.map(event =>
  h('li', {}, h('details', {}, h('summary', {}, at(event.at), ' ', h('b', {}, event.actor), ' ', h('code', {}, event.action)),
    h('pre', { tabindex: 0 }, JSON.stringify(event.payload, null, 2))))))
