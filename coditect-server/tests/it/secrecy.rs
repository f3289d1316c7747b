//! The log at its most verbose level has no secrets.

use std::{net::SocketAddr, path::Path};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use totp_rs::{Builder, Secret};

use crate::{
    account::{Device, LOGIN, REGISTER, credentials, logout, me, refresh},
    client::{Call, call},
    folder::Folder,
    process::{Process, on, program},
};

const EMAIL: &str = "ada@example.org";
const PASSWORD: &str = "a-password-to-look-for";
const WRONG: &str = "another-one-to-look-for";
const PASSWORD_AFTER: &str = "a-third-one-to-look-for";
const PEPPER: &str = "cGVwcGVyLXRvLWxvb2stZm9yLXBsZWFzZQ==";
const SESSIONS: &str = "/api/v5/sessions";

/// Obtains every other kind of secret, uses it correctly and incorrectly, and returns them.
async fn hand_out(server: SocketAddr, folder: &Path) -> Vec<String> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let browser = json!({"email": "bob@example.org", "password": PASSWORD, "cookies": true});
    let browser = call(server, Call::post(REGISTER).value(&browser)).await;
    let cookies: Vec<String> = browser
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie")
        .map(|(_, cookie)| cookie.split(';').next().unwrap().to_owned())
        .collect();
    let mut secrets = vec![text(&browser.data()["csrf_token"])];
    secrets.extend(cookies.iter().map(|pair| pair.split_once('=').unwrap().1.to_owned()));
    call(server, Call::get("/api/v5/auth/me").header("Cookie", &cookies.join("; "))).await;

    let device = Device::of(&call(server, credentials(LOGIN, "bob@example.org", PASSWORD)).await);
    let asked = async |request: Call| call(server, request.bearer(&device.token)).await.data();
    let new = json!({"name": "ci", "scopes": ["read"]});
    let personal = text(&asked(Call::post("/api/v5/auth/tokens").value(&new)).await["token"]);
    me(server, &personal).await;
    me(server, &format!("{}x", &personal[..46])).await;
    secrets.push(personal);
    secrets.push(text(&asked(Call::post("/api/v5/auth/tickets")).await["ticket"]));
    let invite = json!({"email": "carol@example.org", "role": "member"});
    let invitation =
        text(&asked(Call::post("/api/v5/tenant/invitations").value(&invite)).await["token"]);
    let accept = json!({"token": invitation});
    let accept = Call::post("/api/v5/auth/invitations/accept").value(&accept);
    call(server, accept.bearer(&device.token)).await;
    secrets.push(invitation);

    let factor = Call::post("/api/v5/auth/totp").value(&json!({"password": PASSWORD}));
    let factor = asked(factor).await;
    let secret = text(&factor["secret"]);
    let totp = Builder::new().with_secret(Secret::try_from_base32(&secret).unwrap()).build();
    let now = coditect_store::Clock::system().now().timestamp().try_into().unwrap();
    let code = json!({"code": totp.unwrap().generate(now).to_string()});
    let confirmed = asked(Call::post("/api/v5/auth/totp/confirm").value(&code)).await;
    secrets.extend(confirmed["recovery_codes"].as_array().unwrap().iter().map(text));
    secrets.push(secret);

    let mut command = program(&["user", "reset-password", "bob@example.org"], folder);
    let said = String::from_utf8(command.output().await.unwrap().stdout).unwrap();
    let reset = said.split_whitespace().find(|word| word.starts_with("cpr_")).unwrap().to_owned();
    let body = json!({"token": reset, "new_password": PASSWORD_AFTER});
    let answer = call(server, Call::post("/api/v5/auth/password-reset/confirm").value(&body)).await;
    assert_eq!(answer.status, 200);
    let asked = json!({"email": "bob@example.org"});
    call(server, Call::post("/api/v5/auth/password-reset").value(&asked)).await;
    secrets.extend([reset, PASSWORD_AFTER.to_owned()]);
    secrets
}

#[tokio::test]
async fn log_has_no_secrets_at_any_level() {
    for format in ["text", "json"] {
        let folder = Folder::new();
        let flags =
            ["--log-level", "trace", "--log-format", format, "--refresh-grace", "0s", "--cookies"];
        let mut command = on(folder.path(), &flags);
        command.env("CODITECT_PEPPER", format!("p1:{PEPPER}"));
        let process = Process::start(command).await;
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
        rotated.expect_alive(server).await;
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

        let handed_out = hand_out(server, folder.path()).await;
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
            PEPPER.to_owned(),
        ];
        secrets.extend(handed_out);
        for device in &devices {
            secrets.extend(device.token.split('.').map(str::to_owned));
            let refresh = BASE64_URL_SAFE_NO_PAD.decode(&device.refresh_token[4..]).unwrap();
            secrets.push(device.refresh_token[4..].to_owned());
            // Bytes in the format of `Debug`, from within the secret.
            let shown = format!("{:?}", &refresh[21..29]);
            secrets.push(shown.trim_matches(['[', ']']).to_owned());
        }
        for secret in secrets {
            let line = log.lines().find(|line| line.contains(&secret));
            assert_eq!(line, None, "{secret} is in the log");
        }
    }
}
