// A deployment: its steps, the gate's decision, its release, and how to finish it or roll it back.

import { at as address, getIfAny } from './api.js'
import { command, copyable, postCommand } from './copy.js'
import { chip, h, icon, outside, put } from './dom.js'
import { commit, deploymentLink, facts, forgeOf, panel, placePath, scanParts, trail } from './parts.js'
import { at, count, kindChip, lasting, plain, since, stateChip, ungatedChip } from './words.js'

export const EVERY_MS = 10_000
const WAITING = ['awaiting_approval', 'approved']
const SOURCES = { api: 'API', script: 'deploy.sh', 'github-actions': 'deploy.sh in GitHub Actions', github: 'GitHub webhook' }
// The sources that deploy.sh reports with: it also reports the result, and rollback.sh can undo it.
const OF_SCRIPTS = ['script', 'github-actions']
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
    waits && get(address('/v1/gate', { deployment: id })),
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
      h('div', {}, panel('Timeline', timeline(data)), deployment.state === 'running' && panel('Report the result', result(data)),
        panel('Gate', gate(data)), panel('Approvals', approvals(data))),
      h('div', {}, panel('Release', releaseFacts(data)), panel('Scan', scanParts(data.release.scan)), panel('Commits', commits(data)),
        deployment.state !== 'running' && panel('Roll back', rollback(data)))),
    panel('History', history(data.events)))
}

const STEPS = {
  'deployment.requested': ['Requested', 'past'],
  'deployment.approved': ['Approved', 'approved'],
  'deployment.approval_withdrawn': ['Approval withdrawn', 'waiting'],
  'deployment.started': ['Started', 'running'],
  'deployment.succeeded': ['Live', 'live'],
  'deployment.failed': ['Failed', 'bad'],
  'deployment.cancelled': ['Cancelled', 'past'],
  'deployment.rejected': ['Rejected', 'bad'],
  'deployment.expired': ['Expired', 'past'],
  'deployment.superseded': ['Superseded', 'past'],
  'deployment.rolled_back': ['Rolled back', 'rollback'],
}

/** When something happened. It may have been reported later. */
const happenedAt = event => event.payload.at ?? event.payload.requested_at ?? event.at

function timeline({ deployment, events }) {
  const steps = events.filter(event => STEPS[event.action])
  const items = steps.map((event, n) => {
    const [words, kind] = STEPS[event.action]
    const before = n > 0 && Date.parse(happenedAt(event)) - Date.parse(happenedAt(steps[n - 1]))
    const delay = Date.parse(event.at) - Date.parse(happenedAt(event))
    const who = event.action === 'deployment.requested' ? deployment.requested_by : event.actor
    return h(`li.${kind}`, {}, h('span.dot', {}, icon(kind)),
      h('div', {}, h('b', {}, words), ` by ${who}`, before >= 1000 && [' ', h('span.after', {}, `after ${lasting(before)}`)],
        h('p.meta', {}, at(happenedAt(event)), reportedBy(event.actor !== who && event.actor, delay > 60_000 && delay))))
  })
  const open = { awaiting_approval: 'Waiting for approval', approved: 'Approved, waiting to start', running: 'Rolling out' }[deployment.state]
  const last = steps.at(-1)
  return h('ol.timeline', {}, items,
    open && h('li.open', {}, h('span.dot', {}, icon('waiting')), h('div', {}, h('b', {}, open), last && [' since ', at(happenedAt(last)), ' (', since(happenedAt(last)), ')'],
      deployment.expires_at && h('p.meta', {}, 'Expires ', at(deployment.expires_at)))))
}

/** Who reported a step, if it was somebody else, and how much later. */
const reportedBy = (other, delay) =>
  (other || delay) && [', reported', other && ` by ${other}`, delay && ` ${lasting(delay)} later`]

function gate({ deployment: { decision, ungated, environment }, reasons: now }) {
  if (!decision) return h('p', {}, 'No gate decision is recorded.')
  const { allowed, reasons, evaluated_at, facts: known = {} } = decision
  const step = known.step === 'create' ? 'on request' : 'at the start'
  return [
    now && h('p', {}, now.length ? [chip('waiting', 'blocked'), ' It can’t start now:'] : [chip('live', 'allowed'), ' It can start now.']),
    now && reasonList(now),
    h('p', {}, allowed ? chip('live', 'allowed') : chip('bad', 'blocked'), ` Checked ${step}, `, since(evaluated_at, true), '.',
      ungated && ' It started although the gate blocked it.'),
    reasonList(reasons),
    h('ul.reasons', {}, sentences(known, environment, new Set(reasons.map(reason => reason.code))).map(([kind, text]) =>
      h(`li.${kind}`, {}, icon(kind), h('span', {}, text)))),
  ]
}

const reasonList = reasons => reasons.length > 0 && h('ul.reasons', {}, reasons.map(reason =>
  h('li', {}, icon('bad'), h('span', {}, reason.detail, reason.until && h('span.meta', {}, ' Until ', at(reason.until), ' local time.')))))

/**
 * The checks that passed, and what was bypassed. Old decisions call the reviews `opinions`, and have
 * `has_digest` and `is_overridden` instead of the digest and of the override's id.
 */
function sentences({ policy, release, freezes = [], incidents = [], opinions = [], reviews = opinions, is_rollback: isRollback }, environment, codes) {
  if (!policy || !release) return []
  const all = []
  if (policy.require_scan && release.scan_passed) all.push(['live', `Scan passed (${environment} requires one).`])
  if (policy.is_production && (release.image_digest ?? release.has_digest)) all.push(['live', 'Image digest recorded.'])
  if (policy.predecessor && release.succeeded_before_at && !codes.has('soaking')) {
    const soak = policy.soak_minutes ? ` at least ${lasting(policy.soak_minutes * 60_000)} earlier` : ''
    all.push(['live', `Succeeded in ${policy.predecessor}${soak}.`])
  }
  const yes = reviews.filter(review => review.approved).map(review => review.approver)
  if (yes.length) all.push(['live', `Approved by ${yes.join(' and ')} (${environment} requires ${count(policy.required_approvals, 'approval')}).`])
  for (const freeze of freezes) {
    if (freeze.overridden_by ?? freeze.is_overridden) all.push(['ungated', `A freeze was active (${freeze.reason}). An override allowed this deployment.`])
    else if (isRollback && freeze.allow_rollback) all.push(['rollback', `A freeze was active (${freeze.reason}). It allows rollbacks.`])
  }
  for (const incident of incidents) {
    if (incident.is_fixed_by_this) all.push(['hotfix', `Fixes an incident: ${incident.title}.`])
  }
  if (!all.length && !codes.size) {
    const hasChecks = policy.is_production || policy.require_scan || policy.predecessor || policy.required_approvals > 0
    all.push(['past', hasChecks ? 'No check applied at this step.' : `${environment} has no checks.`])
  }
  return all
}

function approvals({ approvals: all, deployment }) {
  if (!all.length) return h('p', {}, deployment.decision?.facts?.policy?.required_approvals === 0 ? `${deployment.environment} needs no approval.` : 'No approvals.')
  return h('ul.reasons', {}, all.map(({ approver, decision, comment, at: given, created_at, expires_at, consumed_by, run_url }) =>
    h('li', {}, icon(decision === 'approved' ? 'live' : 'bad'), h('span', {},
      h('b', {}, approver), ` ${plain(decision)} `, since(given ?? created_at, true), comment && `: ${comment}`,
      h('span.meta', {}, consumed_by === deployment.id ? ' Used by this deployment.' : consumed_by ? [' Used by ', deploymentLink({ id: consumed_by }, 'another deployment'), '.'] : [' Valid until ', at(expires_at), '.'],
        run_url && [' ', outside(run_url, 'review')])))))
}

const releaseFacts = ({ release, about, deployment, previous }) => facts([
  ['Version', h('code', {}, release.version)],
  release.git_sha && ['Commit', copyable(release.git_sha, 'commit', commit(about.repository_url, release.git_sha))],
  release.committed_at && ['Committed', since(release.committed_at, true)],
  deployment.before_commit && ['Clocks', 'It started more than a day before its newest commit: one of the two times is wrong.'],
  ['Image', release.image_digest ? copyable(release.image_digest, 'image digest') : 'unknown'],
  release.source_url && ['Source', outside(release.source_url, 'code of this version')],
  deployment.run_url && ['Run', outside(deployment.run_url, deployment.external_id ?? 'pipeline run')],
  ['Reported by', [deployment.recorded_by, `(${SOURCES[deployment.source] ?? deployment.source})`].filter(Boolean).join(' ')],
  ['Deployment', copyable(deployment.id, 'deployment id')],
  previous && ['Live before', deploymentLink(previous)],
  deployment.rollback_of && ['Rolls back', deploymentLink({ id: deployment.rollback_of }, previous?.id === deployment.rollback_of ? previous.version : 'another deployment')],
])

function commits({ release, about, deployment, previous }) {
  const [from, to] = [previous?.git_sha, deployment.git_sha]
  const reported = release.commits ?? []
  const forge = forgeOf(about.repository_url)
  const isBack = deployment.kind === 'rollback'
  const range = from && to && from !== to && h('p', {},
    isBack ? 'Removes ' : `Since ${previous.version}: `,
    forge ? outside(isBack ? forge.range(to, from) : forge.range(from, to), h('code', {}, `${(isBack ? to : from).slice(0, 7)}..${(isBack ? from : to).slice(0, 7)}`))
      : h('code', {}, `${(isBack ? to : from).slice(0, 7)}..${(isBack ? from : to).slice(0, 7)}`))
  if (!range && !reported.length) return h('p', {}, from && from === to ? `Same commit as ${previous.version}.` : 'No commits were reported.')
  return [range, reported.length > 0 && h('ul.commits', {}, reported.slice(0, 20).map(one =>
    h('li', {}, commit(about.repository_url, one.sha), ' ', since(one.committed_at, true), one.is_merge && ' (merge)'))),
  reported.length > 20 && h('p.hint', {}, `and ${reported.length - 20} more`)]
}

/** The commands that end a running deployment. */
function result({ deployment, place }) {
  const { id, version, environment, source } = deployment
  const report = (to, purpose) => postCommand(`/v1/deployments/${id}/transitions`, { to }, purpose)
  return [
    h('p', {}, OF_SCRIPTS.includes(source)
      ? 'deploy.sh reports the result when it ends. If it was interrupted, run one of these commands.'
      : 'prop does not watch the rollout. When it ends, run one of these commands.',
    place.live && [' Until then, ', deploymentLink(place.live), ` stays live in ${environment}.`]),
    report('succeeded', `It succeeded: ${version} is live`),
    report('failed', 'It failed'),
    report('cancelled', 'To cancel it'),
    h('p.hint', {}, 'To explain the result, add ', h('code', {}, '"reason": "..."'), ' to the body. This page shows it.'),
  ]
}

function rollback({ deployment, place }) {
  const { service, environment, version, source } = deployment
  const commands = (body, ...more) => [
    OF_SCRIPTS.includes(source) && [
      command(`./scripts/rollback.sh ${[environment, ...more].join(' ')} --service ${service}`, 'Roll back with the script'),
      h('p.hint', {}, 'The script does every step. To do it by hand:')],
    postCommand('/v1/deployments', { service, environment, ...body, rollback: true, start: true }, 'Record a rollback'),
    h('p.hint', {}, 'This records the rollback. Open incidents do not block it, nor do freezes that allow rollbacks. ',
      'Deploy the version in the response, then report the result.'),
  ]
  if (deployment.state === 'succeeded') {
    return place.previous
      ? [h('p', {}, 'Back to ', deploymentLink(place.previous), ', the previous good release:'), commands({})]
      : h('p', {}, 'No other release was live here before, so there is nothing to roll back to.')
  }
  if (deployment.state === 'superseded' && place.live?.release_id !== deployment.release_id) {
    return [h('p', {}, 'Back to this release', place.live && [' from ', deploymentLink(place.live), ', which is live now'], ':'), commands({ version }, version)]
  }
  return h('p', {}, 'This deployment is not live, so there is nothing to roll back.', place.live && [' ', deploymentLink(place.live), ' is live.'])
}

const history = events => h('ol.events', {}, events.map(event =>
  h('li', {}, h('details', {}, h('summary', {}, at(event.at), ' ', h('b', {}, event.actor), ' ', h('code', {}, event.action)),
    h('pre', { tabindex: 0 }, JSON.stringify(event.payload, null, 2))))))
