export function apply(target, patch) {
    if (!isObject(patch))
        return patch;
    const result = isObject(target) ? { ...target } : {};
    for (const [name, value] of Object.entries(patch)) {
        if (value === null)
            delete result[name];
        else
            put(result, name, apply(own(result, name), value));
    }
    return result;
}
export function compose(first, second) {
    const result = { ...first };
    for (const [name, later] of Object.entries(second)) {
        const earlier = own(first, name);
        if (earlier === undefined || !isObject(later)) {
            put(result, name, later);
        }
        else if (isObject(earlier)) {
            const both = compose(earlier, later);
            if (both === undefined)
                return undefined;
            put(result, name, both);
        }
        else {
            return undefined;
        }
    }
    return result;
}
export function difference(before, after) {
    const patch = {};
    for (const [name, value] of Object.entries(after)) {
        const was = own(before, name);
        if (isSame(was, value))
            continue;
        if (isObject(was) && isObject(value))
            put(patch, name, difference(was, value) ?? {});
        else
            put(patch, name, value);
    }
    for (const name of Object.keys(before)) {
        if (own(after, name) === undefined)
            put(patch, name, null);
    }
    return Object.keys(patch).length === 0 ? undefined : patch;
}
export function isSame(a, b) {
    if (a === b)
        return true;
    if (Array.isArray(a) && Array.isArray(b)) {
        return a.length === b.length && a.every((item, at) => isSame(item, b[at]));
    }
    if (!isObject(a) || !isObject(b))
        return false;
    const names = Object.keys(a);
    return (names.length === Object.keys(b).length &&
        names.every((name) => isSame(own(a, name), own(b, name))));
}
export function isObject(value) {
    return typeof value === 'object' && value !== null && !Array.isArray(value);
}
function own(object, name) {
    return Object.hasOwn(object, name) ? object[name] : undefined;
}
function put(object, name, value) {
    Object.defineProperty(object, name, {
        value,
        writable: true,
        enumerable: true,
        configurable: true,
    });
}
