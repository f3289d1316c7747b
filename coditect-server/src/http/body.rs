//! Bodies: the type of those we send, and the reading of JSON ones that we receive.
//!
//! A JSON body is bounded in size before a byte of it is kept, in its stalls, and in its whole
//! time. Its meaning is `document`'s.

use std::{error::Error, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap,
    body::Body as HttpBody,
    header::{self, HeaderValue},
};
use tokio::time::{Instant, timeout, timeout_at};

use super::problem::Problem;

/// What bodies are held to.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Largest JSON body, in bytes.
    pub json_limit_bytes: usize,
    /// How long a body may stall.
    pub stall_timeout: Duration,
}

/// Why a body that we send broke off.
pub type BodyError = Box<dyn Error + Send + Sync + 'static>;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body that trickles, never stalling, gets this many stall timeouts in all.
const STALLS_IN_ALL: u32 = 4;

/// Slower than so many bytes a second, beyond those stalls, is no pace for a body that is streamed in.
const SLOWEST_BYTES_PER_S: u64 = 4 * 1024;

/// How a body that is streamed in comes along: it may stall for a while, and is not to trickle for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    stall_timeout: Duration,
    begun_at: Option<Instant>,
    received_bytes: u64,
}

impl Pace {
    /// Of a body that has not begun.
    pub(super) fn new(stall_timeout: Duration) -> Self {
        Self { stall_timeout, begun_at: None, received_bytes: 0 }
    }

    /// The next piece of `body`.
    ///
    /// # Errors
    ///
    /// 408 when nothing comes for a while, or little for long; 400 when it breaks off.
    pub(super) async fn next_frame<B>(&mut self, body: &mut B) -> Result<Option<Bytes>, Problem>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<BodyError>,
    {
        let begun_at = *self.begun_at.get_or_insert_with(Instant::now);
        let earned = Duration::from_secs(self.received_bytes / SLOWEST_BYTES_PER_S);
        let due_at = begun_at + self.stall_timeout.saturating_mul(STALLS_IN_ALL) + earned;
        let frame = timeout_at(due_at, next_frame(body, self.stall_timeout))
            .await
            .map_err(|_elapsed| Problem::request_timeout())??;
        self.received_bytes += frame.as_ref().map_or(0, |frame| frame.len() as u64);
        Ok(frame)
    }
}

/// Reads a JSON body whole; `None` where there is none. That it is JSON is only its label's word.
///
/// # Errors
///
/// 415 where it isn't labelled as JSON in UTF-8, 413 above the limit (by its Content-Length before
/// anything is read), 408 when it stalls, 400 when it breaks off.
pub(super) async fn read_json<B>(
    headers: &HeaderMap,
    body: B,
    limits: BodyLimits,
) -> Result<Option<Bytes>, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    if body.is_end_stream() {
        return Ok(None);
    }
    if !is_json(headers) {
        return Err(Problem::unsupported_media_type("application/json"));
    }
    let whole_timeout = limits.stall_timeout.saturating_mul(STALLS_IN_ALL);
    let bytes = timeout(whole_timeout, collect(body, limits))
        .await
        .map_err(|_elapsed| Problem::request_timeout())??;
    Ok((!bytes.is_empty()).then_some(bytes))
}

async fn collect<B>(mut body: B, limits: BodyLimits) -> Result<Bytes, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    let limit_bytes = limits.json_limit_bytes;
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit_bytes {
        return Err(Problem::payload_too_large(limit_bytes));
    }
    let mut collected = BytesMut::new();
    while let Some(frame) = next_frame(&mut body, limits.stall_timeout).await? {
        if collected.len() + frame.len() > limit_bytes {
            return Err(Problem::payload_too_large(limit_bytes));
        }
        collected.extend_from_slice(&frame);
    }
    Ok(collected.freeze())
}

/// The next piece of a body; trailers are passed over. For whoever streams a body in.
///
/// # Errors
///
/// 408 when nothing comes for `stall_timeout`, 400 when the body breaks off.
pub(super) async fn next_frame<B>(
    body: &mut B,
    stall_timeout: Duration,
) -> Result<Option<Bytes>, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    loop {
        let frame = timeout(stall_timeout, body.frame())
            .await
            .map_err(|_elapsed| Problem::request_timeout())?;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(_broken_off)) => {
                return Err(Problem::bad_request(
                    "BODY_INCOMPLETE",
                    "The body broke off or is malformed.",
                ));
            }
        }
    }
}

/// Whether the one Content-Type is JSON, or a JSON Merge Patch, in UTF-8.
fn is_json(headers: &HeaderMap) -> bool {
    let mut labels = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(label), None) = (labels.next().map(HeaderValue::to_str), labels.next()) else {
        return false;
    };
    let Ok(label) = label else { return false };
    let mut parts = label.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let known = ["application/json", "application/merge-patch+json"]
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known));
    known
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};
    use hyper::{StatusCode, body::Frame};

    use super::*;

    const LIMITS: BodyLimits =
        BodyLimits { json_limit_bytes: 8, stall_timeout: Duration::from_secs(30) };

    fn labelled(label: &'static str) -> HeaderMap {
        let value = HeaderValue::from_static(label);
        std::iter::once((header::CONTENT_TYPE, value)).collect()
    }

    #[test]
    fn json_is_known_by_its_label_in_any_case_with_a_utf8_charset() {
        for label in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/merge-patch+json",
        ] {
            assert!(is_json(&labelled(label)), "{label}");
        }
        for label in [
            "",
            "text/plain",
            "application/jsonp",
            "application/x-www-form-urlencoded",
            "application/json; charset=utf-16",
        ] {
            assert!(!is_json(&labelled(label)), "{label}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    #[test]
    fn two_labels_are_none() {
        let mut headers = labelled("application/json");
        headers.append(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        assert!(!is_json(&headers));
    }

    #[tokio::test]
    async fn a_body_at_the_limit_is_read_and_one_above_it_refused() {
        let headers = labelled("application/json");
        let at = read_json(&headers, Full::new(Bytes::from("12345678")), LIMITS).await;
        assert_eq!(at.unwrap().unwrap(), "12345678");
        let above = read_json(&headers, Full::new(Bytes::from("123456789")), LIMITS).await;
        assert_eq!(above.unwrap_err().status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn an_unannounced_body_above_the_limit_is_refused_as_it_grows() {
        let piece = || Ok::<_, std::io::Error>(Frame::data(Bytes::from("12345")));
        let body = StreamBody::new(futures_util::stream::iter([piece(), piece()]));
        let read = read_json(&labelled("application/json"), body, LIMITS).await;
        assert_eq!(read.unwrap_err().status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up() {
        let body = StreamBody::new(futures_util::stream::pending::<
            Result<Frame<Bytes>, std::io::Error>,
        >());
        let read = read_json(&labelled("application/json"), body, LIMITS).await;
        assert_eq!(read.unwrap_err().status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up_though_it_never_stalls() {
        let trickle = |bytes: usize| {
            let pieces = futures_util::stream::unfold((), move |()| async move {
                tokio::time::sleep(Duration::from_secs(21)).await;
                Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![0; bytes]))), ()))
            });
            StreamBody::new(Box::pin(pieces))
        };
        let mut pace = Pace::new(LIMITS.stall_timeout);
        let mut body = trickle(1);
        for _ in 0..5 {
            pace.next_frame(&mut body).await.unwrap();
        }
        let given_up = pace.next_frame(&mut body).await.unwrap_err();
        assert_eq!(given_up.status(), StatusCode::REQUEST_TIMEOUT);
        // What is fast enough may go on for as long as it likes.
        let (mut pace, mut body) = (Pace::new(LIMITS.stall_timeout), trickle(21 * 4096));
        for _ in 0..100 {
            pace.next_frame(&mut body).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_a_bad_request() {
        let body = StreamBody::new(futures_util::stream::iter([Err::<Frame<Bytes>, _>(
            std::io::Error::other("reset"),
        )]));
        let read = read_json(&labelled("application/json"), body, LIMITS).await;
        assert_eq!(read.unwrap_err().code(), "BODY_INCOMPLETE");
    }

    #[tokio::test]
    async fn no_body_is_none_whatever_its_label() {
        let read = read_json(&HeaderMap::new(), Full::new(Bytes::new()), LIMITS).await;
        assert!(read.unwrap().is_none());
    }
}
