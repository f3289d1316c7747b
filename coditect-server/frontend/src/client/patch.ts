/**
 * JSON merge patches (RFC 7396): applied, made, and put together.
 *
 * Values are never changed in place: what comes back shares what has stayed the same.
 */

import type { Json, JsonObject } from './types.js';

/** What `target` is after `patch`. */
export function apply(target: Json | undefined, patch: Json): Json {
  if (!isObject(patch)) return patch;
  const result: JsonObject = isObject(target) ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else put(result, name, apply(own(result, name), value));
  }
  return result;
}

/**
 * One patch that does what `first` and then `second` do, or `undefined` where no single one can: an
 * object that takes the place of what `first` has removed would be merged into what was there before.
 */
export function compose(first: JsonObject, second: JsonObject): JsonObject | undefined {
  const result: JsonObject = { ...first };
  for (const [name, later] of Object.entries(second)) {
    const earlier = own(first, name);
    if (earlier === undefined || !isObject(later)) {
      put(result, name, later);
    } else if (isObject(earlier)) {
      const both = compose(earlier, later);
      if (both === undefined) return undefined;
      put(result, name, both);
    } else {
      return undefined;
    }
  }
  return result;
}

/**
 * The patch that makes `after` of `before`, or `undefined` if they are the same. A member that is `null`
 * in `after` is one that is not there: a merge patch cannot tell the two apart.
 */
export function difference(before: JsonObject, after: JsonObject): JsonObject | undefined {
  const patch: JsonObject = {};
  for (const [name, value] of Object.entries(after)) {
    const was = own(before, name);
    if (isSame(was, value)) continue;
    if (isObject(was) && isObject(value)) put(patch, name, difference(was, value) ?? {});
    else put(patch, name, value);
  }
  for (const name of Object.keys(before)) {
    if (own(after, name) === undefined) put(patch, name, null);
  }
  return Object.keys(patch).length === 0 ? undefined : patch;
}

/** Whether two values are the same JSON, in whatever order their members are. */
export function isSame(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((item, at) => isSame(item, b[at]));
  }
  if (!isObject(a) || !isObject(b)) return false;
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => isSame(own(a, name), own(b, name)));
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A member, and nothing that objects inherit: `constructor` is a name like others. */
function own(object: JsonObject, name: string): Json | undefined {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

/** Sets a member, even one that is called `__proto__`. */
function put(object: JsonObject, name: string, value: Json): void {
  Object.defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true });
}
