//! The type of response bodies, and the reading of JSON request bodies.
//!
//! The size of a JSON body is limited before any byte is buffered, and so are its stalls and its
//! total time. `document` parses it.

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

/// Limits on request bodies.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Maximum size of a JSON body, in bytes.
    pub json_limit_bytes: usize,
    /// Maximum time without progress of a body.
    pub stall_timeout: Duration,
}

/// A failure of a response body.
pub type BodyError = Box<dyn Error + Send + Sync + 'static>;

/// The body of a response.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Total time of a JSON body, in stall timeouts, for a body that trickles without stalling.
const MAX_STALLS: u32 = 4;

/// Minimum upload rate after the grace period, in bytes per second.
const MIN_BYTES_PER_S: u64 = 4 * 1024;

/// Deadlines of a streamed request body: for each stall, and for the minimum rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    stall_timeout: Duration,
    begun_at: Option<Instant>,
    received_bytes: u64,
}

impl Pace {
    /// Starts before the first byte of a body.
    pub(super) fn new(stall_timeout: Duration) -> Self {
        Self { stall_timeout, begun_at: None, received_bytes: 0 }
    }

    /// Returns the next piece of `body`.
    ///
    /// # Errors
    ///
    /// 408 after a stall or below the minimum rate; 400 if the body is incomplete.
    pub(super) async fn next_frame<B>(&mut self, body: &mut B) -> Result<Option<Bytes>, Problem>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<BodyError>,
    {
        let begun_at = *self.begun_at.get_or_insert_with(Instant::now);
        let earned = Duration::from_secs(self.received_bytes / MIN_BYTES_PER_S);
        let due_at = begun_at + self.stall_timeout.saturating_mul(MAX_STALLS) + earned;
        let frame = timeout_at(due_at, next_frame(body, self.stall_timeout))
            .await
            .map_err(|_elapsed| Problem::request_timeout())??;
        self.received_bytes += frame.as_ref().map_or(0, |frame| frame.len() as u64);
        Ok(frame)
    }
}

/// A charge for a body that is being read.
pub(super) trait Charging {
    /// Charges for `bytes` in all.
    ///
    /// # Errors
    ///
    /// 429 or 503 if there is no room.
    async fn grow(&mut self, bytes: u64) -> Result<(), Problem>;
}

/// Reads a whole JSON body and charges for it; `None` without one. The content is not parsed.
///
/// # Errors
///
/// Those of `charge`; 415 unless the media type is JSON in UTF-8, 413 above the limit (by its
/// Content-Length before anything is read), 408 after a stall, 400 if the body is incomplete.
pub(super) async fn read_json<B>(
    headers: &HeaderMap,
    body: B,
    limits: BodyLimits,
    charge: &mut impl Charging,
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
    let whole_timeout = limits.stall_timeout.saturating_mul(MAX_STALLS);
    let bytes = timeout(whole_timeout, collect(body, limits, charge))
        .await
        .map_err(|_elapsed| Problem::request_timeout())??;
    Ok((!bytes.is_empty()).then_some(bytes))
}

async fn collect<B>(
    mut body: B,
    limits: BodyLimits,
    charge: &mut impl Charging,
) -> Result<Bytes, Problem>
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
        collected.reserve(frame.len());
        charge.grow(collected.capacity() as u64).await?;
        collected.extend_from_slice(&frame);
    }
    Ok(collected.freeze())
}

/// Returns the next piece of a body, without trailers.
///
/// # Errors
///
/// 408 if no byte arrives for `stall_timeout`, 400 if the body is incomplete.
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
                    "The body is incomplete or malformed.",
                ));
            }
        }
    }
}

/// Returns whether the only Content-Type is JSON or a JSON Merge Patch, in UTF-8.
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

    struct Uncharged;

    impl Charging for Uncharged {
        async fn grow(&mut self, _: u64) -> Result<(), Problem> {
            Ok(())
        }
    }

    fn labelled(label: &'static str) -> HeaderMap {
        let value = HeaderValue::from_static(label);
        std::iter::once((header::CONTENT_TYPE, value)).collect()
    }

    #[test]
    fn json_media_types_match_in_any_case_with_utf8() {
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
    fn two_content_types_are_refused() {
        let mut headers = labelled("application/json");
        headers.append(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        assert!(!is_json(&headers));
    }

    #[tokio::test]
    async fn body_above_the_limit_is_refused() {
        let headers = labelled("application/json");
        let at =
            read_json(&headers, Full::new(Bytes::from("12345678")), LIMITS, &mut Uncharged).await;
        assert_eq!(at.unwrap().unwrap(), "12345678");
        let above =
            read_json(&headers, Full::new(Bytes::from("123456789")), LIMITS, &mut Uncharged).await;
        assert_eq!(above.unwrap_err().status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn unannounced_body_above_the_limit_is_refused() {
        let piece = || Ok::<_, std::io::Error>(Frame::data(Bytes::from("12345")));
        let body = StreamBody::new(futures_util::stream::iter([piece(), piece()]));
        let read = read_json(&labelled("application/json"), body, LIMITS, &mut Uncharged).await;
        assert_eq!(read.unwrap_err().status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_body_times_out() {
        let body = StreamBody::new(futures_util::stream::pending::<
            Result<Frame<Bytes>, std::io::Error>,
        >());
        let read = read_json(&labelled("application/json"), body, LIMITS, &mut Uncharged).await;
        assert_eq!(read.unwrap_err().status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn trickling_body_times_out() {
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
        // A fast enough body has no time limit.
        let (mut pace, mut body) = (Pace::new(LIMITS.stall_timeout), trickle(21 * 4096));
        for _ in 0..100 {
            pace.next_frame(&mut body).await.unwrap();
        }
    }

    #[tokio::test]
    async fn incomplete_body_is_a_bad_request() {
        let body = StreamBody::new(futures_util::stream::iter([Err::<Frame<Bytes>, _>(
            std::io::Error::other("reset"),
        )]));
        let read = read_json(&labelled("application/json"), body, LIMITS, &mut Uncharged).await;
        assert_eq!(read.unwrap_err().code(), "BODY_INCOMPLETE");
    }

    #[tokio::test]
    async fn missing_body_is_none_for_any_content_type() {
        let read =
            read_json(&HeaderMap::new(), Full::new(Bytes::new()), LIMITS, &mut Uncharged).await;
        assert!(read.unwrap().is_none());
    }
}
