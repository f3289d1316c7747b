//! Responses: the success envelope, and the headers common to all responses.
//!
//! A response is not cached unless its handler permits it. Failures are [`Problem`]s.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::{Body as HttpBody, Frame, SizeHint},
    header::{self, HeaderName, HeaderValue},
};
use serde::{Serialize, Serializer};

use super::{
    Body, BodyError, RequestId,
    headers::{self, add_security_headers},
    output::Shared,
    problem::Problem,
    request_id::X_REQUEST_ID,
};

/// Content type of all bodies except contents of files.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

#[derive(Serialize)]
struct Success<T> {
    success: bool,
    data: T,
}

#[derive(Serialize)]
struct Page<'a, T> {
    success: bool,
    data: &'a [T],
    next_cursor: Option<&'a str>,
}

impl Problem {
    /// Returns the response, without the headers common to all responses.
    pub(crate) fn to_response(&self, request_id: &RequestId) -> Response<Body> {
        let mut response = Response::new(full(self.envelope(request_id)));
        *response.status_mut() = self.status();
        *response.headers_mut() = self.headers().clone();
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        response
    }
}

/// Returns 200 with `data`.
///
/// # Errors
///
/// 500 if `data` cannot be serialized.
pub fn ok(data: &impl Serialize) -> Result<Response<Body>, Problem> {
    json(StatusCode::OK, &Success { success: true, data })
}

/// Returns the body with `data`.
///
/// # Errors
///
/// 500 if `data` cannot be serialized.
pub(crate) fn success(data: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(&Success { success: true, data }).map_err(Problem::internal)
}

/// Returns 201 with `data`, which was created at `location`.
///
/// # Errors
///
/// 500 if `data` cannot be serialized or `location` is not a valid header value.
pub fn created(location: &str, data: &impl Serialize) -> Result<Response<Body>, Problem> {
    let location = HeaderValue::from_str(location).map_err(Problem::internal)?;
    let mut response = json(StatusCode::CREATED, &Success { success: true, data })?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Returns 202 with `data`: the request is processed in the background.
///
/// # Errors
///
/// 500 if `data` cannot be serialized.
pub fn accepted(data: &impl Serialize) -> Result<Response<Body>, Problem> {
    json(StatusCode::ACCEPTED, &Success { success: true, data })
}

/// Returns 200 with a document, without the envelope.
///
/// # Errors
///
/// 500 if it cannot be serialized.
pub fn document(document: &impl Serialize) -> Result<Response<Body>, Problem> {
    json(StatusCode::OK, document)
}

/// Returns 200 with a page of a list; `next_cursor` is the position of the next page, if there is
/// one.
///
/// # Errors
///
/// 500 if `items` cannot be serialized.
pub fn page<T: Serialize>(
    items: &[T],
    next_cursor: Option<&str>,
) -> Result<Response<Body>, Problem> {
    let page = Page { success: true, data: items, next_cursor };
    json(StatusCode::OK, &page)
}

/// Returns 200 with all of `items`, converted by `view`.
///
/// # Errors
///
/// Same as [`page`].
pub fn list<'a, T, V: Serialize>(
    items: &'a [T],
    view: impl FnMut(&'a T) -> V,
) -> Result<Response<Body>, Problem> {
    page(&items.iter().map(view).collect::<Vec<_>>(), None)
}

/// Returns 200 with a page of the store, each item converted by `view`.
///
/// # Errors
///
/// Same as [`page`].
pub fn page_of<'a, T, V: Serialize>(
    found: &'a coditect_store::Page<T>,
    view: impl FnMut(&'a T) -> V,
) -> Result<Response<Body>, Problem> {
    let next = found.next.as_ref().map(ToString::to_string);
    page(&found.items.iter().map(view).collect::<Vec<_>>(), next.as_deref())
}

/// Returns 200 with pieces of JSON, of which `shared` bytes are charged already.
pub(crate) fn ok_pieces(data: impl IntoIterator<Item = Bytes>, shared: Shared) -> Response<Body> {
    let head = Bytes::from_static(br#"{"success":true,"data":"#);
    let pieces = [head].into_iter().chain(data).chain([Bytes::from_static(b"}")]);
    let mut response = Response::new(Pieces(pieces.collect()).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response.extensions_mut().insert(shared);
    response
}

/// A body of pieces, without copying them.
struct Pieces(VecDeque<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// Returns 204.
pub fn no_content() -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Returns 204 with the methods of a path, for OPTIONS.
pub fn options(allowed: &[Method]) -> Response<Body> {
    let mut response = no_content();
    response.headers_mut().insert(header::ALLOW, headers::allow(allowed));
    response
}

/// Serializes a time as RFC 3339 in UTC with milliseconds, `2026-01-02T03:04:05.678Z`, for
/// `#[serde(serialize_with = "respond::time")]`.
pub fn time<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// Serializes an optional time, `None` as `null`.
pub fn optional_time<S: Serializer>(
    at: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => time(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// Returns a body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Returns an empty body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Sets the headers common to all responses.
pub(crate) fn set_default_headers(headers: &mut HeaderMap, request_id: &RequestId) {
    const NOSNIFF: (HeaderName, HeaderValue) =
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(id) = request_id.header_value() {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    add_security_headers(headers);
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Returns the response to HEAD: that to GET with its length but without its body.
pub(crate) fn without_body(mut response: Response<Body>) -> Response<Body> {
    let length = response.body().size_hint().exact();
    if let Some(length) = length
        && response.status() != StatusCode::NO_CONTENT
    {
        response
            .headers_mut()
            .entry(header::CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(length));
    }
    *response.body_mut() = empty();
    response
}

fn json(status: StatusCode, envelope: &impl Serialize) -> Result<Response<Body>, Problem> {
    let bytes = serde_json::to_vec(envelope).map_err(Problem::internal)?;
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    async fn body(response: Response<Body>) -> Value {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn success_wraps_data_in_the_envelope() {
        let response = ok(&json!({"id": 7})).unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(body(response).await, json!({"success": true, "data": {"id": 7}}));
    }

    #[tokio::test]
    async fn page_has_the_next_cursor_or_null() {
        let response = page(&[1, 2], Some("abc")).unwrap();
        assert_eq!(
            body(response).await,
            json!({"success": true, "data": [1, 2], "next_cursor": "abc"})
        );
        let last = body(page::<u8>(&[], None).unwrap()).await;
        assert_eq!(last, json!({"success": true, "data": [], "next_cursor": null}));
    }

    #[test]
    fn created_response_has_a_location() {
        let response = created("/api/v5/sessions/7", &json!({})).unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.headers()[header::LOCATION], "/api/v5/sessions/7");
    }

    #[test]
    fn times_are_utc_with_milliseconds() {
        #[derive(Serialize)]
        struct Times {
            #[serde(serialize_with = "time")]
            at: DateTime<Utc>,
            #[serde(serialize_with = "optional_time")]
            ended: Option<DateTime<Utc>>,
        }
        let at = DateTime::from_timestamp_micros(1_767_323_045_678_901).unwrap();
        let times = serde_json::to_value(Times { at, ended: None }).unwrap();
        assert_eq!(times, json!({"at": "2026-01-02T03:04:05.678Z", "ended": null}));
    }

    #[test]
    fn responses_are_not_cached_unless_the_handler_permits_it() {
        let mut headers = HeaderMap::new();
        set_default_headers(&mut headers, &RequestId::new());
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        set_default_headers(&mut headers, &RequestId::new());
        assert_eq!(headers[header::CACHE_CONTROL], "max-age=60");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }

    #[test]
    fn head_response_keeps_the_length_without_the_body() {
        let response = without_body(Response::new(full("hello")));
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "5");
        assert_eq!(response.body().size_hint().exact(), Some(0));
    }
}
