//! Single requests: routes, ids, bodies, common headers.

use crate::{
    client::{Answer, Call, Client, call},
    server::Running,
};

async fn sample_answers(wanted: Call) -> Answer {
    let server = Running::start_sample(&[]).await;
    call(server.address, wanted).await
}

#[tokio::test]
async fn unknown_route_is_a_404() {
    let answer = sample_answers(Call::get("/nowhere")).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "NOT_FOUND"));
}

#[tokio::test]
async fn wrong_method_is_a_405_with_the_allowed_ones() {
    let answer = sample_answers(Call::new("DELETE", "/echo/x")).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.code(), "METHOD_NOT_ALLOWED");
    assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
}

#[tokio::test]
async fn options_lists_the_methods() {
    let answer = sample_answers(Call::new("OPTIONS", "/empty")).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
}

#[tokio::test]
async fn valid_request_id_is_kept_and_an_invalid_one_replaced() {
    let server = Running::start_sample(&[]).await;
    let with_id = |id: &str| Call::get("/empty").header("X-Request-Id", id);
    let kept = call(server.address, with_id("trace-7.A_b")).await;
    assert_eq!(kept.header("x-request-id"), Some("trace-7.A_b"));
    let replaced = call(server.address, with_id("<script>")).await;
    let id = replaced.header("x-request-id").unwrap();
    assert_eq!(id.parse::<uuid::Uuid>().unwrap().get_version_num(), 7);
}

#[tokio::test]
async fn responses_are_not_cached_or_sniffed() {
    let answer = sample_answers(Call::get("/empty")).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn panic_is_a_500_of_its_request_without_details() {
    let server = Running::start_sample(&[]).await;
    let mut client = Client::connect(server.address).await;
    let answer = client.call(Call::get("/panics")).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "INTERNAL"));
    assert!(!String::from_utf8_lossy(&answer.body).contains("as it should"));
    assert_eq!(client.call(Call::get("/empty")).await.status, 204);
}

#[tokio::test]
async fn body_is_read_in_both_spellings_with_a_decoded_path() {
    for body in [r#"{"firstName":"Ada"}"#, r#"{"first_name":"Ada"}"#] {
        let answer = sample_answers(Call::post("/echo/a%2Fb").json(body)).await;
        assert_eq!(answer.data()["name"], "a/b");
        assert_eq!(answer.data()["first_name"], "Ada");
    }
}

#[tokio::test]
async fn invalid_body_is_refused_with_a_message() {
    let server = Running::start_sample(&[]).await;
    for (body, status, code) in [
        ("", 400, "EMPTY_BODY"),
        ("{", 400, "INVALID_JSON"),
        (r#"["Ada"]"#, 400, "INVALID_BODY"),
        ("7", 400, "INVALID_BODY"),
        ("{}", 422, "VALIDATION_FAILED"),
        (r#"{"firstName":7}"#, 422, "VALIDATION_FAILED"),
        (r#"{"firstName":"A","first_name":"B"}"#, 400, "DUPLICATE_FIELD"),
    ] {
        let answer = call(server.address, Call::post("/echo/x").json(body)).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}");
    }
    let missing = call(server.address, Call::post("/echo/x").json("{}")).await;
    assert_eq!(missing.json()["error"]["fields"][0]["field"], "first_name");
}

#[tokio::test]
async fn non_json_content_type_is_a_415() {
    let form = Call::post("/echo/x")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body("firstName=Ada");
    let answer = sample_answers(form).await;
    assert_eq!(answer.status, 415);
    assert_eq!(answer.code(), "UNSUPPORTED_MEDIA_TYPE");
}

#[tokio::test]
async fn request_must_have_one_host() {
    let server = Running::start_sample(&[]).await;
    for hosts in ["", "Host: a\r\nHost: b\r\n"] {
        let mut client = Client::connect(server.address).await;
        let request = format!("GET /empty HTTP/1.1\r\n{hosts}\r\n");
        client.send(request.as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "BAD_REQUEST"));
    }
}
