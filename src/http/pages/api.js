// Asks the API: with the key of this tab if there is one, and not again for what has not changed.

const STORED = 'prop.key'
const PATIENCE_MS = 15_000

/** The key, kept for this tab only. */
export const key = {
  get: () => sessionStorage.getItem(STORED),
  set: text => sessionStorage.setItem(STORED, text),
  forget() {
    sessionStorage.removeItem(STORED)
    known.clear()
  },
}

/** The server said no, and why. */
export class Problem extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? `The server answered ${status}.`)
    this.status = status
    this.code = problem?.code
  }
}

/** The server can't be reached, or can't answer now. */
export class Away extends Error {}

const known = new Map() // path -> {etag, value}
let skew = 0 // what the server's clock is ahead of ours, in ms

/** The time by the server's clock. */
export const now = () => Date.now() + skew

/** What is at a path: the very same object as before when it has not changed. */
export async function get(path) {
  const headers = {}
  const before = known.get(path)
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`
  if (before) headers['If-None-Match'] = before.etag
  let response, text
  try {
    response = await fetch(path, { headers, cache: 'no-store', signal: AbortSignal.timeout(PATIENCE_MS) })
    text = await response.text()
  } catch {
    throw new Away()
  }
  const date = Date.parse(response.headers.get('Date'))
  // The header has whole seconds: smaller differences are none.
  if (Math.abs(date - now()) > 2_000) skew = date - Date.now()
  if (response.status === 304) return before.value
  if (response.status >= 502) throw new Away()
  const value = parse(text)
  if (!response.ok) throw new Problem(response.status, value)
  if (response.headers.has('ETag')) known.set(path, { etag: response.headers.get('ETag'), value })
  return value
}

/** The same, or null where there is none. */
export const getIfAny = path => get(path).catch(error => (error.status === 404 ? null : Promise.reject(error)))

function parse(text) {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** A path with its parameters; those without a value are left out. */
export function at(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== '')
  return given.length ? `${path}?${new URLSearchParams(given)}` : path
}
