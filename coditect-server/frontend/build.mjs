// Writes `dist/` out of `src/` and `static/`: the compiler's output as it is, the static files as they
// are, and nothing else. There is no bundler; browsers load the modules one by one.
//
// With `--check` nothing is written: it fails where `dist/`, which is committed since the server embeds it
// and is built without node, is not what the sources make.

import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const dist = join(here, 'dist');
const checks = process.argv.includes('--check');

// Beside `dist`, so that it can be put in its place at once.
const made = mkdtempSync(join(here, '.dist-'));
try {
  const compiler = join(here, 'node_modules', 'typescript', 'bin', 'tsc');
  const compiled = spawnSync(process.execPath, [compiler, '-p', here, '--outDir', made], {
    stdio: 'inherit',
  });
  if (compiled.status !== 0) {
    process.exitCode = 1;
  } else {
    // Types leave nothing behind but a module without content.
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
      `dist is not what src and static make; run npm run build. It differs in: ${stale.join(', ')}`,
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
