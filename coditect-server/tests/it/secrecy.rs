//! The log, at its most talkative, and what must not be in it.

#![cfg(unix)]

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;

use crate::{
    account::{Device, LOGIN, REGISTER, credentials, logout, me, refresh},
    client::{Call, call},
    process::{Process, on},
};

const EMAIL: &str = "ada@example.org";
const PASSWORD: &str = "a-password-to-look-for";
const WRONG: &str = "another-one-to-look-for";
const SESSIONS: &str = "/api/v5/sessions";

#[tokio::test]
async fn no_password_token_or_hash_is_in_the_log_at_any_level() {
    for format in ["text", "json"] {
        let folder = tempfile::tempdir().unwrap();
        let flags = ["--log-level", "trace", "--log-format", format, "--refresh-grace", "0s"];
        let process = Process::start(on(folder.path(), &flags)).await;
        let server = process.address;

        let device = Device::of(&call(server, credentials(REGISTER, EMAIL, PASSWORD)).await);
        let mut devices = vec![device.clone()];
        for _ in 0..3 {
            devices.push(Device::of(&call(server, credentials(LOGIN, EMAIL, PASSWORD)).await));
        }
        call(server, credentials(LOGIN, EMAIL, WRONG)).await;
        call(server, credentials(LOGIN, "nobody@example.org", WRONG)).await;
        call(server, credentials(REGISTER, EMAIL, WRONG)).await;
        call(server, credentials(REGISTER, WRONG, WRONG)).await;
        call(server, Call::post(LOGIN).json(format!(r#"{{"email":"a","password":["{WRONG}"]}}"#)))
            .await;

        let create = Call::post(SESSIONS).bearer(&device.token).value(&json!({"name": "n"}));
        let made = call(server, create).await.data();
        let own = format!("{SESSIONS}/{}", made["id"].as_str().unwrap());
        for wanted in [
            Call::get(SESSIONS),
            Call::get(&own),
            Call::patch(&own).value(&json!({"settings": {"api_key": WRONG}})),
            Call::delete(&own),
            Call::delete(&own),
            Call::get(&format!("/{WRONG}?token={WRONG}")),
        ] {
            call(server, wanted.bearer(&device.token)).await;
        }

        let rotated = devices[1].refreshed(server).await;
        assert_eq!(refresh(server, &devices[1].refresh_token).await.code(), "REFRESH_REUSED");
        devices.push(rotated.clone());
        rotated.expect_dead(server, "SESSION_REVOKED").await;
        me(server, &device.refresh_token).await;
        refresh(server, &device.token).await;
        refresh(server, WRONG).await;
        logout(server, Some(&device.token), &json!({})).await;
        logout(server, None, &json!({"refresh_token": devices[2].refresh_token})).await;
        let everywhere = json!({"everywhere": true});
        logout(server, Some(&devices[3].token), &everywhere).await;

        let key = std::fs::read_to_string(folder.path().join("master.key")).unwrap();
        let log = process.terminate().await.stderr;
        assert!(log.lines().count() > 20, "{log}");
        let mut secrets = vec![
            PASSWORD.to_owned(),
            WRONG.to_owned(),
            "$argon2".to_owned(),
            "eyJ".to_owned(),
            "crt_".to_owned(),
            key.trim().to_owned(),
        ];
        for device in &devices {
            secrets.extend(device.token.split('.').map(str::to_owned));
            let refresh = BASE64_URL_SAFE_NO_PAD.decode(&device.refresh_token[4..]).unwrap();
            secrets.push(device.refresh_token[4..].to_owned());
            // As `Debug` shows bytes, the beginning of the secret within.
            let shown = format!("{:?}", &refresh[21..29]);
            secrets.push(shown.trim_matches(['[', ']']).to_owned());
        }
        for secret in secrets {
            let line = log.lines().find(|line| line.contains(&secret));
            assert_eq!(line, None, "{secret} is in the log");
        }
    }
}
