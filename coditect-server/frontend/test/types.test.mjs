// The types of the client match the OpenAPI document.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';

import { serve } from './support.mjs';

const server = await serve({ after });
const { components } = await (await fetch(`${server.origin}/api/v5/openapi.json`)).json();

/** Returns the members of each interface of `types.ts`. */
function interfaces() {
  const text = readFileSync(new URL('../src/client/types.ts', import.meta.url), 'utf8');
  const code = text.replaceAll(/\/\*\*.*?\*\//gs, '');
  const found = new Map();
  for (const [, name, parent, body] of code.matchAll(
    /interface (\w+)(?: extends (\w+))? \{\n(.*?)\n\}/gs,
  )) {
    const own = [...body.matchAll(/^ {2}(\w+)\??:/gm)].map(([, member]) => member);
    found.set(name, [...(found.get(parent) ?? []), ...own]);
  }
  return found;
}

/** Types with another name in the OpenAPI document. */
const OTHERWISE = {
  ErrorBody: 'Error',
  FieldFault: 'FieldError',
  CreatedPersonalToken: 'NewPersonalToken',
  CreatedInvitation: 'NewInvitation',
  TextSelection: 'Selection',
  EditorTab: 'Tab',
  Restored: 'Restoration',
  FileEntry: 'File',
  DraftEntry: 'Draft',
  Draft: 'WholeDraft',
};
const SAME = [
  'User Tenant Tokens SignedIn VerificationSent RegistrationSettings Me Device FactorBegun',
  'FactorConfirmed PersonalToken Ticket MyTenant Member Invitation',
  'Joined Session TextPosition EditorState Terminal TerminalState Conversation Message Agent',
  'Setting AuditEntry Health ClientStateKey ClientStateVersion ClientStateBatchResult',
];

test('types have the members of their schemas', () => {
  const mine = interfaces();
  const pairs = [
    ...Object.entries(OTHERWISE),
    ...SAME.join(' ')
      .split(' ')
      .map((name) => [name, name]),
  ];
  for (const [name, theirs] of pairs) {
    const schema = components.schemas[theirs];
    assert.ok(schema?.properties, `the server describes no ${theirs}`);
    // Only with `--cookies`, which this client does not use.
    const described = Object.keys(schema.properties).filter((member) => member !== 'csrf_token');
    assert.deepEqual(
      [...(mine.get(name) ?? [])].sort(),
      described.sort(),
      `${name}, which the server calls ${theirs}`,
    );
  }
});
