// Builds `dist/` from `src/` and `static/`: the compiler's output and the static files, unchanged.
// There is no bundler; browsers load the modules one by one.
//
// `--check` writes nothing and fails if the committed `dist/`, which the server embeds without
// node, differs from the sources.

import { spawnSync } from 'node:child_process';
import {
  cpSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const dist = join(here, 'dist');
const checks = process.argv.includes('--check');

// On the file system of `dist`, for an atomic rename.
const made = mkdtempSync(join(here, '.dist-'));
try {
  const compiler = join(here, 'node_modules', 'typescript', 'bin', 'tsc');
  const compiled = spawnSync(process.execPath, [compiler, '-p', here, '--outDir', made], {
    stdio: 'inherit',
  });
  if (compiled.status !== 0) {
    process.exitCode = 1;
  } else {
    // A file of only types compiles to an empty module.
    rmSync(join(made, 'client', 'types.js'));
    cpSync(join(here, 'static'), made, { recursive: true });
    if (checks) {
      check();
    } else {
      rmSync(dist, { recursive: true, force: true });
      renameSync(made, dist);
    }
  }
} finally {
  rmSync(made, { recursive: true, force: true });
}

function check() {
  const names = new Set([...files(made), ...files(dist)]);
  const stale = [...names].filter((name) => content(made, name) !== content(dist, name)).sort();
  if (stale.length > 0) {
    console.error(
      `dist is out of date; run npm run build. Different files: ${stale.join(', ')}`,
    );
    process.exitCode = 1;
  }
}

function files(folder) {
  const found = readdirSync(folder, { recursive: true }).map((name) => join(folder, name));
  return found.filter((path) => statSync(path).isFile()).map((path) => relative(folder, path));
}

function content(folder, name) {
  try {
    return readFileSync(join(folder, name), 'latin1');
  } catch {
    return undefined;
  }
}
