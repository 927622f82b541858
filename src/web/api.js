// Reads from the API, with the key of this tab if there is one. What has not changed is not sent again.

const STORED = 'prop.key'
const TIMEOUT_MS = 15_000

/** The key, kept for this tab only. */
export const key = {
  get: () => sessionStorage.getItem(STORED),
  set: text => sessionStorage.setItem(STORED, text),
  forget() {
    sessionStorage.removeItem(STORED)
    known.clear()
  },
}

/** An error response, with the reason the server gave. */
export class Problem extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? `The server answered ${status}.`)
    this.status = status
    this.code = problem?.code
  }
}

/** The server can't be reached, or can't answer now. */
export class Unreachable extends Error {}

const known = new Map() // path -> {etag, value}
let skew = 0 // how far the server's clock is ahead of this one, in ms

/** The time by the server's clock. */
export const now = () => Date.now() + skew

/** The JSON at a path. If it has not changed, the result is the same object as before. */
export async function get(path) {
  const headers = {}
  const before = known.get(path)
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`
  if (before) headers['If-None-Match'] = before.etag
  let response, text
  try {
    response = await fetch(path, { headers, cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) })
    text = await response.text()
  } catch {
    throw new Unreachable()
  }
  const date = Date.parse(response.headers.get('Date'))
  // The header has whole seconds, so smaller differences mean nothing.
  if (Math.abs(date - now()) > 2_000) skew = date - Date.now()
  if (response.status === 304) return before.value
  if (response.status >= 502) throw new Unreachable()
  const value = parse(text)
  if (!response.ok) throw new Problem(response.status, value)
  if (response.headers.has('ETag')) known.set(path, { etag: response.headers.get('ETag'), value })
  return value
}

/** The JSON at a path, or null if there is none. */
export const getIfAny = path => get(path).catch(error => (error.status === 404 ? null : Promise.reject(error)))

function parse(text) {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** A path with parameters. Parameters without a value are left out. */
export function at(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== '')
  return given.length ? `${path}?${new URLSearchParams(given)}` : path
}
