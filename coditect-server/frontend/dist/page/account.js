import { ApiError, NetworkError } from '../client/index.js';
import { button, field, h } from './dom.js';
export function account(client) {
    let is_new = false;
    let mode = null;
    const invited = /^#\/invitation\/(cin_[A-Za-z0-9_-]+)$/.exec(location.hash)?.[1] ?? '';
    const first_name = field('First name', { name: 'first_name', autocomplete: 'given-name' });
    const last_name = field('Last name', { name: 'last_name', autocomplete: 'family-name' });
    const email = field('E-mail address', {
        name: 'email',
        type: 'email',
        autocomplete: 'username',
        required: true,
        autofocus: true,
    });
    const password = field('Password', { name: 'password', type: 'password', required: true });
    const code = field('Authenticator or recovery code', {
        name: 'code',
        autocomplete: 'one-time-code',
        spellcheck: 'false',
    });
    const invitation = field('Invitation', {
        name: 'invitation',
        autocomplete: 'off',
        spellcheck: 'false',
    });
    invitation.input.value = invited;
    const verification = field('Token from the e-mail', {
        name: 'verification',
        autocomplete: 'one-time-code',
        spellcheck: 'false',
    });
    const status = h('p', { class: 'hint', role: 'status' });
    const heading = h('h1', {});
    const hint = h('p', { class: 'hint' }, 'At least 8 characters. A few random words work well.');
    const fault = h('p', { class: 'fault', role: 'alert' });
    const submit = h('button', { class: 'main' });
    const other = button('', () => show(!is_new), { class: 'link' });
    const names = h('div', { class: 'pair' }, first_name.row, last_name.row);
    const fields = { first_name, last_name, email, password, code, invitation, verification };
    const show = (next) => {
        is_new = next;
        heading.textContent = is_new ? 'Create an account' : 'Sign in';
        submit.textContent = is_new ? 'Create account' : 'Sign in';
        other.textContent = is_new ? 'Already have an account? Sign in' : 'New here? Create an account';
        names.hidden = !is_new;
        hint.hidden = !is_new;
        code.row.hidden = true;
        invitation.row.hidden = !is_new || (mode !== 'invited' && invited === '');
        verification.row.hidden = true;
        verification.input.value = '';
        status.textContent = '';
        other.hidden = !is_new && (mode === null || mode === 'closed');
        password.input.autocomplete = is_new ? 'new-password' : 'current-password';
        fault.textContent = '';
        for (const one of Object.values(fields))
            one.fault('');
    };
    const attempt = async () => {
        fault.textContent = '';
        for (const one of Object.values(fields))
            one.fault('');
        const who = { email: email.input.value, password: password.input.value };
        submit.disabled = true;
        try {
            if (is_new) {
                const named = {
                    first_name: first_name.input.value.trim(),
                    last_name: last_name.input.value.trim(),
                };
                const token = invitation.input.value.trim();
                const sent = verification.input.value.trim();
                const proof = token !== '' ? { invitation: token } : sent !== '' ? { verification: sent } : {};
                const user = await client.auth.register({ ...who, ...named, ...proof });
                if (user === null) {
                    verification.row.hidden = false;
                    const sent = `We sent an e-mail to ${who.email}.`;
                    status.textContent = `${sent} Enter the token from it to create the account.`;
                    verification.input.focus();
                }
                else if (invited !== '') {
                    location.hash = '#/';
                }
            }
            else {
                const given = code.input.value.trim();
                await client.auth.login(given === '' ? who : { ...who, code: given });
            }
        }
        catch (error) {
            refuse(error);
        }
        finally {
            submit.disabled = false;
        }
    };
    const refuse = (error) => {
        if (error instanceof ApiError && error.code.startsWith('SECOND_FACTOR')) {
            code.row.hidden = false;
            if (error.code !== 'SECOND_FACTOR_REQUIRED')
                code.fault(error.message);
            code.input.focus();
            return;
        }
        const named = error instanceof ApiError ? error.fields : [];
        const shown = named.filter(({ field }) => field in fields);
        for (const { field, message } of shown)
            fields[field].fault(sentence(message));
        const [first] = shown;
        if (first)
            fields[first.field].input.focus();
        else
            fault.textContent = explain(error);
    };
    show(false);
    void client.auth.registration().then((settings) => {
        mode = settings.mode;
        other.hidden = mode === 'closed';
        if (invited !== '' && mode !== 'closed')
            show(true);
    }, () => undefined);
    const form = h('form', {
        onsubmit: (event) => {
            event.preventDefault();
            void attempt();
        },
    }, heading, names, email.row, password.row, hint, code.row, invitation.row, verification.row, status, fault, h('div', { class: 'actions' }, submit, other));
    return h('section', { class: 'account' }, form);
}
export function explain(error) {
    if (error instanceof NetworkError)
        return 'Cannot reach the server. Your input is kept; try again.';
    if (!(error instanceof ApiError))
        return error instanceof Error ? error.message : String(error);
    const [first] = error.fields;
    const why = first && first.message !== error.message
        ? `${error.message} ${first.field} ${first.message}.`
        : error.message;
    return error.retry_after === null ? why : `${why} Try again in ${error.retry_after} s.`;
}
function sentence(text) {
    return `${text.charAt(0).toUpperCase()}${text.slice(1)}${text.endsWith('.') ? '' : '.'}`;
}
