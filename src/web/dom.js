// Creates elements. Strings become text, never markup.

const SVG = 'http://www.w3.org/2000/svg'

/** h('a.version', {href}, 'text', node, null): an element with classes, attributes and children. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag.split('.', 1)[0]), tag, attributes, children)

/** The same in SVG. */
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag.split('.', 1)[0]), tag, attributes, children)

function fill(element, tag, attributes, children) {
  const dot = tag.indexOf('.')
  if (dot > 0) element.setAttribute('class', tag.slice(dot + 1).replaceAll('.', ' '))
  for (const name in attributes) {
    const value = attributes[name]
    if (typeof value === 'function') element.addEventListener(name, value)
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value)
  }
  add(element, children)
  return element
}

function add(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) add(element, child)
    else if (child !== null && child !== undefined && child !== false) element.append(child)
  }
}

/** Replaces the children of an element. */
export function put(element, ...children) {
  element.replaceChildren()
  add(element, children)
}

/** The host that an http or https URL names; null for any other text, which an old ledger may hold. */
export function hostOf(url) {
  if (!/^https?:\/\//i.test(url ?? '')) return null
  try {
    return new URL(url).hostname
  } catch {
    return null
  }
}

/** A link to another site. Only http and https become links; the ledger may hold any text. */
export function outside(url, ...children) {
  if (!hostOf(url)) return h('span', {}, ...children)
  return h('a.outside', { href: url, rel: 'noopener noreferrer' }, ...children, icon('outside'))
}

const PATHS = {
  live: 'M3 8.5 6.5 12 13 4.5',
  running: 'M13.5 8A5.5 5.5 0 1 1 8 2.5',
  waiting: 'M8 2a6 6 0 1 1 0 12A6 6 0 0 1 8 2ZM8 4.8V8l2.2 1.6',
  approved: 'M4.5 2.5v11l8-5.5-8-5.5Z',
  frozen: 'M8 1.5v13M2.4 4.8l11.2 6.4M13.6 4.8 2.4 11.2M6 2.5l2 1.6 2-1.6M6 13.5l2-1.6 2 1.6',
  incident: 'M8 2 14.5 13.5h-13L8 2ZM8 6.5v3.2M8 11.4v.4',
  scan: 'M8 1.8 13 3.7v4c0 3.2-2.2 5.3-5 6.5-2.8-1.2-5-3.3-5-6.5v-4L8 1.8ZM6.2 6l3.6 3.8M9.8 6 6.2 9.8',
  unscanned: 'M8 1.8 13 3.7v4c0 3.2-2.2 5.3-5 6.5-2.8-1.2-5-3.3-5-6.5v-4L8 1.8ZM8 5v3.2M8 10.2v.4',
  scanned: 'M8 1.8 13 3.7v4c0 3.2-2.2 5.3-5 6.5-2.8-1.2-5-3.3-5-6.5v-4L8 1.8ZM5.8 7.8l1.6 1.6 2.9-3.2',
  behind: 'M3.5 3.5h9M8 6.5v7M4.8 10.3 8 13.5l3.2-3.2',
  ungated: 'M2 8h8.5M7.5 4.5 11 8l-3.5 3.5M13.5 2.5v3M13.5 10.5v3',
  rollback: 'M5.5 2.5 2 6l3.5 3.5M2 6h7.5a4 4 0 0 1 0 8H6',
  hotfix: 'M9 1.5 3.5 9H8l-1 5.5L12.5 7H8l1-5.5Z',
  redeploy: 'M3 6.5A5.2 5.2 0 0 1 12.6 5M13 9.5A5.2 5.2 0 0 1 3.4 11M12.8 2v3.2H9.6M3.2 14v-3.2h3.2',
  bad: 'M4 4l8 8M12 4l-8 8',
  past: 'M3.5 8h9',
  history: 'M2.2 8a5.8 5.8 0 1 0 1.9-4.3L2 5.6M2 2v3.6h3.6M8 5v3.2l2.2 1.4',
  copy: 'M6 5.5h7.5V14H6ZM3.5 10.5H2.5V2H10v1.5',
  outside: 'M6.5 3H3v10h10V9.5M9.5 2.5h4v4M13.2 2.8 7.5 8.5',
}

/** A small picture beside words. It is decoration: the words carry the meaning. */
export const icon = name =>
  s('svg.icon', { viewBox: '0 0 16 16', width: 14, height: 14, 'aria-hidden': 'true' }, s('path', { d: PATHS[name] ?? PATHS.past }))

/** Words with a picture. Chips differ in shape and words, not in colour alone. */
export const chip = (kind, ...words) => h(`span.chip.${kind}`, {}, icon(kind), h('span', {}, words))
