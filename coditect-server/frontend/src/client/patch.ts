/**
 * JSON merge patches (RFC 7396): apply, compose, compare.
 *
 * Values are never modified; results share unchanged parts.
 */

import type { Json, JsonObject } from './types.js';

/** Returns `target` after `patch`. */
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
 * Returns one patch with the effect of `first` followed by `second`, or `undefined` if there is
 * none: an object that replaces what `first` has removed would be merged into the original.
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
 * Returns the patch from `before` to `after`, or `undefined` if they are equal. A `null` member of
 * `after` counts as missing, since a merge patch cannot express it.
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

/** Returns whether two values are equal JSON, ignoring the order of members. */
export function isSame(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((item, at) => isSame(item, b[at]));
  }
  if (!isObject(a) || !isObject(b)) return false;
  const names = Object.keys(a);
  return (
    names.length === Object.keys(b).length &&
    names.every((name) => isSame(own(a, name), own(b, name)))
  );
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Returns an own member; `constructor` is a name like any other. */
function own(object: JsonObject, name: string): Json | undefined {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

/** Sets a member, even one named `__proto__`. */
function put(object: JsonObject, name: string, value: Json): void {
  Object.defineProperty(object, name, {
    value,
    writable: true,
    enumerable: true,
    configurable: true,
  });
}
