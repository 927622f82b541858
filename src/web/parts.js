// Parts that several pages use.

import { chip, h, hostOf, outside } from './dom.js'
import { at, kindChip, lasting, short, since, stateChip, ungatedChip } from './words.js'

/** A part of a page, under a heading. */
export const panel = (heading, ...children) => h('section.panel', {}, h('h2', {}, heading), ...children)

/** A list of names and values. Pairs without a value are left out. */
export const facts = pairs =>
  h('dl.facts', {}, pairs.filter(pair => pair && pair[1]).map(([name, ...value]) => h('div', {}, h('dt', {}, name), h('dd', {}, ...value))))

export const placePath = (service, environment) => `/services/${service}/environments/${environment}`

export const deploymentLink = (deployment, words = deployment.version) => h('a', { href: `/deployments/${deployment.id}` }, words)

/** The path from the board to this page. */
export const trail = (...steps) =>
  h('nav.trail', { 'aria-label': 'Breadcrumb' }, h('ol', {}, steps.map(step => h('li', {}, step))))

/** A commit, with a link if its page is known. */
export function commit(repository, sha) {
  const forge = forgeOf(repository)
  const code = h('code', { title: sha }, short(sha))
  return forge ? outside(forge.commit(sha), code) : code
}

/** The addresses of commits and ranges of commits on a forge; null if the forge is not known. */
export function forgeOf(repository) {
  const base = (repository ?? '').replace(/(\.git)?\/*$/, '')
  const host = hostOf(base)
  if (!host) return null
  if (/(^|\.)gitlab\b/.test(host)) {
    return { commit: sha => `${base}/-/commit/${sha}`, range: (from, to) => `${base}/-/compare/${from}...${to}` }
  }
  if (/(^|\.)(github|gitea|forgejo|codeberg)\b/.test(host)) {
    return { commit: sha => `${base}/commit/${sha}`, range: (from, to) => `${base}/compare/${from}...${to}` }
  }
  return null
}

/** How long a finished deployment took, in ms; null if it has not started or not finished. */
export function duration({ started_at: from, finished_at: to }) {
  return from && to ? Date.parse(to) - Date.parse(from) : null
}

/** A table of deployments. */
export const deploymentTable = deployments =>
  h('div.scroll', { tabindex: 0, role: 'region', 'aria-label': 'Deployments' }, h('table.list', {},
    h('thead', {}, h('tr', {}, ['Version', 'State', 'Requested', 'Took', 'By'].map(name => h('th', { scope: 'col' }, name)))),
    h('tbody', {}, deployments.map(deployment => h('tr', {},
      h('th', { scope: 'row' }, deploymentLink(deployment)),
      h('td', {}, h('div.chips', {}, stateChip(deployment.state), kindChip(deployment.kind), ungatedChip(deployment))),
      h('td', {}, at(deployment.requested_at)),
      h('td.number', {}, duration(deployment) === null ? '–' : lasting(duration(deployment))),
      h('td', {}, deployment.requested_by))))))

/** The result of a scan. */
export function scanParts(scan) {
  if (scan.status === 'missing') return [h('p', {}, chip('unscanned', 'not scanned'))]
  const counts = Object.entries(scan.summary ?? {})
  return [
    h('p', {}, scan.status === 'failed' ? chip('scan', 'scan failed') : chip('scanned', 'scan passed'), ' ',
      scan.tool, scan.at && [' · ', since(scan.at, true)], scan.report_url && [' · ', outside(scan.report_url, 'report')]),
    counts.length > 0 && h('ul.counts', {}, counts.map(([severity, n]) => h(`li.${n ? severity : 'none'}`, {}, h('b', {}, n), ` ${severity}`))),
    scan.max_severity && h('p.hint', {}, ['Fails above ', h('em', {}, scan.max_severity), '.']),
  ]
}
