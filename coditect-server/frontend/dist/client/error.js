export class ApiError extends Error {
    status;
    code;
    request_id;
    fields;
    retry_after;
    constructor(status, body, retry_after = null) {
        super(body.message ?? `The server responded with status ${status}.`);
        this.name = 'ApiError';
        this.status = status;
        this.code = body.code ?? 'UNKNOWN';
        this.request_id = body.request_id ?? null;
        this.fields = body.fields ?? [];
        this.retry_after = retry_after;
    }
}
export class ConflictError extends ApiError {
    current;
    constructor(refusal, current) {
        const { code, message, fields } = refusal;
        super(refusal.status, {
            code,
            message,
            fields: [...fields],
            request_id: refusal.request_id ?? '',
        });
        this.name = 'ConflictError';
        this.current = current;
    }
}
export class NetworkError extends Error {
    constructor(cause) {
        super('The server cannot be reached.', { cause });
        this.name = 'NetworkError';
    }
}
export class SignedOutError extends Error {
    constructor() {
        super('Sign in to do this.');
        this.name = 'SignedOutError';
    }
}
