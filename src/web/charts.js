// Small charts in SVG. Their colours come from the style sheet, by class.

import { h, s } from './dom.js'
import { dayOf, lasting } from './words.js'

const HEIGHT = 132
const LEFT = 40
const BOTTOM = 20
const TOP = 8
const WIDEST = 26
// The space between and inside panels, as in the style sheet.
const GAP = 16
const PADDING = 20

/** How wide a chart may be in panels side by side, each at least `narrowest` wide. */
export function chartWidth(main, narrowest, most = Infinity) {
  const style = getComputedStyle(main)
  const room = main.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)
  const columns = Math.max(1, Math.min(most, Math.floor((room + GAP) / (narrowest + GAP))))
  return Math.max(240, Math.floor((room - GAP * (columns - 1)) / columns) - 2 * PADDING - 2)
}

/** The next round number whose half is round too. */
function ceiling(most) {
  const unit = 10 ** Math.floor(Math.log10(most))
  return [1, 2, 4, 6, 8, 10].map(step => step * unit).find(step => step >= most)
}

// Round durations in minutes: 20 s, 2 min, ..., a day, ..., 128 days.
const LENGTHS = [1 / 3, 2, 4, 10, 20, 30, 60, 120, 240, 480, 720, 1440, 2880, 5760, 11520, 23040, 46080, 92160, 184320]

/** A frame with a scale up to `top`: {svg, x(fraction), y(value)}. */
function frame(width, top, label, format, ends) {
  const y = value => HEIGHT - BOTTOM - (value / top) * (HEIGHT - BOTTOM - TOP)
  const x = fraction => LEFT + fraction * (width - LEFT - 4)
  const lines = [0, top / 2, top].filter(value => format(value) !== null).map(value => [
    s('line.grid', { x1: LEFT, x2: width - 4, y1: y(value), y2: y(value) }),
    s('text.scale', { x: LEFT - 6, y: y(value) + 4, 'text-anchor': 'end' }, format(value)),
  ])
  const svg = s('svg.chart', { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: 'img', 'aria-label': label }, lines.flat(),
    s('text.scale', { x: LEFT, y: HEIGHT - 4 }, ends[0]),
    s('text.scale', { x: width - 4, y: HEIGHT - 4, 'text-anchor': 'end' }, ends[1]))
  return { svg, x, y }
}

const whole = value => (Number.isInteger(value) ? String(value) : null)
const length = minutes => lasting(minutes * 60_000)

/** Bars of stacked counts: items of {label, parts: [[class, n], ...]}. */
export function bars({ width, label, items, ends }) {
  const most = Math.max(1, ...items.map(item => item.parts.reduce((sum, [, n]) => sum + n, 0)))
  const { svg, x, y } = frame(width, ceiling(most), label, whole, ends)
  const step = 1 / items.length
  const room = (width - LEFT - 4) / items.length
  const wide = Math.min(WIDEST, room - Math.min(2, room / 4))
  items.forEach((item, n) => {
    let below = 0
    const group = s('g', {}, s('title', {}, item.label))
    for (const [kind, value] of item.parts) {
      if (!value) continue
      const [top, bottom] = [y(below + value), y(below)]
      group.append(s(`rect.mark.${kind}`, { x: x((n + 0.5) * step) - wide / 2, width: wide, y: top, height: Math.max(1, bottom - top - 1), rx: 1.5 }))
      below += value
    }
    svg.append(group)
  })
  return svg
}

/** Durations in minutes over time: items of {at (0 to 1), value, kind, label}. `line` is the median. */
export function dots({ width, label, items, ends, line, joined = false }) {
  const most = Math.max(...items.map(item => item.value))
  const { svg, x, y } = frame(width, LENGTHS.find(length => length >= most) ?? ceiling(most), label, length, ends)
  if (line !== null && line !== undefined) svg.append(s('line.median', { x1: LEFT, x2: width - 4, y1: y(line), y2: y(line) }))
  if (joined && items.length > 1) {
    svg.append(s('polyline.path', { points: items.map(item => `${x(item.at).toFixed(1)},${y(item.value).toFixed(1)}`).join(' ') }))
  }
  for (const item of items) {
    const [cx, cy] = [x(item.at), y(item.value)]
    // A failure has corners, so it differs in shape too.
    svg.append(s(`path.mark.${item.kind}`, {
      d: item.kind === 'bad' ? `M${cx} ${cy - 5}l5 5-5 5-5-5Z` : `M${cx - 3.5} ${cy}a3.5 3.5 0 1 0 7 0 3.5 3.5 0 1 0-7 0Z`,
    }, s('title', {}, item.label)))
  }
  return svg
}

/** What the colours of a chart mean. */
export const legend = kinds =>
  h('ul.legend', {}, kinds.map(([kind, words]) => h('li', {}, s('svg', { width: 10, height: 10, 'aria-hidden': 'true' }, s(`rect.mark.${kind}`, { width: 10, height: 10, rx: 2 })), words)))

/** The first and the last day of a span. */
export const days = (from, to) => [dayOf(from), dayOf(to)]
