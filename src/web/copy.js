// Commands and values with a button that copies them.

import { h, icon, put } from './dom.js'

const SHOWN_FOR_MS = 2_000

/** A shell command in a box. The bar above it says what the command is for and copies it. */
export const command = (text, purpose = 'Shell') =>
  h('div.command', {}, h('div.bar', {}, h('span', {}, purpose), copyButton(text, 'command')), h('pre', {}, text))

/** The command that posts a body to this server. It takes the key from the environment. */
export const postCommand = (path, body, purpose) => command(`curl -sS ${location.origin}${path} \\
  -H "Authorization: Bearer $PROP_KEY" \\
  -H 'Content-Type: application/json' \\
  -d '${JSON.stringify(body, null, 1).replace(/\n */g, ' ')}'`, purpose)

/** A value with a button that copies all of it, also where the page shows a part. */
export const copyable = (text, name, shown = h('code', { title: text }, text)) =>
  h('span.copyable', {}, shown, copyButton(text, name, true))

/** A button that copies a text; a small one shows only an icon. */
function copyButton(text, name, isSmall = false) {
  const picture = h('span', {}, icon('copy'))
  const words = h(isSmall ? 'span.hidden' : 'span', { 'aria-live': 'polite' }, 'Copy')
  const button = h('button.quiet.copy', { type: 'button', title: `Copy ${name}` },
    picture, words, h('span.hidden', {}, ` ${name}`))
  let timer = null
  const say = (kind, text) => {
    put(picture, icon(kind))
    words.textContent = text
  }
  button.addEventListener('click', async () => {
    clearTimeout(timer)
    if (await copyText(text)) say('live', 'Copied')
    else say('bad', 'Copy failed')
    timer = setTimeout(say, SHOWN_FOR_MS, 'copy', 'Copy')
  })
  return button
}

/** Copies a text; false if the browser does not allow it. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    return copySelected(text)
  }
}

/** The older way, for plain HTTP: browsers offer `navigator.clipboard` on https and localhost only. */
function copySelected(text) {
  const focused = document.activeElement
  const field = h('textarea.hidden', { readonly: true, tabindex: -1, 'aria-hidden': 'true' })
  field.value = text
  document.body.append(field)
  field.select()
  const isCopied = document.execCommand('copy')
  field.remove()
  focused?.focus()
  return isCopied
}
