// The types of the client are what the server says that it sends.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';

import { serve } from './support.mjs';

const server = await serve({ after });
const { components } = await (await fetch(`${server.origin}/api/v5/openapi.json`)).json();

/** The members of each interface of `types.ts`. */
function interfaces() {
  const text = readFileSync(new URL('../src/client/types.ts', import.meta.url), 'utf8');
  const code = text.replaceAll(/\/\*\*.*?\*\//gs, '');
  const found = new Map();
  for (const [, name, parent, body] of code.matchAll(/interface (\w+)(?: extends (\w+))? \{\n(.*?)\n\}/gs)) {
    const own = [...body.matchAll(/^ {2}(\w+)\??:/gm)].map(([, member]) => member);
    found.set(name, [...(found.get(parent) ?? []), ...own]);
  }
  return found;
}

/** What is called otherwise in the server's description. */
const OTHERWISE = {
  ErrorBody: 'Error',
  FieldFault: 'FieldError',
  CreatedPersonalToken: 'NewPersonalToken',
  CreatedInvitation: 'NewInvitation',
  TextSelection: 'Selection',
  EditorTab: 'Tab',
  ClientStateKey: 'KeptKey',
  ClientStateSaved: 'KeptVersion',
  ClientStateBatchDone: 'BatchResult',
  Restored: 'Restoration',
  FileEntry: 'File',
  DraftEntry: 'Draft',
  Draft: 'WholeDraft',
};
const SAME = [
  'User Tenant Tokens SignedIn VerificationSent RegistrationSettings Me Device FactorBegun FactorConfirmed PersonalToken Ticket MyTenant Member Invitation',
  'Joined Session TextPosition EditorState Terminal TerminalState Conversation Message Agent Setting AuditEntry Health',
];

test('each type has the members that the server describes', () => {
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
    // With `--cookies` only, and this client keeps its tokens itself.
    const described = Object.keys(schema.properties).filter((member) => member !== 'csrf_token');
    assert.deepEqual(
      [...(mine.get(name) ?? [])].sort(),
      described.sort(),
      `${name}, which the server calls ${theirs}`,
    );
  }
});
