//! Answers: the envelope of success, and the headers that every answer bears.
//!
//! Handlers end in one of these functions. An answer is never cached unless its handler has said
//! otherwise. Failures are not made here; they are [`Problem`]s.

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
    headers::{self, protect},
    output::Shared,
    problem::Problem,
    request_id::X_REQUEST_ID,
};

/// The type of every body that isn't a file's content.
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
    /// The answer to the client, without the headers that every answer bears.
    pub(crate) fn to_response(&self, request_id: &RequestId) -> Response<Body> {
        let mut response = Response::new(full(self.envelope(request_id)));
        *response.status_mut() = self.status();
        *response.headers_mut() = self.headers().clone();
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        response
    }
}

/// 200 with `data`.
///
/// # Errors
///
/// `data` has no JSON form, which is our fault: 500.
pub fn ok(data: &impl Serialize) -> Result<Response<Body>, Problem> {
    json(StatusCode::OK, &Success { success: true, data })
}

/// The body that has `data` in it.
///
/// # Errors
///
/// `data` has no JSON form, which is our fault: 500.
pub(crate) fn success(data: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(&Success { success: true, data }).map_err(Problem::internal)
}

/// 201 with `data`, which lives at `location` from now on.
///
/// # Errors
///
/// `data` has no JSON form or `location` cannot stand in a header, which is our fault: 500.
pub fn created(location: &str, data: &impl Serialize) -> Result<Response<Body>, Problem> {
    let location = HeaderValue::from_str(location).map_err(Problem::internal)?;
    let mut response = json(StatusCode::CREATED, &Success { success: true, data })?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// 202 with `data`: what was asked for is on its way, or not.
///
/// # Errors
///
/// `data` has no JSON form, which is our fault: 500.
pub fn accepted(data: &impl Serialize) -> Result<Response<Body>, Problem> {
    json(StatusCode::ACCEPTED, &Success { success: true, data })
}

/// 200 with a document that has a form of its own, without the envelope.
///
/// # Errors
///
/// It has no JSON form, which is our fault: 500.
pub fn document(document: &impl Serialize) -> Result<Response<Body>, Problem> {
    json(StatusCode::OK, document)
}

/// 200 with one page of a list; `next_cursor` leads to the page after it, where there is one.
///
/// # Errors
///
/// `items` have no JSON form, which is our fault: 500.
pub fn page<T: Serialize>(
    items: &[T],
    next_cursor: Option<&str>,
) -> Result<Response<Body>, Problem> {
    let page = Page { success: true, data: items, next_cursor };
    json(StatusCode::OK, &page)
}

/// 200 with all of `items`, each as `view` shows it.
///
/// # Errors
///
/// As [`page`].
pub fn list<'a, T, V: Serialize>(
    items: &'a [T],
    view: impl FnMut(&'a T) -> V,
) -> Result<Response<Body>, Problem> {
    page(&items.iter().map(view).collect::<Vec<_>>(), None)
}

/// 200 with a page that the store gave, each item as `view` shows it.
///
/// # Errors
///
/// As [`page`].
pub fn page_of<'a, T, V: Serialize>(
    found: &'a coditect_store::Page<T>,
    view: impl FnMut(&'a T) -> V,
) -> Result<Response<Body>, Problem> {
    let next = found.next.as_ref().map(ToString::to_string);
    page(&found.items.iter().map(view).collect::<Vec<_>>(), next.as_deref())
}

/// Returns 200 with data that is JSON already, in pieces, of which `shared` bytes are charged.
pub(crate) fn ok_pieces(data: impl IntoIterator<Item = Bytes>, shared: Shared) -> Response<Body> {
    let head = Bytes::from_static(br#"{"success":true,"data":"#);
    let pieces = [head].into_iter().chain(data).chain([Bytes::from_static(b"}")]);
    let mut response = Response::new(Pieces(pieces.collect()).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response.extensions_mut().insert(shared);
    response
}

/// A body of known pieces, none of which is copied.
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

/// 204.
pub fn no_content() -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// 204 with the methods that a path takes, the answer to OPTIONS.
pub fn options(allowed: &[Method]) -> Response<Body> {
    let mut response = no_content();
    response.headers_mut().insert(header::ALLOW, headers::allow(allowed));
    response
}

/// Writes a time as RFC 3339 in UTC with milliseconds, `2026-01-02T03:04:05.678Z`: for
/// `#[serde(serialize_with = "respond::time")]`.
pub fn time<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The same for a time that may be missing, which is `null`.
pub fn optional_time<S: Serializer>(
    at: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => time(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// The headers that every answer bears, over whatever `headers` hold.
pub(crate) fn mark(headers: &mut HeaderMap, request_id: &RequestId) {
    const NOSNIFF: (HeaderName, HeaderValue) =
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(id) = request_id.header_value() {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    protect(headers);
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// The answer to HEAD: that to GET with its length and without its body.
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
    async fn success_is_an_envelope_around_the_data() {
        let response = ok(&json!({"id": 7})).unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(body(response).await, json!({"success": true, "data": {"id": 7}}));
    }

    #[tokio::test]
    async fn a_page_says_where_the_next_one_is_or_that_there_is_none() {
        let response = page(&[1, 2], Some("abc")).unwrap();
        assert_eq!(
            body(response).await,
            json!({"success": true, "data": [1, 2], "next_cursor": "abc"})
        );
        let last = body(page::<u8>(&[], None).unwrap()).await;
        assert_eq!(last, json!({"success": true, "data": [], "next_cursor": null}));
    }

    #[test]
    fn what_is_created_says_where_it_lives() {
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
    fn a_handler_may_allow_caching_and_everything_else_is_not_stored() {
        let mut headers = HeaderMap::new();
        mark(&mut headers, &RequestId::new());
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        mark(&mut headers, &RequestId::new());
        assert_eq!(headers[header::CACHE_CONTROL], "max-age=60");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }

    #[test]
    fn an_answer_to_head_keeps_the_length_and_loses_the_body() {
        let response = without_body(Response::new(full("hello")));
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "5");
        assert_eq!(response.body().size_hint().exact(), Some(0));
    }
}
